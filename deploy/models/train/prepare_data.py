#!/usr/bin/env python3
"""Fetches the training text, cleans it, trains the tokenizer and writes token files.

    python prepare_data.py --cache CACHE [--tokenizer FILE]

Everything comes from Debian packages (`apt-get download`, unpacked with `dpkg-deb -x`, nothing is installed).
Six domains, each a list of documents; a document is the unit of the held-out split:

    scripture      King James Bible, one chapter            story          Wesnoth campaigns, one scenario
    dictionary     GCIDE (Webster 1913), one headword       encyclopaedia  FOLDOC, one article
    manual         Linux man pages and PostgreSQL manual,   code           Python standard library, one file
                   one page

Writes CACHE/data/{domain}.{train,heldout}.npy (uint16 tokens, every document followed by <|endoftext|>),
CACHE/data/{domain}.heldout.bytes (number of UTF-8 bytes, for bits per byte) and CACHE/data/sources.json.

Needs on the machine: apt-get, dpkg-deb and groff (with tbl, for the manual pages).
"""

import argparse
import concurrent.futures
import gzip
import hashlib
import html.parser
import json
import pathlib
import re
import subprocess
import unicodedata

import numpy as np
import tokenizers

END_OF_TEXT = "<|endoftext|>"
VOCAB_SIZE = 4096
HELD_OUT_ONE_IN = 25
CAMPAIGNS = "did dm dw ei httt l low nr sof sota sotbe thot trow tsg ttb utbs".split()
PACKAGES = {
    "scripture": ["bible-kjv", "bible-kjv-text"],
    "story": [f"wesnoth-1.16-{name}" for name in CAMPAIGNS],
    "dictionary": ["dict-gcide"],
    "encyclopaedia": ["dict-foldoc"],
    "manual": ["manpages", "manpages-dev", "postgresql-doc-15"],
    "code": ["libpython3.11-minimal", "libpython3.11-stdlib"],
}
CRUDE = re.compile(r"\b(?:fuck|shit|cunt|nigger|whore|slut|faggot|rape)\w*", re.I)


# --- fetching -------------------------------------------------------------------------------------------------------

def fetch(cache):
    """Downloads and unpacks every package once; returns {package: (folder, version)}."""
    debs, trees = cache / "debs", cache / "packages"
    debs.mkdir(parents=True, exist_ok=True)
    wanted = [name for names in PACKAGES.values() for name in names]
    missing = [name for name in wanted if not list(debs.glob(f"{name}_*.deb"))]
    if missing:
        subprocess.run(["apt-get", "download", *missing], cwd=debs, check=True)
    unpacked = {}
    for name in wanted:
        deb = sorted(debs.glob(f"{name}_*.deb"))[-1]
        tree = trees / name
        if not tree.exists():
            tree.mkdir(parents=True)
            subprocess.run(["dpkg-deb", "-x", deb, tree], check=True)
        version = subprocess.run(["dpkg-deb", "-f", deb, "Version"], check=True, capture_output=True, text=True)
        unpacked[name] = (tree, version.stdout.strip())
    return unpacked


# --- cleaning -------------------------------------------------------------------------------------------------------

ASCII = str.maketrans({
    "\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"', "\u2013": "-", "\u2014": "--", "\u2026": "...",
    "\u00a0": " ", "\u2010": "-", "\u2011": "-", "\u2212": "-", "\u2022": "-", "\u00b7": "-", "\u00ad": None,
    "\u200b": None, "\t": "    "})


def normalise(text):
    text = unicodedata.normalize("NFC", text).translate(ASCII)
    text = re.sub(r"[ ]+\n", "\n", text)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def one_line(text):
    return re.sub(r"\s+", " ", text).strip()


def scripture(packages):
    program = packages["bible-kjv"][0] / "usr/bin/bible"
    data = packages["bible-kjv-text"][0] / "usr/lib"
    # Line width and memory are set so that a verse is one line and the whole text fits.
    text = subprocess.run([program, "-l100000", "-m", "8000", "-p", f"{data}/", "gen1:1-rev22:21"], check=True,
                          capture_output=True, text=True, errors="replace").stdout
    for chapter in re.split(r"\n(?=[1-3]? ?[A-Z][A-Za-z ]+ \d+\n)", text):
        title, _, verses = chapter.strip().partition("\n")
        lines = re.findall(r"^\s*\d+ (.+)$", verses, re.M)
        if lines:
            yield title, title + "\n\n" + "\n".join(one_line(line) for line in lines)


