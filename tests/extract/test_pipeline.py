"""Videos to a cache: each frame's features in its place, however often the work was interrupted."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from attnact.cache.compact import Cubes
from attnact.cache.feature_writer import ShardWriter
from attnact.errors import CacheError, UnsupportedError
from attnact.extract import choosing, making, pipeline
from attnact.extract import plan as plan_module
from attnact.extract.config import ExtractConfig
from attnact.extract.datasets.base import Dataset
from attnact.extract.frames import video
from attnact.extract.making import take_up
from attnact.extract.pipeline import describe, extract, frames_left
from attnact.extract.plan import read_plan
from attnact.vocabulary import Split
from tests.made_extraction import (
    CLIPS,
    SHARDS,
    StandIn,
    begin,
    hold,
    ignore,
    interrupt,
    make_dataset,
    make_videos,
    stop_after,
    surround,
)
from tests.made_files import contents

BAD = ("dive/cut.avi", "run/cut.mp4", "run/empty.avi", "dive/text.avi", "run/sound.mp4")


pytestmark = pytest.mark.usefixtures("surroundings")


@pytest.fixture(scope="module")
def root(make_clip, ffmpeg, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    make_videos(folder, make_clip)
    for cut, path in (("dive/cut.avi", "dive/b.avi"), ("run/cut.mp4", "run/c.mp4")):
        content = (folder / path).read_bytes()
        (folder / cut).write_bytes(content[: len(content) // 2])
    (folder / "run/empty.avi").touch()
    (folder / "dive/text.avi").write_text("no video\n" * 50)
    ffmpeg("-f", "lavfi", "-i", "sine=duration=1", folder / "run/sound.mp4")
    return folder


@pytest.fixture
def dataset(root: Path) -> Dataset:
    return make_dataset(root, list(CLIPS))


@pytest.fixture(scope="module")
def whole(root: Path, tmp_path_factory) -> dict[str, bytes]:
    """The files of a cache that was made in one go."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        surround(monkeypatch)
        cache = tmp_path_factory.mktemp("whole") / "small.h5"
        extract(begin(make_dataset(root, list(CLIPS)), cache), ignore)
    return contents(cache.parent)


@pytest.mark.parametrize(
    "config", [{}, {"resize": "crop", "compression": "gzip"}, {"dtype": "uint8"}]
)
def test_features_belong_to_their_frames(dataset, tmp_path, config):
    told = []
    extraction = begin(dataset, tmp_path / "small.h5", **config)
    cache = extract(extraction, lambda *counts: told.append(counts))
    assert cache.paths == list(CLIPS)
    assert cache.frame_counts.tolist() == list(CLIPS.values())
    hold(cache, dataset.root, config.get("resize", "squash"))
    assert [sum(counts) for counts in zip(*told, strict=True)] == [99, 5, 0]
    assert cache.labels.tolist() == [0, 0, 1, 1, 1]
    assert cache.folds["1"].tolist() == [2, 1, 2, 1, 2]
    assert cache.failures == []
    row = cache.rows[0]
    assert (row.width, row.height, row.frame_rate, row.decoder) == (176, 144, 25.0, "pyav")
    assert row.declared_frames == 5
    sizes = [(dataset.root / path).stat().st_size for path in CLIPS]
    assert [row.file_bytes for row in cache.rows] == sizes


def test_provenance(dataset, tmp_path):
    cache = extract(begin(dataset, tmp_path / "small.h5"), ignore)
    expected = {
        "backbone": "googlenet",
        "weights": "stand-in",
        "weights_digest": "0123",
        "weights_are_random": "false",
        "resize": "squash",
        "decoder": "pyav",
        "compression": "zstd",
        "runtime": "torch",
        "precision": "float32",
        "dtype": "float16",
        "device": "cpu",
        "date": "2020-01-01T00:00:00+00:00",
        "command": "attnact features",
    }
    assert cache.provenance.items() >= expected.items()
    assert cache.provenance["torch"] == torch.__version__


def test_several_labels_a_video(root, tmp_path):
    dataset = make_dataset(root, ["dive/a.avi", "run/c.mp4"], multi_label=True)
    cache = extract(begin(dataset, tmp_path / "small.h5"), ignore)
    assert cache.labels.tolist() == [[1, 1], [0, 1]]


