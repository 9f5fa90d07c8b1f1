"""The pages of docs/ as the tests read them."""

import re
from pathlib import Path

DOCS = Path(__file__).resolve().parents[1] / "docs"


def page(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def blocks(name: str, language: str) -> list[str]:
    """The fenced blocks of a page in a language, in their order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page(name), re.MULTILINE | re.DOTALL)


def rows(name: str, header: str) -> list[list[str]]:
    """The cells of the table of a page whose header begins so, without backquotes."""
    table = page(name).split(f"\n| {header}", 1)[1].split("\n\n", 1)[0]
    lines = [line.replace("`", "").strip("|") for line in table.splitlines()[2:]]
    return [[cell.strip() for cell in line.split("|")] for line in lines]
