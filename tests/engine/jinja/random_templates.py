"""Small random templates: expressions of every kind over a few variables, and statements around them.

Many of them are errors on purpose: what the reference refuses must be refused.
"""
import random

VARIABLES = {
    "s": "Hello, <World>", "t": "  spaced\tout \n", "u": "Grüße 世界 😀 ǆ ß", "empty": "", "digits": "42", "word": "don't stop",
    "lines": "one\ntwo\r\n\nthree", "i": 7, "j": -3, "zero": 0, "f": 2.5, "g": -0.75, "big": 123456789012345678, "b": True,
    "n": None, "l": [3, 1, 2], "m": ["b", "A", "c", "a"], "mixed": [1, "x", None, 2.5, True, [1], {"k": 1}], "nolist": [],
    "d": {"a": 1, "b": "two", "c": [1, 2], "items": "own", "Z": None}, "nodict": {}, "nested": {"x": {"y": [{"z": "deep"}]}},
    "people": [{"name": "Ann", "age": 31, "tags": ["x"]}, {"name": "bob", "age": 4, "tags": []}, {"name": "Cy", "tags": ["x", "y"]}],
}
NAMES = list(VARIABLES) + ["missing", "nope"]
KEYS = ["a", "b", "c", "items", "name", "age", "x", "y", "z", "keys", "missing", "k", "upper", "tags"]
LITERALS = ["0", "1", "2", "-1", "3", "10", "1.5", "0.1", "1e3", "2.0", "'a'", "'x'", "', '", "'name'", "''", '"it\'s"', "'\\n'", "true", "false",
            "none", "None", "True", "[]", "{}", "()", "[1, 2]", "['a', 'b']", "(1, 'a')", "{'a': 1}", "'é'", "'%s-%s'", "1_000", "0x1f"]
FILTERS = ["abs", "capitalize", "count", "d", "default", "default('z')", "default('z', true)", "dictsort", "e", "escape", "first", "float",
           "float(1.5)", "indent", "indent(2)", "indent(2, true)", "indent('> ', true, true)", "int", "int(9)", "int(base=16)", "items",
           "items|list", "join", "join(', ')", "join('-', 'name')", "last", "length", "list", "lower", "map('upper')|list",
           "map(attribute='name')|list", "map('default', 'q')|join", "map(attribute='age', default='?')|list", "max", "min", "max(attribute='age')",
           "reject('none')|list", "rejectattr('tags')|list", "rejectattr('age', 'undefined')|list", "replace('o', '0')", "replace('l', 'L', 1)",
           "reverse", "reverse|list", "round", "round(1)", "round(1, 'floor')", "round(0, 'ceil')|int", "safe", "select|list",
           "select('string')|list", "select('gt', 1)|list", "selectattr('age')|list", "selectattr('name', 'eq', 'Ann')|list",
           "selectattr('tags', 'in', [['x']])|list", "slice(2)|list", "sort", "sort(reverse=true)", "sort(attribute='name')",
           "sort(case_sensitive=true)", "sort(attribute='age,name')", "string", "sum", "sum('age')", "sum(start=10)", "title", "tojson",
           "tojson(indent=2)", "tojson(ensure_ascii=true)", "tojson(sort_keys=true)", "tojson(separators=(',', ':'))", "trim", "trim('H<>d ')",
           "unique|list", "upper", "wordcount", "batch(2)|list", "batch(3, '-')|list", "center(20)", "format(1, 2)", "forceescape",
           "attr('upper')", "groupless", "nosuchfilter", "tojson(indent='\t')", "dictsort(by='value')", "dictsort(reverse=true)"]
TESTS = ["defined", "undefined", "none", "string", "mapping", "sequence", "iterable", "number", "integer", "float", "boolean", "true", "false",
         "odd", "even", "divisibleby 2", "divisibleby(3)", "eq 1", "equalto('a')", "ne 1", "gt 1", "ge 1", "lt 3", "le 3", "in [1, 2, 'a']",
         "in 'abc'", "in d", "lower", "upper", "sameas none", "callable", "escaped", "filter", "test", "not defined", "not none", "not in [1]",
         "lessthan 5", "greaterthan(0)", "nosuchtest", "== 1", "!= 2"]