@pytest.mark.parametrize("decoders", [1, 2])
def test_bad_files_are_listed_and_the_rest_is_there(root, tmp_path, decoders):
    paths = ["dive/a.avi", *BAD[:2], "dive/b.avi", *BAD[2:], "run/c.mp4", "run/d.avi", "run/e.mpg"]
    told = []
    extraction = begin(make_dataset(root, paths), tmp_path / "small.h5")
    extraction = replace(extraction, job=replace(extraction.job, decoders=decoders))
    cache = extract(extraction, lambda *counts: told.append(counts))
    assert cache.paths == list(CLIPS)
    hold(cache, root)
    reasons = dict(cache.failures)
    assert tuple(reasons) == BAD
    assert "truncated" in reasons["dive/cut.avi"]  # after some of its frames went through
    assert "holds no video stream" in reasons["run/sound.mp4"]
    assert sum(failures for _, _, failures in told) == 5


def test_where_every_video_fails_the_cache_says_so(root, tmp_path):
    cache = extract(begin(make_dataset(root, list(BAD)), tmp_path / "small.h5"), ignore)
    assert (cache.frames, cache.paths) == (0, [])
    assert tuple(path for path, _ in cache.failures) == BAD


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("batches", [1, 6, 8, 11])
def test_interrupted_and_taken_up_again(dataset, whole, tmp_path, batches):
    cache = tmp_path / "small.h5"
    with pytest.raises(KeyboardInterrupt):
        extract(begin(dataset, cache), stop_after(batches, interrupt))
    left = set(contents(cache.parent))
    assert left <= {name for name in whole if name != "small.h5"}  # whole files or none
    assert ("small.shards/00000.h5" in left) == (batches >= 6)  # it has six batches
    assert extract(begin(dataset, cache), ignore) is not None
    assert contents(cache.parent) == whole


def in_another_process(dataset: Dataset, cache: Path, batches: int) -> subprocess.CompletedProcess:
    """Extracts there; killed after so many batches unless that is 0."""
    script = (
        "import sys, test_pipeline as t; from pathlib import Path\n"
        "t.extract_here(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", script, str(dataset.root), str(cache), str(batches)]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def extract_here(root: Path, cache: Path, batches: int) -> None:
    choosing.load_backbone, plan_module.SHARD_FRAMES = lambda *arguments: StandIn(), 50
    sys.argv = ["attnact", "features"]
    made = extract(begin(make_dataset(root, list(CLIPS)), cache), stop_after(batches, kill))
    print("finished" if made else "others still work on it")


def test_killed_and_taken_up_again(dataset, whole, tmp_path):
    cache = tmp_path / "small.h5"
    assert in_another_process(dataset, cache, 10).returncode == -signal.SIGKILL
    assert not cache.exists()
    assert 1 <= SHARDS - len(read_plan(cache).missing(cache, CLIPS)) < SHARDS
    assert extract(begin(dataset, cache), ignore) is not None
    assert {
        name: data for name, data in contents(cache.parent).items() if "lock" not in name
    } == whole


def test_two_processes_share_the_work(dataset, whole, tmp_path):
    cache = tmp_path / "small.h5"
    others = []

    def join() -> None:
        others.append(in_another_process(dataset, cache, 0))

    assert extract(begin(dataset, cache), stop_after(1, join)) is not None
    assert [other.stdout for other in others] == ["others still work on it\n"], others
    assert contents(cache.parent) == whole


def test_a_network_on_many_cores_has_a_pass_for_each(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(making, "cores", lambda: 64)
    begun, many = [], threading.Event()

    class Slow(StandIn):
        def start(self, frames: Tensor) -> Callable[[], Tensor]:
            begun.append(frames)
            if len(begun) == 10:
                many.set()
            made = super().start(frames)

            def wait() -> Tensor:
                assert many.wait(60)
                return made()

            return wait

    extraction = replace(begin(dataset, tmp_path / "small.h5"), backbone=Slow())
    hold(extract(extraction, ignore), dataset.root)
    begun.clear()
    assert pipeline.forward_rate(extraction) > 0
    assert len(begun) == 1 + 64  # one to warm up, and as many batches of 8 as there are cores


def test_the_plan_in_words(dataset, tmp_path):
    extraction = begin(dataset, tmp_path / "small.h5")
    left = frames_left(extraction)
    assert left == pytest.approx(99, abs=2)  # MPEG has no count in its header
    text = describe(extraction)
    assert f"folder: 5 videos, 2 classes, about {left} frames" in text
    assert "videos a class: dive 2, run 3" in text
    sides = [Counter(fold) for fold in dataset.folds.values()]
    counts = [f"{n} ({it[Split.TRAIN]} and {it[Split.TEST]})" for n, it in enumerate(sides, 1)]
    assert f"folds, train and test: {', '.join(counts)}\n" in text
    assert f"to make: {SHARDS} of {SHARDS} shards, about {left} frames" in text
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_refused_before_work_begins(dataset, tmp_path, monkeypatch):
    full = SimpleNamespace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: full)
    monkeypatch.setattr(making, "Readers", None)
    with pytest.raises(CacheError, match=r"not enough disk, about .* GiB needed"):
        extract(begin(dataset, tmp_path / "small.h5", compression="none"), ignore)
    assert read_plan(tmp_path / "small.h5") is None  # other settings may follow


