"""Mutations of bytes, drawn from a generator: the same seed gives the same ones."""

import re

import numpy as np

# Values that parsers stumble over.
WORDS = (
    *(b"NaN", b"-1", b"1e999", b"Infinity", b"99999999999999999999999", b"0", b"null", b"true"),
    *(b"{}", b"[]", b'"', b"\x00", b"\xff\xfe", "λ".encode(), b"../../etc/passwd", b"\r\n\r\n"),
    *(b",", b",,,,", b"=", b"[[", b"\xf0\x9f\x8e\xac", b"\x1b[2J", b"a" * 5000),
)
SCRIPTS = (
    *("ελληνικά", "русский", "中文", "日本語", "한국어", "العربية", "עברית", "हिन्दी", "ไทย"),
    *("ქართული", "🎬🎬", "é combining", "a b  c", "quote'\"", "semi;colon", "new\nline", "%s %d"),
    *("-dash", "back\\slash", "[red]markup", "$HOME", "*?", "\u202eright to left", "tab\t"),
)


def names() -> list[str]:
    """File names in every script, and with what shells and terminals read otherwise."""
    return [f"{script}.avi" for script in SCRIPTS]


def mutate(content: bytes, random: np.random.Generator, other: bytes) -> bytes:
    """One to three mutations, or the beginning of another file in the place of this one's."""
    changed = bytearray(content)
    for _ in range(int(random.integers(1, 4)) if random.random() < 0.4 else 1):
        kind = int(random.integers(8 if b"\0" in content else 12))
        at = int(random.integers(len(changed) + 1))
        span = int(random.integers(1, max(2, len(changed) // 8)))
        if kind == 0:
            del changed[at:]
        elif kind == 1:
            for place in random.integers(len(changed), size=int(random.integers(1, 20))).tolist():
                changed[place] ^= int(random.integers(1, 256))
        elif kind == 2:
            del changed[at : at + span]
        elif kind == 3:
            changed[at:at] = changed[at : at + span]
        elif kind == 4:
            changed[at:at] = WORDS[int(random.integers(len(WORDS)))]
        elif kind == 5:
            word = WORDS[int(random.integers(len(WORDS)))]
            changed[at : at + len(word)] = word
        elif kind > 7:  # a value of a text
            found = list(re.finditer(rb"(?<=[:=,]) *[^,:=\r\n]+", changed))
            if found:
                start, end = found[int(random.integers(len(found)))].span()
                changed[start:end] = WORDS[int(random.integers(len(WORDS)))]
        elif kind == 6:
            changed[:4096] = other[: int(random.integers(1, 4097))]
        else:
            changed[at : at + span] = bytes(len(changed[at : at + span]))
        if not changed:
            break
    return bytes(changed)