def story(packages):
    item = re.compile(r'^[ \t]*(?P<key>speaker|role|name|story|message|\[message\])[ \t]*(?:=[ \t]*)?'
                      r'(?:(?P<text>_\s*"(?:[^"]|"")*"(?:\s*\+\s*_?\s*"(?:[^"]|"")*")*)|(?P<word>[^\n]*))', re.M)
    for package in PACKAGES["story"]:
        for path in sorted(packages[package][0].rglob("scenarios*/*.cfg")):
            title, speaker, lines = None, "", []
            for match in item.finditer(path.read_text(encoding="utf-8", errors="replace")):
                key, word = match["key"], (match["word"] or "").strip().strip('"')
                if key == "[message]":
                    speaker = ""
                elif key in ("speaker", "role"):
                    speaker = word if re.fullmatch(r"[A-Z][\w' -]*", word.replace("\u2019", "'")) else ""
                elif match["text"] and key in ("name", "story", "message"):
                    said = "".join(re.findall(r'"((?:[^"]|"")*)"', match["text"].replace('""', "\u201d")))
                    said = one_line(re.sub(r"<[^>]+>", "", said))
                    if key == "name":
                        title = title or said
                    elif said and not re.search(r"[${}|]", said):
                        lines.append(f"{speaker.replace('_', ' ')}: {said}" if speaker and key == "message" else said)
            body = "\n\n".join(dict.fromkeys(lines))
            if title and len(body) > 400:
                yield f"{package}/{path.name}", f"{title}\n\n{body}"


def plain_letters(text):
    """GCIDE writes accents as [=a], ['e], [ae]; keep the letters only."""
    return re.sub(r"\[[^A-Za-z\]\s]{0,2}([A-Za-z]{1,2})[^A-Za-z\]\s]{0,2}\]", r"\1", text)


def dictionary(packages):
    raw = gzip.decompress((packages["dict-gcide"][0] / "usr/share/dictd/gcide.dict.dz").read_bytes())
    text = raw.decode("utf-8", errors="replace").replace("\ufffd", "?")
    text = re.sub(r"^.*\[WordNet[^\]]*\][^\n]*$", "\0", text, flags=re.M)  # marks paragraphs of the newer additions
    # A source note ends each sense; a headword of the next entry may stand behind it.
    text = re.sub(r"\s*\[(?:Webster )?(?:19|18)\d\d [^\]]*\][^\n]*|\s*\[(?:PJC|Century|AS|RP|Foldoc)[^\]]*\]", "", text)
    head = re.compile(r"(?P<word>[A-Z][A-Za-z' -]*?) \\[^\\]*\\(?:\s*\([^)]*\))?,?\s*"
                      r"(?P<kind>(?:(?:n|v|a|t|i|p|pr|adv|prep|conj|interj|pron|imp|sing|pl)\.(?:\s*&)?\s*)+)")
    entries = {}
    for entry in re.split(r"\n\n(?=[A-Z][^\n]* \\)", text):
        paragraphs = entry.split("\n\n")
        first = one_line(paragraphs[0])
        match = head.match(first)
        if not match:
            continue
        rest = first[match.end():]
        while True:  # skip etymology, inflections, plural notes
            shorter = re.sub(r"^[;,]?\s*(?:pl\. \{[^}]*\}\.?|\[(?:[^\[\]]|\[[^\]]*\])*\]|\([^)]{0,12}\),)\s*", "", rest)
            if shorter == rest:
                break
            rest = shorter
        lines = [f"{match['word']}, {match['kind'].strip()}"]
        for paragraph in [rest, *paragraphs[1:]]:
            quoted = paragraph.startswith("            ")
            line = plain_letters(one_line(paragraph)).replace("{", "").replace("}", "")
            line = re.sub(r"\s*--\s*(?=[A-Z])", " --", line) if quoted else line
            if line and not re.search(r"\0| \? |\?\?|\\|\*|\u20ac", line):
                lines.append(("    " if quoted else "") + line)
        body = "\n".join(lines)
        if len(body) > 90 and not CRUDE.search(body):
            entries.setdefault(match["word"], []).append(body)
    for word, bodies in entries.items():
        yield word, "\n\n".join(bodies)


