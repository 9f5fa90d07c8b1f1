"""The messages on the page on troubleshooting still stand in the source."""

import ast
import re
from pathlib import Path

import pytest

from tests.pages import page

ROOT = Path(__file__).resolve().parents[2]


def text(node: ast.expr) -> str:
    """A string of the source, with … for each value that is put into it."""
    if isinstance(node, ast.JoinedStr):
        return "".join(map(text, node.values))
    return str(node.value) if isinstance(node, ast.Constant) else "…"


def source_strings() -> set[str]:
    """Every string of the code but docstrings."""
    found = set()
    for folder in ("attnact", "extract", "train"):
        for file in (ROOT / folder).rglob("*.py"):
            tree = ast.parse(file.read_text(encoding="utf-8"))
            said = {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}
            for node in ast.walk(tree):
                if isinstance(node, ast.Constant | ast.JoinedStr) and node not in said:
                    found.add(text(node))
    return found


STRINGS = source_strings()
MESSAGES = re.findall(r"^### (`+)(.*?)\1$", page("troubleshooting.md"), re.MULTILINE)


def test_every_heading_is_a_message():
    assert len(MESSAGES) == page("troubleshooting.md").count("\n### ") > 25


@pytest.mark.parametrize("message", [message for _, message in MESSAGES])
def test_the_message_stands_in_the_source(message):
    # `failed: path: reason` is the command line's; a … at an end may be a whole sentence.
    message = message.removeprefix("failed: …: ")
    assert any(message in string for string in STRINGS), message
