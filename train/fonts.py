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


def font_of(text: str) -> Path:
    """The file of the first font that has all letters of a text; our own if none has."""
    for family in families():
        path, letters = _font(family)
        if all(ord(letter) in letters for letter in text):
            return path
    return _font(OWN)[0]


@lru_cache(None)
def _font(family: str) -> tuple[Path, frozenset[int]]:
    path = findfont(FontProperties(family=[family]))
    return Path(path), frozenset(FT2Font(path).get_charmap())
