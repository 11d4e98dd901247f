"""Builds a SentencePiece character map: what the normalizer "Precompiled" reads (see engine/tokenizer/charsmap.h)."""
import struct
import unicodedata


def build(replacements):
    """{key: replacement} -> blob. A double array as darts-clone writes it, first fit."""
    texts, places = bytearray(), {}
    for text in dict.fromkeys(replacements.values()):
        places[text] = len(texts)
        texts += text.encode() + b"\0"
    root = {}
    for key, text in replacements.items():
        node = root
        for byte in key.encode():
            node = node.setdefault(byte, {})
        node[0] = places[text]  # no key holds a NUL
    units, taken, used_bases = {0: 0}, {0}, set()
    open_nodes, first_free = [(0, 0, root)], 1
    while open_nodes:
        place, label, children = open_nodes.pop()
        while first_free in taken:
            first_free += 1
        base = next(b for b in range(first_free ^ min(children), 1 << 21)
                    if b not in used_bases and all((b ^ byte) not in taken for byte in children))
        used_bases.add(base)
        offset = place ^ base
        assert offset < 1 << 21
        units[place] = offset << 10 | (0 in children) << 8 | label
        for byte, child in children.items():
            taken.add(base ^ byte)
            if byte == 0:
                units[base] = 1 << 31 | child
            else:
                open_nodes.append((base ^ byte, byte, child))
    size = (max(taken) | 0xFF) + 1
    array = b"".join(struct.pack("<I", units.get(i, 0)) for i in range(size))
    return struct.pack("<I", len(array)) + array + bytes(texts)


def nfkc(fold_case=False):
    """In the manner of SentencePiece's nmt_nfkc: compatibility forms, spaces, controls; short runs with marks."""
    table = {}
    for code in range(1, 0x30000):
        character = chr(code)
        if unicodedata.category(character) in ("Cs", "Cn", "Co"):
            continue
        text = unicodedata.normalize("NFKC", character)
        if fold_case:
            text = unicodedata.normalize("NFKC", text.casefold())
        if text != character:
            table[character] = text
        composed = unicodedata.normalize("NFD", character)
        if len(composed) == 2 and unicodedata.normalize("NFC", composed) == character:
            table[composed] = text
    for space in "\t\n\x0b\x0c\r\x85\u2028\u2029\u200b\ufeff":
        table[space] = " "
    for control in "\x01\x02\x0e\x1f\x7f\xad":
        table[control] = ""
    return table
