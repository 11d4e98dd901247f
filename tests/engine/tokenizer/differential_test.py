#!/usr/bin/env python3
"""Compares engine/tokenizer with the reference implementation, PyPI's `tokenizers`, on seeded random strings.

    python3 tests/engine/tokenizer/differential_test.py build/tests/engine/tokenizer/tokenizer_differential

Needs `pip install tokenizers`. Builds tokenizers of the kinds that Mixture-of-Experts models use (small vocabularies,
trained on the spot), and for each string compares the ids with and without special tokens added and with and without
special tokens read from the text, then the text decoded from those ids and from random ids, with and without special
tokens skipped. The C++ program checks on the way that decoding id by id gives the same text.

Unicode versions: the reference classifies by Unicode 16 and later where PCRE2 10.42 knows Unicode 14, so the strings
hold only code points of Unicode 14 (and noncharacters). Within those the test covers every code point once per kind.

Prints "N strings compared, 0 differences", or the first differences and exits with 1.
"""
import argparse
import concurrent.futures
import json
import os
import random
import struct
import subprocess
import sys
import time
import unicodedata

import charsmap
import tokenizers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

GPT2 = r"""'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""
QWEN2 = (r"""(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|"""
         r"""\s*[\r\n]+|\s+(?!\S)|\s+""")
LLAMA3 = (r"""(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|"""
          r"""\s*[\r\n]+|\s+(?!\S)|\s+""")
CL100K_POSSESSIVE = (r"""'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|"""
                     r"""\s++$|\s*[\r\n]|\s+(?!\S)|\s""")
O200K = (r"""[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"""
         r"""[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"""
         r"""\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+""")
KIMI = (r"""[\p{Han}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*"""
        r"""[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"""
        r"""[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*"""
        r"""(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+""")
DEEPSEEK_V3 = (r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+|"""
               r""" ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+""")
CJK_RUNS = r"[一-龥぀-ゟ゠-ヿ]+"
ODDITIES = (r"""(?m:/\*.*?\*/)|\w+(?=\()|\bif\b|\B['"]\B|[[:alpha:]&&[^aeiou\d]]{2,3}+|\h{4}|(?i)straße|^\s+|[[:punct:]]{,2}x|"""
            r"""\p{^L}\P{N}(?<![ \t])|[[a-c][x-z]_]+|\d+(?:\.\d+)*+|(?>ab|a)c|x{2}?y|\S\W|[^\W\d]{5}|\x{1F600}|\u00e9|[\]\-^]""")


def split(pattern, behavior="isolated", invert=False):
    return pre_tokenizers.Split(pattern, behavior, invert)


def byte_level(use_regex=False, add_prefix_space=False):
    return pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space, use_regex=use_regex)


CHAT_TOKENS = [
    AddedToken("<|endoftext|>", special=True, normalized=False),
    AddedToken("<|im_start|>", special=True, normalized=False),
    AddedToken("<|im_end|>", special=True, normalized=False),
    AddedToken("<think>", special=False, normalized=False),
    AddedToken("</think>", special=False, normalized=False),
    AddedToken("<mask>", special=True, normalized=False, lstrip=True),
    AddedToken("<r>", special=False, normalized=False, rstrip=True),
    AddedToken("<|im_", special=False, normalized=False),
    AddedToken("    ", special=False, normalized=True),
    AddedToken("word", special=False, normalized=True, single_word=True),
    AddedToken("é中", special=False, normalized=True),
    AddedToken("<both>", special=False, normalized=False, lstrip=True, rstrip=True),
]
LLAMA_TOKENS = [
    AddedToken("<unk>", special=True, normalized=False),
    AddedToken("<s>", special=True, normalized=False),
    AddedToken("</s>", special=True, normalized=False),
    AddedToken("<|pad|>", special=True, normalized=False, rstrip=True),
    AddedToken("<fn>", special=False, normalized=False),
    AddedToken("Hello there", special=False, normalized=True),
    AddedToken("word", special=False, normalized=True, single_word=True),
]


class Corpus:
    """Random strings from one seed: prose, code, runs of spaces, all scripts, emoji, marks, digits, tokens, junk."""

    SENTENCES = [
        "The quick brown fox jumps over the lazy dog, doesn't it? They're sure we'll see; I'd say it's fine.",
        "In 1984 there were 1,234,567 reasons (about 99.9%) to write: `for i in range(10): print(i)`.",
        "Ünïcödé façade naïve coöperate Straße ŒUVRE ĲSSELMEER ŉ ǅ İstanbul ſtrange K Å",
        "Привет, как дела? Съешь ещё этих мягких французских булок, да выпей чаю. Об'єкт п'ять",
        "Γειά σου Κόσμε. Ὀδυσσεύς· ἄνδρα μοι ἔννεπε, Μοῦσα",
        "我们今天去北京大学学习自然语言处理，然后在1999年回来。今日は東京へ行きました。カタカナとひらがな、ﾊﾝｶｸ。",
        "안녕하세요 세계, 한국어 문장입니다. 학교에서 배운 것들. ᄒᆞᆫ글",
        "مرحبا بالعالم، كيف حالك؟ السَّلَامُ عَلَيْكُمْ ١٢٣٤٥ \u200fשלום עולם, מה שלומך? בְּרֵאשִׁית",
        "नमस्ते दुनिया, आप कैसे हैं? १२३ ক্ষমতা বাংলা தமிழ் ภาษาไทยไม่มีช่องว่าง ລາວ ភាសាខ្មែរ",
        "def main(argc: int, **argv) -> None:\n\tif argc != 0x1F and argv[\"a\"] >= 3.14e-10:\n        return {'k': [1, 2, 3]}\n\n",
        "#include <vector>\nint main() { std::vector<int> v{1,2,3}; for (auto&& x : v) { /* c */ x <<= 2; } // end\n}\r\n",
        "SELECT * FROM t WHERE a<>'b' AND c IS NOT NULL; -- ok\n<div class=\"x\">&nbsp;</div> https://a.b/c?d=e&f=%20#g",
        "camelCase PascalCaseWord SCREAMING_SNAKE HTTPServerError iPhone XMLHttpRequest2 OK'S don'T CAN'T we'LL",
        "∑∫√∞≈≠±×÷ ½¾ ² ³ ₁₂ Ⅷ ⅻ ① ㊿ € £ ¥ ₹ ™ © ® ← → ♥ █ ▁▂▃ ℵ ℃ ﬁ ﬂ ﬀ ａＢｃ１２３",
    ]
    SPACES = [" ", " ", " ", "  ", "\t", "\n", "\r\n", "\r", "\n\n", "\x0b", "\x0c", "\x85", "\xa0", "\u1680", "\u180e", "\u2000",
              "\u2003", "\u2009", "\u200a", "\u200b", "\u200d", "\u2028", "\u2029", "\u202f", "\u205f", "\u3000", "\ufeff", "\x1c"]
    EMOJI = ["😂", "👍🏽", "👩‍👩‍👧‍👦", "🏳️‍🌈", "🇩🇪", "🇯🇵", "1️⃣", "❤️", "👨🏿‍💻", "🤷🏼‍♀️", "☺", "🫠", "🏴󠁧󠁢󠁥󠁮󠁧󠁿", "🀄", "⌚"]
    APOSTROPHES = ["'", "’", "ʼ", "＇", "`"]
    ENDINGS = ["s", "S", "t", "T", "re", "RE", "rE", "ve", "Ve", "m", "M", "ll", "LL", "lL", "d", "D", "ſ", "п", "ta", "lla", "x"]
    MARKS = [chr(c) for c in (0x300, 0x301, 0x308, 0x316, 0x323, 0x327, 0x328, 0x345, 0x35C, 0x334, 0x5B0, 0x64B, 0x94D, 0x302A, 0x3099)]

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.all_code_points = assigned_code_points()
        self.code_lines = self.load_code_lines()
        words = set()
        for sentence in self.SENTENCES + self.code_lines[:2000]:
            words.update(sentence.split())
        self.words = sorted(words)
        self.kinds = [self.prose, self.prose, self.code, self.spaces, self.anything, self.one_block, self.emoji, self.contractions,
                      self.marks, self.digits, self.junk, self.repeats, self.sentence, self.tokens, self.tokens, self.punctuation]
        self.token_texts = ["<s>"]

    @staticmethod
    def load_code_lines():
        folder = os.path.dirname(json.__file__)
        lines = []
        for name in ("__init__.py", "decoder.py", "encoder.py", "scanner.py"):
            with open(os.path.join(folder, name), encoding="utf-8") as file:
                lines += file.read().splitlines(keepends=True)
        return lines

    def pick(self, items):
        return items[int(self.random.random() * len(items))]

    def count(self, limit):
        return 1 + int(self.random.random() * limit)

    def prose(self):
        return "".join(self.pick(self.words) + self.pick([" ", " ", " ", "  ", ", ", ". ", "\n", "-"]) for _ in range(self.count(12)))

    def sentence(self):
        text = self.pick(self.SENTENCES)
        start = int(self.random.random() * len(text))
        return text[start:start + self.count(60)]

    def code(self):
        return "".join(self.pick(self.code_lines) for _ in range(self.count(3)))

    def spaces(self):
        return "".join(self.pick(self.SPACES) * self.count(3) for _ in range(self.count(5))) + self.pick(["", "x", ".", "1", "中"])

    def anything(self):
        return "".join(self.pick(self.all_code_points) for _ in range(self.count(12)))

    def one_block(self):
        start = int(self.random.random() * len(self.all_code_points))
        block = self.all_code_points[start:start + 64]
        return "".join(self.pick(block) + self.pick(["", "", "", " "]) for _ in range(self.count(16)))

    def emoji(self):
        return "".join(self.pick(self.EMOJI) + self.pick(["", "", " ", "a"]) for _ in range(self.count(6)))

    def contractions(self):
        return "".join(self.pick(self.words)[:6] + self.pick(self.APOSTROPHES) + self.pick(self.ENDINGS) + self.pick(["", " ", "x", "'"])
                       for _ in range(self.count(5)))

    def marks(self):
        base = "aeuoAOnз가か한각क가\u1100\u1161\u11a8\u212b\u0344\u0958\ufb1d"
        return "".join(self.pick(base) + "".join(self.pick(self.MARKS) for _ in range(int(self.random.random() * 5)))
                       for _ in range(self.count(8)))

    def digits(self):
        pool = "0123456789" * 4 + "٠٣٩०५๑𝟘𝟗²³¼½Ⅷ①零"
        return "".join(self.pick(pool) for _ in range(self.count(12))) + self.pick(["", ".", ",", " ", "e", "中"])

    def junk(self):
        raw = bytes(int(self.random.random() * 256) for _ in range(self.count(20)))
        return raw.decode("utf-8", errors="replace")

    def repeats(self):
        return self.pick(["a", "A", "é", "中", "😂", " ", "\n", "ab", "'s", "1", "..", "\u0301", "▁", "="]) * self.count(150)

    def tokens(self):
        glue = ["", "", " ", "  ", "a", "\n", ".", "word", "\u3000", "_", "é"]
        return "".join(self.pick(glue) + self.pick(self.token_texts) + self.pick(glue) for _ in range(self.count(4)))

    def punctuation(self):
        return "".join(self.pick("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~ \n/·¿«»…—“”、。！？") for _ in range(self.count(14)))

    def string(self):
        return "".join(self.pick(self.kinds)() for _ in range(self.count(3)))

    def every_code_point(self):
        """All code points in order, in strings of 48, with a letter between some of them."""
        step = 48
        for start in range(0, len(self.all_code_points), step):
            yield self.pick(["", "a", " "]).join(self.all_code_points[start:start + step])


# Ranges that were empty in Unicode 14 and have characters in 15, 15.1 or 16.
AFTER_UNICODE_14 = """
    897 CF3 ECE 1B4E-1B4F 1B7F 1C89-1C8A 2427-2429 2FFC-2FFF 31E4-31EF A7CB-A7CD A7DA-A7DC 105C0-105F3 10D40-10D8F
    10EC2-10EFF 1123F-11241 11380-113E2 116D0-116E3 11B00-11BF9 11F00-11F5A 1342F 13439-143FA 16100-16139
    16D40-16D79 18CFF 1B132 1B155 1CC00-1CEB3 1D2C0-1D2D3 1DF25-1DF2A 1E030-1E08F 1E4D0-1E5FF 1F6DC 1F774-1F77F
    1F7D9 1F8B2-1F8C1 1FA75-1FA77 1FA87-1FA8F 1FAAD-1FAAF 1FABB-1FABF 1FAC6-1FACF 1FADA-1FADF 1FAE8-1FAE9
    1FAF7-1FAF8 1FBCB-1FBEF 2B739 2EBF0-2EE5D 31350-323AF
"""


def assigned_code_points():
    """Characters that exist in Unicode 14, and a few noncharacters. Private use and ideographs are thinned out."""
    newer = set()
    for part in AFTER_UNICODE_14.split():
        first, last = (part.split("-") * 2)[:2]
        newer.update(range(int(first, 16), int(last, 16) + 1))
    characters = []
    for start in range(0, 0x110000, 0x400):
        block = [chr(c) for c in range(start, start + 0x400) if c not in newer and unicodedata.category(chr(c)) not in ("Cn", "Cs")]
        dense = 0x4E00 <= start < 0xD800 or 0xE000 <= start < 0xF800 or 0x17000 <= start < 0x18C00 or start >= 0x20000
        characters += block[::16] if dense else block
    return characters + ["\ufffe", "\uffff", "\ufdd0", "\U0001ffff", "\U0010ffff"]


def train(tokenizer, corpus, vocab_size=3000, **options):
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, show_progress=False, **options)
    text = Corpus.SENTENCES * 3 + corpus.code_lines + [corpus.prose() for _ in range(500)]
    tokenizer.train_from_iterator(text, trainer)
    return tokenizer


def byte_level_kind(corpus, pre_tokenizer, normalizer=None, post=None, ignore_merges=False, tokens=CHAT_TOKENS):
    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    tokenizer.pre_tokenizer = pre_tokenizer
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.decoder = decoders.ByteLevel()
    train(tokenizer, corpus, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    for token in tokens:
        (tokenizer.add_special_tokens if token.special else tokenizer.add_tokens)([token])
    if post is not None:
        tokenizer.post_processor = post(tokenizer)
    return tokenizer


def llama_kind(corpus, normalizer=None, pre_tokenizer=None, decoder=None, byte_tokens=256, fuse_unk=True, unk="<unk>", options=None):
    """SentencePiece-like: control tokens and bytes first, then what training finds."""
    learner = Tokenizer(models.BPE(unk_token=unk))
    learner.normalizer = normalizers.Replace(" ", "▁")
    learner.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    train(learner, corpus, vocab_size=2500, limit_alphabet=300)
    learned = json.loads(learner.to_str())["model"]
    texts = ["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(byte_tokens)]
    texts += [text for text, _ in sorted(learned["vocab"].items(), key=lambda item: item[1]) if text not in texts]
    merges = [tuple(merge) for merge in learned["merges"]]
    model = models.BPE(vocab={text: i for i, text in enumerate(texts)}, merges=merges, unk_token=unk, fuse_unk=fuse_unk,
                       byte_fallback=byte_tokens > 0, **(options or {}))
    tokenizer = Tokenizer(model)
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    if pre_tokenizer is not None:
        tokenizer.pre_tokenizer = pre_tokenizer
    if decoder is not None:
        tokenizer.decoder = decoder
    for token in LLAMA_TOKENS:
        (tokenizer.add_special_tokens if token.special else tokenizer.add_tokens)([token])
    tokenizer.post_processor = bos_template(tokenizer, "<s>", "</s>")
    return tokenizer


def unigram_kind(corpus, normalizer=None, pre_tokenizer=None, decoder=None, byte_tokens=0, vocab_size=2000):
    """As transformers writes T5's: control tokens, what training finds, then the sentinels; the end of the text behind."""
    learner = Tokenizer(models.Unigram())
    learner.normalizer = normalizer or normalizers.NFC()
    learner.pre_tokenizer = pre_tokenizers.Metaspace()
    controls = ["<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(vocab_size=vocab_size, special_tokens=controls, unk_token="<unk>", show_progress=False)
    learner.train_from_iterator(Corpus.SENTENCES * 3 + corpus.code_lines + [corpus.prose() for _ in range(500)], trainer)
    learned = [tuple(entry) for entry in json.loads(learner.to_str())["model"]["vocab"] if entry[0] not in controls]
    vocabulary = [(control, 0.0) for control in controls]
    vocabulary += [(f"<0x{byte:02X}>", 0.0) for byte in range(byte_tokens)] + learned
    vocabulary += [(f"<extra_id_{i}>", 0.0) for i in reversed(range(20))]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=2, byte_fallback=byte_tokens > 0))
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizer or pre_tokenizers.Metaspace()
    tokenizer.decoder = decoder or decoders.Metaspace()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False)
                                  for token in controls + [f"<extra_id_{i}>" for i in range(20)]])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", tokenizer.token_to_id("</s>"))])
    return tokenizer