METHODS = ["strip()", "lstrip()", "rstrip()", "strip('<Hd>')", "lstrip('He')", "rstrip('\\n')", "split()", "split(',')", "split('o', 1)", "split(maxsplit=1)",
           "rsplit('o', 1)", "rsplit(none, 1)", "splitlines()", "splitlines(true)", "startswith('H')", "startswith(('a', 'H'))", "endswith('>')",
           "endswith('ß')", "upper()", "lower()", "title()", "capitalize()", "swapcase()", "replace('o', '0')", "replace('l', '', 1)", "replace('', '-')",
           "join(m)", "join(['x', 'y'])", "join(mixed)", "find('o')", "find('o', 5)", "find('zz')", "rfind('o')", "index('l')", "index('zz')", "rindex('l')",
           "count('o')", "count('')", "isdigit()", "isalpha()", "isalnum()", "isspace()", "isupper()", "islower()", "istitle()", "isdecimal()",
           "isnumeric()", "isascii()", "isprintable()", "zfill(5)", "ljust(15, '.')", "rjust(15)", "center(15, '*')", "partition(',')",
           "rpartition('o')", "removeprefix('He')", "removesuffix('>')", "get('a')", "get('q')", "get('q', 5)", "get(1)", "items()", "items()|list",
           "keys()", "keys()|list", "values()|list", "copy()", "append(1)", "pop()", "index(1)", "count(1)", "update({})", "get()", "upper(1)",
           "nomethod()", "items", "split", "clear", "__class__", "strip"]
BINARY = ["+", "-", "*", "/", "//", "%", "**", "~", "==", "!=", "<", "<=", ">", ">=", "in", "not in", "and", "or"]
CALLS = ["range(3)", "range(1, 6, 2)", "range(3)|list", "range(5, 0, -2)|list", "dict(a=1, b='x')", "dict(d)", "namespace(q=1).q", "namespace(a=2)",
         "range(200000)", "range('a')", "strftime_now('%Y-%m-%d')", "strftime_now('%d %b %Y, %H:%M:%S %A %j')", "raise_exception('no')", "nofunction()",
         "loop.index", "range(0)", "range(4)[1:]", "range(4)[2]", "dict([('a', 1)])", "d.items()"]


