"""One live line on stderr for whatever takes more than two seconds."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Column
from rich.text import Text

QUIET_LINE = 30.0  # seconds between lines where nothing can be animated: a file, a pipe, CI

Advance = Callable[[float, str], None]  # (how much more is done, a note on it)


_quiet = False


def be_quiet(quiet: bool) -> None:
    """Whether nothing but results, warnings and errors is wanted from here on."""
    global _quiet
    _quiet = quiet


def is_quiet() -> bool:
    """Whether `be_quiet` was said."""
    return _quiet


def note(line: str) -> None:
    """A line on stderr that is neither a result nor a warning."""
    if not _quiet:
        print(line, file=sys.stderr, flush=True)


def warn(line: str) -> None:
    """A line on stderr that is told whatever `be_quiet` said."""
    print(f"attnact: warning: {line}", file=sys.stderr, flush=True)


def tell_failed(file: Path | str, reason: str) -> None:
    """A line on stderr for a file that was given up; it need not name the file twice."""
    told = reason.removeprefix(f"{file}: ").removeprefix(f"{Path(file).name}: ")
    print(f"attnact: failed: {file}: {told}", file=sys.stderr, flush=True)


@contextmanager
def progress(what: str, total: float, unit: str) -> Iterator[Advance]:
    """Shows how far `what` has come; gives a function to call with each advance."""
    if _quiet:
        yield lambda more, word: None
    elif sys.stderr.isatty():
        with _live(what, total, unit) as advance:
            yield advance
    else:
        yield _lines(what, total, unit)


_shown: Progress | None = None  # a terminal has one live display: whatever is nested joins it


@contextmanager
def _live(what: str, total: float, unit: str) -> Iterator[Advance]:
    global _shown
    if _shown is not None:
        task = _shown.add_task(what, total=total, note="", unit=unit)
        yield partial(_advance, _shown, task)
        _shown.remove_task(task)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.completed:,.0f}/{task.total:,.0f} {task.fields[unit]}"),
        _Rate(table_column=Column(no_wrap=True)),
        TimeRemainingColumn(compact=True, table_column=Column(no_wrap=True)),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        _shown = bar
        try:
            yield partial(_advance, bar, bar.add_task(what, total=total, note="", unit=unit))
        finally:
            _shown = None


def _advance(bar: Progress, task: TaskID, more: float, note: str) -> None:
    bar.update(task, advance=more, note=note)


def _lines(what: str, total: float, unit: str) -> Advance:
    start = shown = time.monotonic()
    done = 0.0

    def advance(more: float, note: str) -> None:
        nonlocal done, shown
        done += more
        now = time.monotonic()
        if now - shown < QUIET_LINE:
            return
        shown = now
        rate = done / (now - start)
        left = timedelta(seconds=round(max(0.0, total - done) / rate)) if rate else "?"
        text = f"{what}: {done:,.0f}/{total:,.0f} {unit}, {_rounded(rate)} {unit}/s, {left} left"
        print(f"{text}, {note}" if note else text, file=sys.stderr, flush=True)

    return advance


def _rounded(rate: float) -> str:
    """To three digits; all of them where there are more before the point."""
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}"


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{_rounded(task.speed)}/s" if task.speed else "")


@contextmanager
def transfers() -> Iterator[Callable[[str, int, int | None], None]]:
    """Shows what is being fetched; gives a function to call with (what, bytes done, all bytes)."""
    if _quiet:
        yield lambda what, done, total: None
        return
    if not sys.stderr.isatty():
        yield _transfer_lines()
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        tasks: dict[str, TaskID] = {}

        def report(what: str, done: int, total: int | None) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=total)
            bar.update(tasks[what], completed=done, total=total)

        yield report


def _transfer_lines() -> Callable[[str, int, int | None], None]:
    shown: dict[str, float] = {}

    def report(what: str, done: int, total: int | None) -> None:
        now = time.monotonic()
        if now - shown.get(what, -QUIET_LINE) < QUIET_LINE:
            return
        shown[what] = now
        of = f" of {total / 1e6:,.0f}" if total else ""
        print(f"{what}: {done / 1e6:,.0f}{of} MB", file=sys.stderr, flush=True)

    return report