def t5_normalizer(fold_case=False):
    return normalizers.Sequence([normalizers.Precompiled(charsmap.build(charsmap.nfkc(fold_case))),
                                 normalizers.Strip(left=False, right=True), normalizers.Replace(Regex(" {2,}"), "▁")])


def bos_template(tokenizer, bos, eos=None):
    template = f"{bos} $A" + (f" {eos}" if eos else "")
    names = [bos] + ([eos] if eos else [])
    return processors.TemplateProcessing(single=template, pair=f"{template} $B", special_tokens=[(name, tokenizer.token_to_id(name)) for name in names])


def llama_decoder():
    return decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])


def deepseek_v1(tail):
    return pre_tokenizers.Sequence([
        split(Regex(r"[\r\n]")),
        split(Regex(r"\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-Ⴥ]+")),
        split(Regex(r"\s?[!-/:-~！-／：-～‘-‟　-。]+")),
        split(Regex(r"\s+$")),
        split(Regex(r"[一-龥ࠀ-一가-퟿]+")),
    ] + tail)


def steps(*parts):
    return pre_tokenizers.Sequence(list(parts))


def kinds(corpus):
    """Name -> tokenizer."""
    regex = lambda pattern, behavior="isolated", invert=False: split(Regex(pattern), behavior, invert)
    llama2_normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    metaspace = lambda scheme, do_split=False: pre_tokenizers.Metaspace("▁", scheme, do_split)
    metaspace_decoder = lambda scheme: decoders.Sequence([decoders.Metaspace("▁", scheme), decoders.ByteFallback(), decoders.Fuse()])
    yield "gpt2", byte_level_kind(corpus, byte_level(use_regex=True), post=lambda t: processors.ByteLevel(trim_offsets=True))
    yield "gpt2 prefix space", byte_level_kind(
        corpus, byte_level(use_regex=True, add_prefix_space=True),
        post=lambda t: processors.RobertaProcessing(("<|im_end|>", t.token_to_id("<|im_end|>")), ("<|im_start|>", t.token_to_id("<|im_start|>"))))
    yield "gpt-neox", byte_level_kind(corpus, byte_level(use_regex=True), normalizers.NFC())
    yield "qwen2", byte_level_kind(corpus, steps(regex(QWEN2), byte_level()), normalizers.NFC())
    yield "llama3", byte_level_kind(corpus, steps(regex(LLAMA3), byte_level()), ignore_merges=True, post=lambda t: processors.Sequence(
        [processors.ByteLevel(trim_offsets=False), bos_template(t, "<|im_start|>")]))
    yield "cl100k possessive", byte_level_kind(corpus, steps(regex(CL100K_POSSESSIVE, "removed", True), byte_level()))
    yield "o200k", byte_level_kind(corpus, steps(regex(O200K), byte_level()), ignore_merges=True)
    yield "kimi", byte_level_kind(corpus, steps(regex(KIMI), byte_level()))
    yield "deepseek v3", byte_level_kind(corpus, steps(regex(r"\p{N}{1,3}"), regex(CJK_RUNS), regex(DEEPSEEK_V3), byte_level()),
                                         post=lambda t: bos_template(t, "<|im_start|>"))
    yield "deepseek v1", byte_level_kind(corpus, deepseek_v1([pre_tokenizers.Digits(individual_digits=True), byte_level()]))
    yield "starcoder", byte_level_kind(corpus, steps(pre_tokenizers.Digits(individual_digits=True), byte_level(use_regex=True)))
    yield "mixtral", llama_kind(corpus, normalizer=llama2_normalizer, decoder=llama_decoder())
    yield "llama2 some bytes", llama_kind(corpus, normalizer=llama2_normalizer, decoder=llama_decoder(), byte_tokens=0xA0, fuse_unk=False)
    yield "no bytes, no unk", llama_kind(corpus, normalizer=llama2_normalizer, decoder=llama_decoder(), byte_tokens=0, unk=None)
    yield "metaspace first", llama_kind(corpus, pre_tokenizer=metaspace("first"), decoder=metaspace_decoder("first"))
    yield "metaspace always split", llama_kind(corpus, pre_tokenizer=metaspace("always", True), decoder=decoders.Metaspace("▁", "always"))
    yield "metaspace never", llama_kind(corpus, pre_tokenizer=metaspace("never", True), decoder=metaspace_decoder("never"))
    yield "first after changes", llama_kind(corpus, normalizer=normalizers.Sequence(
        [normalizers.NFKD(), normalizers.Strip(), normalizers.Replace(Regex(r" {2,}"), " ")]), pre_tokenizer=metaspace("first", True))
    yield "words and accents", llama_kind(
        corpus, normalizer=normalizers.Sequence([normalizers.NFD(), normalizers.Lowercase(), normalizers.StripAccents()]),
        pre_tokenizer=steps(pre_tokenizers.Whitespace(), pre_tokenizers.Digits(individual_digits=False)), decoder=None)
    yield "punctuation nfkc", llama_kind(
        corpus, normalizer=normalizers.NFKC(), pre_tokenizer=steps(pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation("contiguous")),
        decoder=decoders.Sequence([decoders.ByteFallback(), decoders.Fuse(), decoders.Strip("e", 2, 0), decoders.Replace("a", "4")]))
    yield "word ends", llama_kind(corpus, pre_tokenizer=pre_tokenizers.WhitespaceSplit(), options={"end_of_word_suffix": "s"},
                                  decoder=decoders.Sequence([decoders.Replace(Regex("e+"), "3"), decoders.Fuse(), decoders.Strip("t", 1, 0)]))
    yield "unigram t5", unigram_kind(corpus, t5_normalizer())
    yield "unigram older t5, folded", unigram_kind(
        corpus, normalizers.Precompiled(charsmap.build(charsmap.nfkc(fold_case=True))),
        pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]))
    yield "unigram bytes first", unigram_kind(corpus, None, metaspace("first"), metaspace_decoder("first"), byte_tokens=256)
    yield "unigram some bytes", unigram_kind(corpus, t5_normalizer(), metaspace("first", True), metaspace_decoder("first"),
                                             byte_tokens=0xC0, vocab_size=600)
    yield "unigram whole text", unigram_kind(corpus, normalizers.NFKC(), metaspace("always"), vocab_size=8000)
    yield "oddities", byte_level_kind(corpus, steps(regex(ODDITIES, "merged_with_previous"), byte_level()))
    yield "oddities 2", byte_level_kind(corpus, steps(regex(ODDITIES, "merged_with_next"), split("a", "removed"), regex(r"\s", "contiguous", True),
                                                      regex(r"e*", "merged_with_next"), byte_level()))


