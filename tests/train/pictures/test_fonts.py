"""Which font a text is drawn in."""

import pytest
from PIL import ImageFont

from attnact.train.pictures import fonts

# Of matplotlib's fonts, in place of a system's; it has letters that the first one lacks.
OTHER, LETTER = "STIXGeneral", "\u2a75"


@pytest.fixture
def others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fonts, "OTHERS", ("not installed", OTHER))
    fonts.families.cache_clear()
    yield
    fonts.families.cache_clear()


def family(text: str) -> str | None:
    path, face = fonts.font_of(text)
    return ImageFont.truetype(path, 13, face).getname()[0]


def test_a_text_is_of_the_font_that_has_most_of_its_letters(others) -> None:
    assert fonts.families() == [fonts.OWN, OTHER]
    assert family("dive, jümp, ż, ж") == fonts.OWN
    assert family(LETTER) == family(f"dive {LETTER}") == OTHER
    assert family(f"dive {LETTER} \U000e0001") == OTHER
    assert family("\U000e0001") == family("") == fonts.OWN  # none has it


def test_where_no_other_is_installed(others, monkeypatch) -> None:
    monkeypatch.setattr(fonts, "OTHERS", ("not installed",))
    fonts.families.cache_clear()
    assert fonts.families() == [fonts.OWN]
    assert family(LETTER) == fonts.OWN