def encyclopaedia(packages):
    raw = gzip.decompress((packages["dict-foldoc"][0] / "usr/share/dictd/foldoc.dict.dz").read_bytes())
    text = raw.decode("utf-8", errors="replace")
    for entry in re.split(r"\n(?=\S)", text):
        title, _, body = entry.partition("\n")
        paragraphs = []
        for paragraph in re.split(r"\n\s*\n", body):
            indented = re.search(r"^ {4,}\S", paragraph, re.M) and not re.match(r"\s*\d+\. ", paragraph)
            line = one_line(paragraph).replace("{", "").replace("}", "")
            line = re.sub(r"^(?:\d+\. )?<[^>]+> ", "", line)
            line = re.sub(r"^/[^/]+/ ", "", line)
            if line and not indented and not re.match(r"[\[(].*[\])]\.?$|\W*$|See |Compare|https?:|.*\(ftp:", line):
                paragraphs.append(line)
        joined = "\n\n".join(paragraphs)
        if len(joined) > 120 and "\ufffd" not in joined and not CRUDE.search(joined):
            yield title, f"{title}\n\n{joined}"


def render_man(path):
    source = gzip.decompress(path.read_bytes()).decode("utf-8", errors="replace")
    if source.startswith(".so "):
        return None
    source = re.sub(r"^\.TS\n.*?^\.TE\n", "", source, flags=re.M | re.S)
    text = subprocess.run(["groff", "-t", "-man", "-Tutf8", "-P-cbou", "-rLL=3000n", "-Kutf8"], input=source.encode(),
                          capture_output=True).stdout.decode("utf-8", errors="replace")
    text = "\n".join(text.strip().split("\n")[1:-1])  # without the page header and footer
    text = re.split(r"\n(?:SEE ALSO|COLOPHON|AUTHORS?|COPYRIGHT)\n", text)[0]
    lines = []
    for line in text.split("\n"):
        body = line.strip()
        indent = len(line) - len(line.lstrip())
        # A tag and its text share a line when the tag is short: "EBADF  fd is not ...".
        body = re.sub(r"^(\S{1,6}) {2,}(?=\S)", r"\1  ", re.sub(r"(?<=\S) {2,}(?=\S)", " ", body))
        lines.append(("" if indent <= 7 else "    ") + body if body else "")
    return path.name.removesuffix(".gz"), "\n".join(lines)


class ManualPage(html.parser.HTMLParser):
    """Keeps headings, paragraphs, terms and program listings of a DocBook HTML page."""

    BLOCKS = {"p", "h1", "h2", "h3", "h4", "dt", "li", "dd", "pre", "div"}

    def __init__(self):
        super().__init__()
        self.blocks, self.current, self.skip, self.pre = [], [], [], False

    def flush(self):
        text = "".join(self.current)
        text = text.strip("\n") if self.pre else one_line(text)
        if text.strip():
            self.blocks.append(text)
        self.current = []

    def handle_starttag(self, tag, attrs):
        css = dict(attrs).get("class") or ""
        if self.skip or css.startswith(("nav", "toc", "footnote", "table")) or tag in ("table", "head", "sup"):
            if tag not in ("br", "hr", "img", "meta", "link", "input", "col"):
                self.skip.append(tag)
        elif tag in self.BLOCKS:
            self.flush()
            self.pre = tag == "pre"

    def handle_endtag(self, tag):
        if self.skip:
            if tag == self.skip[-1]:
                self.skip.pop()
        elif tag in self.BLOCKS:
            self.flush()
            self.pre = False

    def handle_data(self, data):
        if not self.skip:
            self.current.append(data)


def manual(packages):
    pages = [path for name in ("manpages", "manpages-dev")
             for path in sorted(packages[name][0].glob("usr/share/man/man?/*.gz")) if not path.is_symlink()]
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        yield from filter(None, pool.map(render_man, pages))
    for path in sorted(packages["postgresql-doc-15"][0].rglob("html/*.html")):
        if path.name.startswith(("release", "biblio", "bookindex", "features", "sql-keywords", "errcodes", "index")):
            continue
        page = ManualPage()
        page.feed(path.read_text(encoding="utf-8", errors="replace"))
        page.flush()
        body = "\n\n".join(block for block in page.blocks if not re.match(r"(Table|Figure) [\dA-Z]", block))
        yield path.name, body