def test_other_settings_are_refused(dataset, tmp_path):
    cache = tmp_path / "small.h5"
    late = begin(dataset, cache, resize="crop")  # when there was no plan yet
    with pytest.raises(KeyboardInterrupt):
        extract(begin(dataset, cache), stop_after(1, interrupt))
    with pytest.raises(CacheError, match="begun with resize squash, now asked for crop"):
        begin(dataset, cache, resize="crop")
    with pytest.raises(CacheError, match="begun with resize squash, now asked for crop"):
        extract(late, ignore)


def test_a_helper_with_other_weights_is_refused(dataset, tmp_path, monkeypatch):
    extraction = begin(dataset, tmp_path / "small.h5")
    pipeline.begin(extraction)
    monkeypatch.setattr(StandIn, "digest", "4567")
    with pytest.raises(CacheError, match="begun with other weights than the stand-in here"):
        take_up(tmp_path / "small.h5", dataset.root, extraction.config)


@pytest.mark.parametrize("call", range(1, 7))
def test_a_shard_that_could_not_be_written_whole_is_not_there(dataset, tmp_path, call):
    """The first; of the next ones some may be whole before it is told."""
    calls = iter(range(1, 99))

    class Overflow(StandIn):
        def __call__(self, frames: Tensor) -> Tensor:
            return super().__call__(frames) * (1e9 if next(calls) == call else 1)

    cache = tmp_path / "small.h5"
    extraction = replace(begin(dataset, cache), backbone=Overflow())
    with pytest.raises(CacheError, match="features overflow float16"):
        extract(extraction, ignore)
    left = set(contents(cache.parent))
    whole = {f"small.shards/{name}" for name in ("00001.h5", "00002.h5", "plan.json")}
    assert "small.shards/plan.json" in left <= whole


@pytest.mark.parametrize("call", range(1, 7))
def test_a_shard_that_lacks_a_batch_is_not_there(dataset, tmp_path, whole, call):
    """The network fails once: nothing that came after stands for what it did not give."""
    calls = iter(range(1, 99))

    class Fails(StandIn):
        def start(self, frames: Tensor) -> Callable[[], Tensor]:
            wait, number = super().start(frames), next(calls)

            def give() -> Tensor:
                if number == call:
                    raise RuntimeError("the network failed")
                return wait()

            return give

    cache = tmp_path / "small.h5"
    extraction = replace(begin(dataset, cache), backbone=Fails())
    with pytest.raises(RuntimeError, match="the network failed"):
        extract(extraction, ignore)
    assert "small.shards/00000.h5" not in contents(cache.parent)
    extract(begin(dataset, cache), ignore)
    assert contents(cache.parent) == whole


def test_a_disk_that_fills_up_is_told_in_one_line(dataset, tmp_path, monkeypatch):
    def append(writer: ShardWriter, cubes: Cubes) -> None:
        raise OSError(errno.ENOSPC, "Driver write request failed\nand much more")

    monkeypatch.setattr(ShardWriter, "append", append)
    cache = tmp_path / "small.h5"
    with pytest.raises(CacheError, match=r"00000.h5: cannot be written \(No space left") as caught:
        extract(begin(dataset, cache), ignore)
    assert "\n" not in str(caught.value)
    assert list(contents(cache.parent)) == ["small.shards/plan.json"]


def test_nobodys_file_is_written_over(dataset, tmp_path):
    mine = tmp_path / "clips.csv"
    mine.write_text("path,label\n")
    with pytest.raises(CacheError, match=r"clips\.csv: is in the way; choose another --out"):
        begin(dataset, mine)
    assert list(contents(tmp_path)) == ["clips.csv"]


def test_what_cannot_be_is_refused_before_anything_is_done(dataset, tmp_path, monkeypatch):
    with pytest.raises(CacheError, match=r"a folder; --out is a file, as .*NAME\.h5"):
        begin(dataset, tmp_path)
    monkeypatch.setattr(video, "find_spec", lambda name: None)
    with pytest.raises(UnsupportedError, match="decord is missing"):
        begin(dataset, tmp_path / "small.h5", decoder="decord")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("choices", "told"),
    [({"decoders": 0}, "decoders must be"), ({"time_limit": 0.0}, "time_limit must be")],
)
def test_numbers_that_make_no_sense(choices, told):
    with pytest.raises(ValueError, match=told):
        ExtractConfig(**choices)
