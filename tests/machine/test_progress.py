"""Progress: sparse lines where nothing can be animated, one live display where it can."""

import io
import re
import sys
from types import SimpleNamespace

import pytest

from attnact.machine import progress as module
from attnact.machine.progress import QUIET_LINE, progress, transfers


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A clock that only the test moves."""
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def on_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """No fixture: pytest puts its own stderr back between a test's fixtures and the test."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")
    return terminal


def test_a_line_now_and_then(clock: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    with progress("features", 1000, "frames") as advance:
        for _ in range(60):
            clock.now += QUIET_LINE / 20
            advance(10, "2 failed")
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "features: 200/1,000 frames, 6.67 frames/s, 0:02:00 left, 2 failed",
        "features: 400/1,000 frames, 6.67 frames/s, 0:01:30 left, 2 failed",
        "features: 600/1,000 frames, 6.67 frames/s, 0:01:00 left, 2 failed",
    ]


def test_thousands_a_second(clock: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    with progress("features", 1e6, "frames") as advance:
        clock.now += QUIET_LINE
        advance(QUIET_LINE * 26270, "")
    said = "features: 788,100/1,000,000 frames, 26,270 frames/s, 0:00:08 left\n"
    assert capsys.readouterr().err == said


def test_nothing_done_and_more_than_all(
    clock: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    with progress("features", 10, "frames") as advance:
        clock.now += QUIET_LINE
        advance(0, "")
        clock.now += QUIET_LINE
        advance(30, "")
    assert capsys.readouterr().err.splitlines() == [
        "features: 0/10 frames, 0 frames/s, ? left",
        "features: 30/10 frames, 0.5 frames/s, 0:00:00 left",
    ]


def test_short_work_is_silent(clock: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    with progress("scoring", 3, "clips") as advance:
        for _ in range(3):
            clock.now += QUIET_LINE / 4
            advance(1, "")
    assert capsys.readouterr() == ("", "")


def test_transfers_in_lines(clock: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    with transfers() as report:
        for seconds in range(3):
            clock.now += seconds
            report("a.rar", 1_000_000 * seconds, 5_000_000)
        report("b.rar", 0, None)
        clock.now += QUIET_LINE
        report("a.rar", 4_000_000, 5_000_000)
    assert capsys.readouterr().err.splitlines() == [
        "a.rar: 0 of 5 MB",
        "b.rar: 0 MB",
        "a.rar: 4 of 5 MB",
    ]


def test_nested_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = on_terminal(monkeypatch)
    with progress("selection", 10, "clips") as outer:
        outer(3, "")
        for _ in range(2):
            with progress("scoring", 5, "clips") as inner:
                inner(4, "a note")
                assert module._shown is not None
                module._shown.refresh()
        outer(7, "")
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.getvalue())
    assert "3/10 clips" in shown
    assert "4/5 clips" in shown
    assert "a note" in shown
    assert module._shown is None


def test_a_terminal_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = on_terminal(monkeypatch)

    def fail() -> None:
        with progress("selection", 10, "clips"), progress("scoring", 5, "clips"):
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    with progress("final", 10, "clips") as advance:
        advance(10, "")
    assert "10/10 clips" in terminal.getvalue()


def test_transfers_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = on_terminal(monkeypatch)
    with transfers() as report:
        report("a.rar", 1_000_000, None)
        report("a.rar", 3_000_000, 5_000_000)
    assert "a.rar" in terminal.getvalue()