def code(packages):
    for name in PACKAGES["code"]:
        for path in sorted(packages[name][0].rglob("*.py")):
            where = str(path)
            if re.search(r"/(encodings|pydoc_data|test|tests|lib2to3/tests|idlelib/idle_test)/|_sysconfigdata|_phello", where):
                continue
            text = path.read_text(encoding="utf-8", errors="replace")
            if max(map(len, text.split("\n"))) < 200:
                yield path.relative_to(packages[name][0]).as_posix(), text


# --- split, tokenizer, token files ----------------------------------------------------------------------------------

def is_held_out(domain, name):
    digest = hashlib.sha256(f"{domain}/{name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % HELD_OUT_ONE_IN == 0


def collect(packages):
    """{domain: {"train": [text], "heldout": [text]}}; texts that occur twice are kept once."""
    domains, seen = {}, set()
    for make in (scripture, story, dictionary, encyclopaedia, manual, code):
        split = {"train": [], "heldout": []}
        for name, text in make(packages):
            text = normalise(text)
            digest = hashlib.sha256(text.encode()).digest()
            foreign = sum(ord(letter) > 127 for letter in text) / len(text)
            if len(text) < 90 or digest in seen or foreign > 0.03:
                continue
            seen.add(digest)
            split["heldout" if is_held_out(make.__name__, name) else "train"].append(text)
        domains[make.__name__] = split
        sizes = {part: (len(texts), sum(map(len, texts))) for part, texts in split.items()}
        print(f"{make.__name__:14s} documents, characters: {sizes}", flush=True)
    return domains


def train_tokenizer(domains):
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE, special_tokens=[END_OF_TEXT], show_progress=False,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet())
    balanced = []
    for split in domains.values():  # the same amount of text from every domain
        size = 0
        for text in sorted(split["train"], key=lambda text: hashlib.sha256(text.encode()).digest()):
            balanced.append(text)
            size += len(text)
            if size > 2_000_000:
                break
    tokenizer.train_from_iterator(balanced, trainer)
    return tokenizer


def write_tokens(tokenizer, domains, out):
    end = tokenizer.token_to_id(END_OF_TEXT)
    for domain, split in domains.items():
        for part, texts in split.items():
            ids = []
            for encoding in tokenizer.encode_batch(texts):
                ids.extend(encoding.ids)
                ids.append(end)
            np.save(out / f"{domain}.{part}.npy", np.array(ids, dtype=np.uint16))
            size = sum(len(text.encode()) for text in texts)
            (out / f"{domain}.{part}.bytes").write_text(f"{size}\n")
            print(f"{domain:14s} {part:8s} {len(texts):6d} documents {size:9d} bytes {len(ids):8d} tokens", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=pathlib.Path, required=True, help="folder for downloads and token files")
    parser.add_argument("--tokenizer", type=pathlib.Path,
                        help="use this tokenizer.json instead of training one (keeps token ids stable)")
    options = parser.parse_args()

    packages = fetch(options.cache.resolve())
    domains = collect(packages)
    out = options.cache / "data"
    out.mkdir(exist_ok=True)
    (out / "preview.txt").write_text("\n".join(
        f"##### {domain}\n" + "\n-----\n".join(split["heldout"][:12])[:6000] for domain, split in domains.items()))
    tokenizer = (tokenizers.Tokenizer.from_file(str(options.tokenizer)) if options.tokenizer
                 else train_tokenizer(domains))
    tokenizer.save(str(out / "tokenizer.json"))
    write_tokens(tokenizer, domains, out)
    sources = {domain: {
        "packages": {name: packages[name][1] for name in names},
        "train_documents": len(domains[domain]["train"]), "heldout_documents": len(domains[domain]["heldout"]),
        "train_bytes": sum(len(text.encode()) for text in domains[domain]["train"]),
        "heldout_bytes": sum(len(text.encode()) for text in domains[domain]["heldout"]),
    } for domain, names in PACKAGES.items()}
    (out / "sources.json").write_text(json.dumps(sources, indent=2) + "\n")


if __name__ == "__main__":
    main()
