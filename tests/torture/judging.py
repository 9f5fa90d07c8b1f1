"""What a fault did: the row of the table, and how files and messages are judged."""

import hashlib
import json
import re
from dataclasses import dataclass, field
from pathlib import Path

HEADER = "| fault | trials | lost | wrong | |\n|---|---|---|---|---|"

# What a kill may leave beside whole files, and what tells the time or is a picture of the rest.
BESIDE = (".part", ".lock")
UNCOMPARED = (*BESIDE, ".ckpt", ".png")

OF_A_GRID = ("sweep", "table1")  # tables of the runs that are there, written anew each time


@dataclass
class Row:
    """One row: `lost` and `wrong` say in words what should not have happened, a line each."""

    fault: str
    trials: int = 0
    lost: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    note: str = ""

    def text(self) -> str:
        """The row in Markdown."""
        cells = (self.fault, self.trials, len(self.lost), len(self.wrong), self.note)
        return f"| {' | '.join(map(str, cells))} |"


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of the finished files below a folder, without the seconds that metrics tell."""
    found = {}
    for file in sorted(folder.rglob("*")):
        if file.is_file() and file.suffix not in UNCOMPARED:
            name = file.relative_to(folder).as_posix()
            found[name] = hashlib.sha256(timeless(file)).hexdigest()
    return found


def timeless(file: Path) -> bytes:
    """The bytes of a file, in which metrics took no time."""
    content = file.read_bytes()
    if file.suffix == ".jsonl":
        content = re.sub(rb'"seconds": [0-9.e+-]+', b'"seconds": 0', content)
    return content


def differences(found: dict[str, str], expected: dict[str, str]) -> list[str]:
    """The files that are missing, too many, or of other bytes."""
    return [
        f"{name} {'differs' if name in found and name in expected else 'missing or too many'}"
        for name in sorted(found.keys() | expected.keys())
        if found.get(name) != expected.get(name)
    ]


def half_written(folder: Path, expected: dict[str, str]) -> list[str]:
    """After a kill: the files that are neither absent nor whole.

    Metrics may end early, at a line; nothing else has two whole states.
    """
    bad = []
    for name, digest in digests(folder).items():
        if name not in expected:
            bad.append(f"{name} is not of the finished work")
        elif digest != expected[name] and Path(name).stem not in OF_A_GRID:
            file = folder / name
            lines = file.read_text(encoding="utf-8", errors="replace")
            if file.suffix != ".jsonl" or not whole_lines(lines):
                bad.append(f"{name} is there and not whole")
    return bad


def whole_lines(text: str) -> bool:
    """Whether a text is lines of JSON, the last one too."""
    try:
        return text.endswith("\n") and all(json.loads(line) for line in text.splitlines())
    except ValueError:
        return False


def told_badly(code: int, log: str, allowed: tuple[int, ...]) -> list[str]:
    """What is wrong with an exit: the code, a traceback, or no line that says why."""
    bad = [] if code in allowed else [f"exit {code}: {log.strip()[-300:]!r}"]
    if "Traceback" in log or "Fatal Python" in log:
        bad.append("traceback: " + repr(log.strip().splitlines()[-1][:300]))
    told = "attnact: (?!warning|failed)|Error:"
    lines = [line for line in log.splitlines() if re.match(told, line)]
    failed = "attnact: failed:" in log  # a line for each of the runs that failed; then the table's
    if code in (1, 2) and code in allowed and not 1 - failed <= len(lines) <= 1:
        bad.append(f"exit {code} with {len(lines)} lines that say why: {log.strip()[-300:]!r}")
    return bad
