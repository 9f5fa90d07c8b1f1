"""The tables and pictures that `table1`, `sweep-lambda` and `study` left in a folder."""

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from markupsafe import Markup

from attnact.errors import RunError
from attnact.page.charts import Axis, Line, chart
from attnact.page.folders import names_of, tree
from attnact.train.scoring.predictions import read_csv


@dataclass(frozen=True)
class Found:
    """A part of the page: its heading, words, tables (the first row the header) and pictures."""

    title: str
    words: list[str]
    tables: list[list[list[str]]]
    charts: list[Markup] = field(default_factory=list)
    pictures: list[str] = field(default_factory=list)  # data URIs


def find_tables(paths: Sequence[Path]) -> tuple[list[Found], list[str]]:
    """What these folders and those in them hold of Table 1, the λ sweep and the study; and a line
    for each folder of which a file is damaged.
    """
    folders: dict[Path, Path] = {}
    for folder in chain.from_iterable(tree(path).others for path in paths):
        folders.setdefault(folder.resolve(), folder)
    holding = [
        folder
        for folder in folders.values()
        if any((folder / name).is_file() for name in ("table1.csv", "sweep.csv", "study/study.md"))
    ]
    found: list[Found] = []
    notes = []
    for folder, name in zip(holding, names_of(holding), strict=True):
        try:
            found += _tables(folder, name) + _study(folder / "study", name)
        except RunError as error:
            notes.append(f"Left out: {error}")
    return found, notes


def _tables(folder: Path, called: str) -> list[Found]:
    found = []
    for name, title, files in (
        ("table1", "Table 1", ("table1.csv", "differences.csv")),
        ("sweep", "The sweep over the attention penalty λ", ("sweep.csv",)),
    ):
        tables = [read_csv(folder / file) for file in files if (folder / file).is_file()]
        if tables:
            words = _words(_text(folder / f"{name}.md"))
            charts = sweep_charts(folder / "sweep.json", tables[0][0]) if name == "sweep" else []
            found.append(Found(f"{title} ({called})", words, tables, charts))
    return found


def sweep_charts(path: Path, header: Sequence[str]) -> list[Markup]:
    """The metric, the entropy and the spread against λ: a dot a seed, a line through the means.

    Raises:
        RunError: the file is damaged.
    """
    if not path.is_file():
        return []
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        x = Axis("attention penalty λ", [f"{row['penalty']:g}" for row in rows])
        charts = []
        for name, factor, label in (
            ("values", 100, header[1]),
            ("entropy", 1, header[2]),
            ("spread", 100, header[3]),
        ):
            seeds = [[factor * float(value) for value in row[name]] for row in rows]
            means = [(float(i), sum(of) / len(of)) for i, of in enumerate(seeds) if of]
            dots = [(float(i), value) for i, of in enumerate(seeds) for value in of]
            lines = [Line(0, "mean over the seeds", means), Line(0, "a dot a seed", dots, False)]
            charts.append(chart(f"{label}; a dot a seed", x, Axis(label), lines))
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise RunError(f"{path}: damaged ({error})") from error
    return charts


def _study(folder: Path, called: str) -> list[Found]:
    """A part for each question that `study.md` asks, with its table and picture."""
    found = []
    for section in _text(folder / "study.md").split("\n## ")[1:]:
        file = next(folder.glob(f"{section.partition('.')[0]}-*.csv"), None)
        if file is None:
            continue
        title, _, rest = section.partition("\n")
        picture = file.with_suffix(".png")
        pictures = [_data_uri(picture)] if picture.is_file() else []
        title = f"{title} ({called})"
        found.append(Found(title, _words(rest), [read_csv(file)], pictures=pictures))
    return found


def _words(page: str) -> list[str]:
    """The paragraphs of a Markdown page, without its headings, tables and pictures."""
    lines = (line.strip() for line in page.splitlines())
    return [line for line in lines if line and not line.startswith(("#", "|", "!["))]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8") if path.is_file() else ""
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: cannot be read ({error})") from error


def _data_uri(picture: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(picture.read_bytes()).decode()