def frame(command, flags, payload, count=None):
    return struct.pack("<cBI", command, flags, len(payload) if count is None else count) + payload


def pack_ids(ids):
    return struct.pack(f"<{len(ids)}i", *ids)


class Replies:
    def __init__(self, data):
        self.data, self.position = data, 0

    def bytes(self, size):
        self.position += size
        return self.data[self.position - size:self.position]

    def number(self):
        return struct.unpack("<I", self.bytes(4))[0]

    def ids(self):
        count = self.number()
        return None if count == 0xFFFFFFFF else list(struct.unpack(f"<{count}i", self.bytes(4 * count)))

    def text(self):
        return self.bytes(self.number()).decode("utf-8")


def without_changed_tokens(tokenizer, id_lists):
    """Releases before 0.23 decode an added token as written, later ones (and we) as normalized: leaves those lists out."""
    if tuple(int(part) for part in tokenizers.__version__.split(".")[:2]) >= (0, 23) or tokenizer.normalizer is None:
        return id_lists
    changed = {id for id, token in tokenizer.get_added_tokens_decoder().items()
               if token.normalized and tokenizer.normalizer.normalize_str(token.content) != token.content}
    return [ids for ids in id_lists if not changed.intersection(ids)]


def expected_answers(tokenizer, strings, rng):
    """Requests and the reference's answers, in the same order: [(what, input, answer)], request bytes."""
    document = tokenizer.to_str()
    expected, requests = [], [b"L" + struct.pack("<I", len(document.encode())) + document.encode()]
    highest = max(tokenizer.get_vocab().values())
    id_lists = []
    for allow in (False, True):
        tokenizer.encode_special_tokens = not allow
        for add in (False, True):
            encodings = tokenizer.encode_batch_fast(strings, add_special_tokens=add)
            for string, encoding in zip(strings, encodings):
                expected.append((f"encode add_special={add} allow_special={allow}", string, encoding.ids))
                requests.append(frame(b"E", int(add) + 2 * int(allow), string.encode()))
            if add and allow:
                id_lists = [encoding.ids for encoding in encodings]
    id_lists += [[int(rng.random() * (highest + 3)) for _ in range(int(rng.random() * 12))] for _ in range(len(strings) // 4)]
    id_lists = without_changed_tokens(tokenizer, id_lists)
    for skip in (False, True):
        for ids, text in zip(id_lists, tokenizer.decode_batch(id_lists, skip_special_tokens=skip)):
            expected.append((f"decode skip_special={skip}", ids, text))
            requests.append(frame(b"D", int(skip), pack_ids(ids), len(ids)))
    return expected, b"".join(requests)


def compare(program, name, tokenizer, strings, rng):
    """Returns descriptions of the differences."""
    expected, requests = expected_answers(tokenizer, strings, rng)
    run = subprocess.run([program], input=requests, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    replies = Replies(run.stdout)
    differences = []
    if not run.stdout or not replies.bytes(1)[0]:
        return [f"{name}: refused: {replies.text() if run.stdout else run.stderr.decode(errors='replace')}"]
    replies.text()
    for what, given, answer in expected:
        got = replies.ids() if what.startswith("encode") else replies.text()
        if got != answer:
            differences.append(f"{name}: {what}\n  input     {given!r}\n  reference {answer!r}\n  ours      {got!r}")
    if run.returncode != 0:
        differences.append(f"{name}: exit code {run.returncode}: {run.stderr.decode(errors='replace')[:500]}")
    return differences


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", help="path of tokenizer_differential")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--strings", type=int, default=100_000, help="at least this many in total")
    parser.add_argument("--only", help="only kinds whose name contains this")
    arguments = parser.parse_args()
    started = time.time()
    corpus = Corpus(arguments.seed)
    everything = list(corpus.every_code_point())
    built = [(name, tokenizer) for name, tokenizer in kinds(corpus) if not arguments.only or arguments.only in name]
    per_kind = -(-arguments.strings // len(built))
    differences, compared, running = [], 0, []
    with concurrent.futures.ThreadPoolExecutor(max_workers=2) as pool:
        for name, tokenizer in built:
            corpus.token_texts = [token.content for token in tokenizer.get_added_tokens_decoder().values()]
            strings = ["", " ", "\0", "\0a\0"] + everything + [corpus.string() for _ in range(per_kind)]
            compared += len(strings)
            running.append(pool.submit(compare, arguments.program, name, tokenizer, strings, random.Random(arguments.seed)))
        for future in running:
            differences += future.result()
    for difference in differences[:20]:
        print(difference)
    print(f"{compared} strings compared, {len(differences)} differences ({len(built)} tokenizers, seed {arguments.seed}, {time.time() - started:.0f} s)")
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
