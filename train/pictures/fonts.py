"""Fonts for text in any language, as the names of classes and videos are."""

from functools import lru_cache
from pathlib import Path

from matplotlib.font_manager import FontProperties, findfont, get_font_names
from matplotlib.ft2font import FT2Font

OWN = "DejaVu Sans"  # comes with matplotlib: Latin, Greek, Cyrillic, Arabic, Hebrew
# Of Linux, Windows and macOS, where they are installed; for Chinese, Japanese and Korean first.
OTHERS = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "WenQuanYi Zen Hei",
    "WenQuanYi Micro Hei",
    "Droid Sans Fallback",
    "Microsoft YaHei",
    "Malgun Gothic",
    "PingFang SC",
    "Hiragino Sans",
    "Apple SD Gothic Neo",
    "Nirmala UI",
    "Arial Unicode MS",
    "Unifont",
)


@lru_cache(1)
def families() -> list[str]:
    """matplotlib's own font, and those of this machine for what it lacks."""
    installed = set(get_font_names())
    return [OWN, *(name for name in OTHERS if name in installed)]


def font_of(text: str) -> tuple[Path, int]:
    """The file of the font that has most letters of a text, and which of its faces it is."""

    def known(family: str) -> int:
        return sum(ord(letter) in _font(family)[2] for letter in text)

    path, face, _ = _font(max(families(), key=known))  # the first of several
    return path, face


@lru_cache(None)
def _font(family: str) -> tuple[Path, int, frozenset[int]]:
    path = findfont(FontProperties(family=[family]))
    face = getattr(path, "face_index", 0)  # which matplotlib knows from 3.11 on
    font = FT2Font(path, face_index=face) if face else FT2Font(path)
    return Path(path), face, frozenset(font.get_charmap())
