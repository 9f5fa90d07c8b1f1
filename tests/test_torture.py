"""The harness of `make torture`: a short run of it, and that it can tell what is wrong."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.torture.judging import Row, differences, digests, half_written, told_badly
from tests.torture.long import Sample, judge
from tests.torture.mutating import mutate

ROOT = Path(__file__).resolve().parents[1]

# In a process of its own: the harness forks, which a process with threads must not.
SHORT = """
import shutil, sys
from pathlib import Path
import numpy as np
from tests.torture import growing, kill, making, rot, twice

making.made(Path(sys.argv[1]))
random = np.random.default_rng(0)
rows = [rot.flips(name, *rot.TARGETS[name], 4, random) for name in rot.TARGETS]
row = kill.Row("two runs of one name")
shutil.rmtree(making.RUN)
making.RUN.mkdir(parents=True)
twice.trial(row, making.RUN, making.TRAIN, making.TRAIN, 0.5)
rows.append(row)
shutil.rmtree("features")
rows.append(kill.torture("features", *kill.COMMANDS["features"], 2, random))
rows.append(kill.decoders_killed(1, random))
rows += growing.rows(Path(sys.argv[1]), 0, 1)
for row in rows:
    print(row.text(), *row.lost, *row.wrong, sep="\\n")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the harness reads /proc")
def test_a_short_run_finds_nothing(tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", SHORT, str(tmp_path)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    lines = result.stdout.splitlines()
    assert result.returncode == 0, result.stderr
    assert len(lines) == 11, lines  # a row each, and nothing said of it
    assert all("| 0 | 0 |" in line for line in lines), lines


def test_files_that_differ_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.h5").write_bytes(b"1")
    (tmp_path / "metrics.jsonl").write_text('{"epoch": 1, "seconds": 0.25}\n')
    (tmp_path / "b.part").write_bytes(b"2")
    expected = digests(tmp_path)
    assert list(expected) == ["a.h5", "metrics.jsonl"]
    (tmp_path / "metrics.jsonl").write_text('{"epoch": 1, "seconds": 7.5}\n')
    assert differences(digests(tmp_path), expected) == []
    (tmp_path / "a.h5").write_bytes(b"3")
    (tmp_path / "c.h5").write_bytes(b"4")
    assert differences(digests(tmp_path), expected) == ["a.h5 differs", "c.h5 missing or too many"]


@pytest.mark.parametrize(
    ("name", "content", "bad"),
    [
        ("a.h5", b"1", 0),
        ("a.h5", b"", 1),
        ("metrics.jsonl", b'{"epoch": 1}\n', 0),
        ("metrics.jsonl", b'{"epoch": 1}\n{"ep', 1),
        ("stray.h5", b"1", 1),
        ("b.part", b"half", 0),
    ],
)
def test_a_half_written_file_is_seen(tmp_path: Path, name: str, content: bytes, bad: int) -> None:
    (tmp_path / "a.h5").write_bytes(b"1")
    (tmp_path / "metrics.jsonl").write_text('{"epoch": 1}\n{"epoch": 2}\n')
    expected = digests(tmp_path)
    (tmp_path / name).write_bytes(content)
    assert len(half_written(tmp_path, expected)) == bad


@pytest.mark.parametrize(
    ("code", "log", "bad"),
    [
        (0, "", 0),
        (1, "attnact: error: a: damaged\n", 0),
        (1, "", 1),
        (1, "attnact: failed: runs/a: full\nattnact: failed: runs/b: full\n", 0),
        (1, "attnact: error: a\nattnact: error: b\n", 1),
        (1, 'attnact: error: a\nTraceback (most recent call last):\n  File "x"\n', 1),
        (-11, "", 1),
        (70, "Traceback (most recent call last):\nValueError\n", 2),
    ],
)
def test_how_a_command_ended_is_judged(code: int, log: str, bad: int) -> None:
    assert len(told_badly(code, log, (0, 1))) == bad


@pytest.mark.parametrize(
    ("memory", "decoder", "handles", "bad"), [(0, 0, 0, 0), (1000, 0, 0, 1), (0, 1000, 9, 2)]
)
def test_what_grows_is_seen(memory: int, decoder: int, handles: int, bad: int) -> None:
    row = Row("many videos")
    samples = [
        Sample(done, 300_000 + done * memory, 50_000 + done * decoder, 14 + done * handles)
        for done in range(51)
    ]
    judge(row, samples)
    assert len(row.wrong) == bad
    assert row.note.startswith("50 shards; memory ")


@pytest.mark.parametrize("content", [b"path,label\na.avi,x\n", bytes(range(256)) * 20])
def test_the_same_seed_mutates_alike(content: bytes) -> None:
    first, second = (
        [mutate(content, random, b"other") for _ in range(50)]
        for random in (np.random.default_rng(3), np.random.default_rng(3))
    )
    assert first == second
    assert sum(changed != content for changed in first) > 40
