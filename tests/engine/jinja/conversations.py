"""Conversations for the templates of this folder, with tools, system messages, many turns and all scripts."""
import random

TEXTS = [
    "Hello there!", "What is 2 + 2?\n\nPlease explain.", "  leading and trailing  ", "", "\n\n", "Grüße aus Köln — ça va?", "你好，世界！今天天气怎么样？",
    "مرحبا بالعالم", "Emoji: 😀👩‍👩‍👧‍👦🏳️‍🌈", "Ünïcödé ﬁ ß ŉ ǅ İstanbul", "<|im_end|> as text", "{{ not_a_variable }} {% if x %}", "tab\there\r\nand a CR LF",
    "\"quotes\" and 'apostrophes' and \\ backslashes", "<b>html & entities</b>", "<think>\nhidden thoughts\n</think>\n\nThe answer is 4.",
    "<tool_response>\nlooks like one\n</tool_response>", "I cannot </think> do that", "a" * 300, "line one\nline two\n\nline four", "/nothink", "None", "0",
    "x\u2028y\u00a0z\x1cq", "Привет, как дела?", "def f(x):\n    return {'a': [x, 1.5]}\n",
]
SYSTEMS = ["You are terse.", "  Trim me.  \n", "", "Answer in 中文 only.", "Multi\nline\n\nsystem"]
TOOLS = [
    {"type": "function", "function": {"name": "get_weather", "description": "Current weather of a city.", "parameters": {
        "type": "object", "properties": {"city": {"type": "string", "description": "Its name"},
                                         "unit": {"type": "string", "enum": ["celsius", "fahrenheit"], "default": "celsius"},
                                         "days": {"type": "integer", "default": 1}}, "required": ["city"]},
        "return": {"type": "string", "description": "as text"}}},
    {"type": "function", "function": {"name": "search", "description": "Suche – ünïcode \"quoted\"", "parameters": {
        "type": "object", "properties": {"queries": {"type": "array", "items": {"type": "string"}}, "limit": {"type": ["integer", "null"]},
                                         "filters": {"type": "array", "items": {"type": "object", "properties": {"key": {"type": "string"}, "value": {"type": "number"}}}},
                                         "mode": {"oneOf": [{"type": "string", "default": "fast"}, {"type": "boolean"}]},
                                         "options": {"type": "object", "properties": {"deep": {"type": "boolean"}}, "required": ["deep"]}}}}},
    {"type": "function", "function": {"name": "now", "description": "The time.", "parameters": {"type": "object", "properties": {}}}},
]
ARGUMENTS = [{"city": "Köln", "unit": "celsius"}, {"queries": ["a", "b"], "limit": 3, "ratio": 0.1, "big": 1e16, "deep": {"x": [None, True]}}, {},
             {"text": "line\n\"quoted\" <tag>"}, {"city": "東京", "days": 2}]
DOCUMENTS = [{"title": "One", "text": "First document.\nTwo lines."}, {"text": "Zweites – Dokument", "title": "Zwei", "score": 0.5}]


class Conversations:
    def __init__(self, seed):
        self.random = random.Random(seed)

    def pick(self, items):
        return items[int(self.random.random() * len(items))]

    def chance(self, share):
        return self.random.random() < share

    def call(self):
        call = {"function": {"name": self.pick(["get_weather", "search", "now"]), "arguments": self.pick(ARGUMENTS)}}
        if self.chance(0.85):
            call = {"type": "function", **call}
        if self.chance(0.2):
            call["function"]["arguments"] = '{"city": "as a string"}'
        if self.chance(0.9):
            call["id"] = self.pick(["call_0001", "abcdefghi", "call_ü"])
        return call

    def exchange(self, with_tools):
        yield {"role": "user", "content": self.pick(TEXTS)}
        while with_tools and self.chance(0.5):
            message = {"role": "assistant", "content": self.pick([None, "", "Let me look.", "<think>\nhm\n</think>\n\nI call."])}
            if self.chance(0.3):
                del message["content"]
            message["tool_calls"] = [self.call() for _ in range(1 if self.chance(0.7) else 2)]
            yield message
            for call in message["tool_calls"]:
                yield {"role": "tool", "content": self.pick(TEXTS + ['{"temp": 21.5}']), "tool_call_id": call.get("id", "call_0001"), "name": call["function"]["name"]}
        message = {"role": "assistant", "content": self.pick(TEXTS)}
        if self.chance(0.15):
            message["reasoning_content"] = self.pick(TEXTS)
        if self.chance(0.1):
            message["thinking"] = self.pick(TEXTS)
        if self.chance(0.1):
            message["tool_calls"] = None
        yield message

    def messages(self, with_tools):
        messages = []
        if self.chance(0.5):
            messages.append({"role": "system", "content": self.pick(SYSTEMS)})
        for _ in range(1 + int(self.random.random() * 4)):
            messages += self.exchange(with_tools)
        if self.chance(0.6):
            messages.pop()
        return self.spoil(messages)

    def spoil(self, messages):
        """Now and then something that templates refuse, or ought to."""
        kind = int(self.random.random() * 40)
        if kind == 0:
            messages.append({"role": "user", "content": "twice in a row"})
        elif kind == 1:
            messages[-1]["role"] = "stranger"
        elif kind == 2:
            messages[0] = {"role": "user"}
        elif kind == 3:
            messages[-1]["content"] = [{"type": "text", "text": "in parts"}, {"type": "text", "text": " and more"}]
        elif kind == 4:
            messages = []
        elif kind == 5:
            messages[-1]["content"] = 42
        return messages

    def next(self):
        """The variables of one rendering."""
        with_tools = self.chance(0.4)
        variables = {"messages": self.messages(with_tools), "tools": None, "documents": None,
                     "add_generation_prompt": self.chance(0.6)}
        if with_tools:
            variables["tools"] = TOOLS[:1 + int(self.random.random() * 3)]
        if self.chance(0.15):
            variables["documents"] = DOCUMENTS
        for name, token, share in (("bos_token", "<s>", 0.9), ("eos_token", "</s>", 0.95), ("pad_token", "<pad>", 0.5)):
            if self.chance(share):
                variables[name] = token
        for name, values in (("enable_thinking", [True, False]), ("thinking", [True, False]), ("date_string", ["26 Jul 2024"]),
                             ("tools_in_user_message", [True, False]), ("reasoning_effort", ["low", "high"]), ("model_identity", ["You are X."]),
                             ("controls", [{"length": "short"}, {"citations": True}, []])):
            if self.chance(0.25):
                variables[name] = self.pick(values)
        return variables