class Generator:
    def __init__(self, seed):
        self.random = random.Random(seed)

    def pick(self, items):
        return items[int(self.random.random() * len(items))]

    def chance(self, share):
        return self.random.random() < share

    def atom(self):
        kind = self.random.random()
        if kind < 0.55:
            return self.pick(NAMES)
        if kind < 0.9:
            return self.pick(LITERALS)
        return self.pick(CALLS)

    def slice(self, depth):
        part = lambda: "" if self.chance(0.4) else self.pick(["0", "1", "2", "-1", "-2", "5", "none", "i", self.expression(depth - 1)])
        text = part() + ":" + part()
        return text + ":" + part() if self.chance(0.4) else text

    def postfix(self, depth):
        text = self.pick([self.atom(), "(" + self.expression(depth - 1) + ")"])
        for _ in range(1 + int(self.random.random() * 2)):
            kind = self.random.random()
            if kind < 0.35:
                text += "." + self.pick(METHODS)
            elif kind < 0.55:
                text += "." + self.pick(KEYS)
            elif kind < 0.8:
                text += "[" + self.pick(["0", "-1", "1", "'a'", "'name'", "'x'", "99", "i", self.atom()]) + "]"
            else:
                text += "[" + self.slice(depth) + "]"
        return text

    def expression(self, depth=3):
        if depth <= 0:
            return self.atom()
        kind = self.random.random()
        if kind < 0.15:
            return self.atom()
        if kind < 0.35:
            return self.postfix(depth)
        if kind < 0.55:
            return self.pick([self.atom(), "(" + self.expression(depth - 1) + ")", self.postfix(depth)]) + "|" + self.pick(FILTERS)
        if kind < 0.65:
            return self.pick([self.atom(), self.postfix(depth)]) + " is " + self.pick(TESTS)
        if kind < 0.85:
            return self.expression(depth - 1) + " " + self.pick(BINARY) + " " + self.expression(depth - 1)
        if kind < 0.9:
            return self.pick(["not ", "-", "+"]) + self.expression(depth - 1)
        if kind < 0.94:
            text = self.expression(depth - 1) + " if " + self.expression(depth - 1)
            return text + " else " + self.expression(depth - 1) if self.chance(0.7) else text
        return self.pick(["[{}, {}]", "({}, {})", "{{'p': {}, 'q': {}}}", "({}) < ({}) < 5"]).format(
            self.expression(depth - 1), self.expression(depth - 1))

    def text(self):
        return self.pick(["", " ", "\n", "x", "  \n  ", "text ", "{", "%}", "{#- c -#}", "{# c #}\n", "{% raw %}{{ x }}{% endraw %}\n", "é\n"])

    def tag(self, body):
        return "{%" + self.pick(["", "", "-", "+"]) + " " + body + " " + self.pick(["", "", "-", "+"]) + "%}"

    def output(self, depth):
        return "{{" + self.pick(["", "", "-"]) + " " + self.expression(depth) + " " + self.pick(["", "", "-"]) + "}}"

    def statement(self, depth):
        body = lambda: self.template(depth - 1)
        kind = int(self.random.random() * 13) if depth > 0 else 13
        if kind == 0:
            condition = " if " + self.expression(1) if self.chance(0.3) else ""
            target = self.pick(["x", "x", "k, v", "s"])
            source = self.pick(["l", "m", "people", "mixed", "d.items()", "d|items", "s", "range(3)", "nolist", "missing", "n", "d|dictsort", self.expression(1)])
            tail = self.tag("else") + body() if self.chance(0.3) else ""
            inner = body() + self.pick(["", "", "{{ loop.index }}", "{{ loop.last }}", "{{ loop.previtem }}", "{{ loop.nextitem }}", "{{ loop.length }}",
                                        "{{ loop.revindex0 }}", "{% if loop.index0 > 0 %}{% break %}{% endif %}", "{% continue %}", "{{ x }}",
                                        "{{ loop.first }}{{ loop.cycle('a', 'b') }}", "{{ loop.changed(x) }}", "{{ loop.nope }}"])
            return self.tag(f"for {target} in {source}{condition}") + inner + tail + self.tag("endfor")
        if kind in (1, 2):
            tail = self.tag("elif " + self.expression(2)) + body() if self.chance(0.3) else ""
            tail += self.tag("else") + body() if self.chance(0.5) else ""
            return self.tag("if " + self.expression(2)) + body() + tail + self.tag("endif")
        if kind in (3, 4):
            return self.tag(f"set {self.pick(['x', 's', 'i', 'y', 'a, b'])} = {self.expression(2)}") + "{{ x }}{{ s }}"
        if kind == 5:
            return self.tag("set x" + self.pick(["", " | upper", " | trim"])) + body() + self.tag("endset") + "[{{ x }}]"
        if kind == 6:
            return (self.tag("set ns = namespace(v=0, w='')") + self.tag("for x in " + self.pick(["l", "m", "range(3)"])) +
                    self.tag("set ns.v = ns.v + " + self.pick(["1", "loop.index", "2.5"])) + body() + self.tag("endfor") + "{{ ns.v }}{{ ns.nope }}")
        if kind == 7:
            call = self.pick(["m()", "m(1)", "m(1, 2)", "m(b=3)", "m(1, b=s)", "m(1, 2, 3)", "m(c=1)", "m(s, l)", "m(a=1, b=2)"])
            return self.tag(self.pick(["macro m(a, b='D')", "macro m(a, b)", "macro m(a=i, b=a)"])) + "({{ a }}|{{ b }}" + body() + ")" + self.tag("endmacro") + "{{ " + call + " }}"
        if kind == 8:
            return self.tag("with x = " + self.expression(1) + ", y = 5") + body() + "{{ x }}{{ y }}" + self.tag("endwith")
        if kind == 9:
            return self.tag("filter " + self.pick(["upper", "trim", "indent(2)", "replace('a', 'b')", "upper|lower"])) + body() + self.tag("endfilter")
        if kind == 10:
            return self.tag("generation") + body() + self.tag("endgeneration")
        if kind == 11:
            return (self.tag("macro w(a)") + "<{{ a }}{{ caller(a) if caller else '-' }}>" + self.tag("endmacro") +
                    self.tag("call(z) w(" + self.expression(1) + ")") + "{{ z }}" + body() + self.tag("endcall"))
        return self.output(3)

    def template(self, depth=2):
        return "".join(self.pick([self.text, lambda: self.output(2), lambda: self.statement(depth)])() for _ in range(1 + int(self.random.random() * 3)))

    def next(self):
        if self.chance(0.6):
            return "{{ " + self.expression(3) + " }}"
        return self.template(2)
