"""The page put together: what was read, through the template, into one file."""

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from attnact import __version__
from attnact.cache.features import LOCATIONS
from attnact.errors import RunError
from attnact.machine.files import write_text
from attnact.page.charts import Axis, Line, bar, chart, swatch
from attnact.page.gallery import GalleryVideo, make_gallery
from attnact.page.pool import Guess
from attnact.page.read import (
    Setting,
    common,
    differing,
    find_runs,
    settings_of,
    uneven,
    without_repeats,
)
from attnact.page.tables import find_tables
from attnact.train.scoring.looks import VideoMaps
from attnact.train.scoring.scores import Floats, average_precisions, confusion
from attnact.train.selection import FINAL

SHADES = 10  # of a cell of a confusion matrix
UNIT = 10_000  # a location's share of the attention stands on the page as a whole number of these


def write_page(paths: Sequence[Path], out: Path, videos: int, device: torch.device) -> list[str]:
    """Writes the report of these runs, and folders of runs; gives a line for each thing missing.

    Raises:
        RunError: there is no run, one that was named is damaged, or the page cannot be written.
    """
    runs, notes = find_runs(paths)
    if not runs:
        raise RunError(f"no whole run to report: {'; '.join(notes)}")
    runs, repeats = without_repeats(runs)
    notes += repeats
    settings = settings_of(runs)
    tables, damaged = find_tables(paths)
    gallery, missing = make_gallery(settings, videos, device)
    notes += [f"Not finished: {run.name}" for run in runs if run.predictions is None]
    notes += [note for it in settings if (note := uneven(it))] + damaged + missing
    style, script = (_own(name) for name in ("report.css", "report.js"))
    page = (
        _environment()
        .get_template("report.html.j2")
        .render(
            version=__version__,
            style=Markup(style),
            script=Markup(script),
            style_hash=_hash(style),
            script_hash=_hash(script),
            notes=notes,
            random=[run.name for run in runs if run.random_weights],
            runs=runs,
            settings=settings,
            differing=differing(settings),
            common=common(settings),
            charts=learning_curves(settings),
            breakdowns=[it for it in map(breakdown, settings) if it is not None],
            found=tables,
            gallery=gallery,
            data=gallery_data(settings, gallery),
            even=100 / LOCATIONS,
            first=next((i for i, it in enumerate(settings) if it.config.model == "attention"), 0),
        )
    )
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_text(out, page)
    except OSError as error:
        raise RunError(f"{out}: cannot be written ({error.strerror})") from error
    return notes


def learning_curves(settings: Sequence[Setting]) -> list[Markup]:
    """Loss by epoch, and what the held-out videos said where there were any; a line a run."""
    kinds = (
        ("loss", "Training loss", "cross-entropy of a clip", True),
        ("validation_loss", "Loss on the held-out videos", "cross-entropy of a clip", False),
        ("validation", "Metric on the held-out videos", "share", False),
    )
    charts = []
    for key, title, label, final in kinds:
        lines = []
        for number, setting in enumerate(settings):
            for run in setting.runs:
                points = [
                    (line["epoch"], line[key])
                    for line in run.history
                    if key in line and "epoch" in line and (line.get("phase") == FINAL) == final
                ]
                if points:
                    lines.append(Line(number, run.name, points))
        charts.append(
            chart(f"{title}, by epoch", Axis("epoch"), Axis(label, log=key != "validation"), lines)
        )
    return [it for it in charts if it]


@dataclass(frozen=True)
class ClassRow:
    """A class: its videos, the share that was right (or its average precision), its counts."""

    name: str
    videos: int
    value: float
    counts: list[int]
    shades: list[int]
    bar: Markup


@dataclass(frozen=True)
class Breakdown:
    """Where a setting goes right and wrong; the rows have no counts where several classes hold."""

    setting: Setting
    classes: list[str]
    multi_label: bool
    rows: list[ClassRow]


def breakdown(setting: Setting) -> Breakdown | None:
    """The counts of all runs together, or the mean of their average precisions."""
    scored = setting.scored
    if not scored:
        return None
    classes = scored[0].classes
    if scored[0].multi_label:
        values = np.array([average_precisions(it.scores, it.labels) for it in scored])
        known = ~np.isnan(values)
        total = np.where(known, values, 0).sum(0)
        means = np.where(known.any(0), total / np.maximum(1, known.sum(0)), np.nan)
        videos = sum(it.labels.sum(0) for it in scored)
        rows = [
            ClassRow(name, int(n), float(value), [], [], bar(float(value)))
            for name, n, value in zip(classes, np.asarray(videos), means, strict=True)
        ]
        return Breakdown(setting, classes, True, rows)
    matrix = sum((confusion(it.scores, it.labels) for it in scored), np.zeros((1, 1), np.int64))
    totals = matrix.sum(1)
    share: Floats = matrix / np.maximum(1, totals[:, None])
    rows = []
    for i, name in enumerate(classes):
        value = float(share[i, i]) if totals[i] else float("nan")
        shades = np.ceil(SHADES * share[i]).astype(int).tolist()
        rows.append(ClassRow(name, int(totals[i]), value, matrix[i].tolist(), shades, bar(value)))
    return Breakdown(setting, classes, False, rows)


def gallery_data(settings: Sequence[Setting], gallery: Sequence[GalleryVideo]) -> dict[str, Any]:
    """What the script needs: for each video the guess and the maps of each setting."""
    return {
        "settings": [
            {"name": it.name, "attends": it.config.model == "attention"} for it in settings
        ],
        "unit": UNIT,
        "videos": [
            {
                "frames": video.frames,
                "size": video.size,
                "guesses": [
                    _guess(video.guesses.get(number), video.maps.get(number))
                    for number in range(len(settings))
                ],
            }
            for video in gallery
        ],
    }


def _guess(guess: Guess | None, looks: VideoMaps | None) -> dict[str, Any] | None:
    """The best two classes and their scores, and the maps in whole numbers, a list a frame."""
    if guess is None:
        return None
    scores = guess.predictions.scores[guess.row]
    best = np.argsort(-scores, kind="stable")[:2]
    maps = None if looks is None else np.rint(UNIT * looks.maps).astype(int).tolist()
    return {
        "run": guess.run.name,
        "right": guess.predictions.right(guess.row),
        "best": [[guess.predictions.classes[n], float(scores[n])] for n in best],
        "maps": maps,
    }


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("attnact.page", "."),
        autoescape=True,  # paths and class names come from strangers
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["swatch"] = swatch
    return environment


def _own(name: str) -> str:
    return files("attnact.page").joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """As a content security policy names the one script, or style, that it lets through."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
