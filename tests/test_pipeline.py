"""Videos to a cache: each frame's features in its place, however often the work was interrupted."""

import errno
import io
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import torch
from made_extraction import StandIn, begin, ignore, interrupt, make_dataset, stop_after, surround
from torch import Tensor

from attnact.compact import to_float, to_uint8
from attnact.errors import CacheError
from attnact.extract import choosing, index, making, pipeline
from attnact.extract import plan as plan_module
from attnact.extract.datasets.base import Dataset
from attnact.extract.making import take_up
from attnact.extract.pipeline import describe, extract, frames_left
from attnact.extract.plan import read_plan
from attnact.extract.resize import resize
from attnact.extract.video import read_frames
from attnact.feature_index import write_index
from attnact.feature_writer import ShardWriter
from attnact.features import SCHEMA, Cubes, FeatureCache, shard_path
from attnact.sealed import is_broken, unsealed
from attnact.vocabulary import Resize

CLIPS = {"dive/a.avi": 5, "dive/b.avi": 40, "run/c.mp4": 1, "run/d.avi": 33, "run/e.mpg": 20}
BAD = ("dive/cut.avi", "run/cut.mp4", "run/empty.avi", "dive/text.avi", "run/sound.mp4")
LATER = ("dtype", "runtime", "precision")
SHARDS = 3  # of clips a, b and c; of d; and of e, in shards of 50 frames


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    surround(monkeypatch)


@pytest.fixture(scope="module")
def root(make_clip, ffmpeg, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for name in ("dive", "run"):
        (folder / name).mkdir()
    for seed, (path, frames) in enumerate(CLIPS.items()):
        codec = ("-c:v", "mpeg1video") if path.endswith("mpg") else ()
        make_clip(folder / path, *codec, frames=frames, seed=seed)
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
    return files(cache)


def files(cache: Path) -> dict[str, bytes]:
    paths = sorted(cache.parent.rglob("*.*"))
    return {p.relative_to(cache.parent).as_posix(): p.read_bytes() for p in paths if p.is_file()}


def hold(cache: FeatureCache, root: Path, how: Resize = "squash") -> None:
    """Every video of the cache has the features of each of its frames, in order."""
    compact = cache.provenance["dtype"] == "uint8"
    assert cache.dtype == (np.uint8 if compact else np.float16)
    for path, first, row in zip(cache.paths, cache.first_frames, cache.rows, strict=True):
        frames = resize(np.stack(list(read_frames(root / path))), how)
        expected = StandIn()(torch.from_numpy(frames)).half().numpy()
        expected = to_float(to_uint8(expected)) if compact else expected
        np.testing.assert_array_equal(cache.read(int(first), row.frames), expected)
    assert list(cache.verify()) == [None] * len(cache.paths)


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
    left = set(files(cache))
    assert left <= {name for name in whole if name != "small.h5"}  # whole files or none
    assert ("small.shards/00000.h5" in left) == (batches >= 6)  # it has six batches
    assert extract(begin(dataset, cache), ignore) is not None
    assert files(cache) == whole


def in_another_process(dataset: Dataset, cache: Path, batches: int) -> subprocess.CompletedProcess:
    """Extracts there; killed after so many batches unless that is 0."""
    script = (
        "import sys, test_pipeline as t; from pathlib import Path\n"
        "t.extract_here(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))"
    )
    tests = Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tests), str(tests.parent)])}
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
    assert 1 <= SHARDS - len(read_plan(cache).missing(cache)) < SHARDS
    assert extract(begin(dataset, cache), ignore) is not None
    assert {name: data for name, data in files(cache).items() if "lock" not in name} == whole


def test_two_processes_share_the_work(dataset, whole, tmp_path):
    cache = tmp_path / "small.h5"
    others = []

    def join() -> None:
        others.append(in_another_process(dataset, cache, 0))

    assert extract(begin(dataset, cache), stop_after(1, join)) is not None
    assert [other.stdout for other in others] == ["others still work on it\n"], others
    assert files(cache) == whole


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


def test_a_finished_cache_is_not_made_again(dataset, tmp_path, monkeypatch):
    cache = tmp_path / "small.h5"
    extract(begin(dataset, cache), ignore)
    before = files(cache)
    monkeypatch.setattr(making, "Readers", None)
    monkeypatch.setattr(pipeline, "probe_all", None)
    extraction = begin(dataset, cache)
    assert frames_left(extraction) == 0
    assert f"all {SHARDS} shards of {cache} are there" in describe(extraction)
    monkeypatch.setattr(index, "versions", lambda *packages: {"torch": "a later one"})
    extract(extraction, ignore)
    assert files(cache) == before


def change(dataset: Dataset, what: str) -> Dataset:
    videos, sides = dataset.videos, dataset.folds["1"]
    return replace(
        dataset,
        **{
            "data set": {"name": "ucf11"},
            "classes": {"classes": ("dive", "walk")},
            "labels": {"videos": (replace(videos[0], labels=(1,)), *videos[1:])},
            "groups": {"videos": (replace(videos[0], group="group 1"), *videos[1:])},
            "folds": {"folds": {"1": sides[::-1], "2": sides}},
        }[what],
    )


@pytest.mark.parametrize("what", ["data set", "classes", "labels", "groups", "folds"])
def test_a_finished_cache_is_not_listed_otherwise(dataset, tmp_path, what):
    cache = tmp_path / "small.h5"
    extract(begin(dataset, cache), ignore)
    before, other = files(cache), change(dataset, what)
    told = {"data set": "another data set", "folds": r"other folds \(1 then, 2 now\)"}
    told = f"small.h5: made with {told.get(what, f'other {what}')}; delete this one file"
    with pytest.raises(CacheError, match=told):
        begin(other, cache)
    assert files(cache) == before
    cache.unlink()
    extract(begin(other, cache), ignore)
    assert len(files(cache)) == len(before)
    begin(other, cache)


def test_a_finished_cache_from_before_there_were_choices_is_left_alone(dataset, tmp_path):
    cache = tmp_path / "small.h5"
    made = extract(begin(dataset, cache), ignore)
    old = {name: made.provenance[name] for name in made.provenance if name not in LATER}
    write_index(cache, SHARDS, index._listing(dataset), old)
    before = cache.read_bytes()
    extract(begin(dataset, cache), ignore)
    assert cache.read_bytes() == before
    with pytest.raises(CacheError, match="made with other folds"):
        begin(change(dataset, "folds"), cache)


def test_videos_that_were_moved(dataset, tmp_path, capsys):
    """To the runs on it the cache is the same, and so is every byte of it but where they are."""
    cache, moved = tmp_path / "small.h5", tmp_path / "moved"
    first = extract(begin(dataset, cache), ignore)
    shutil.copytree(dataset.root, moved)
    for root in (moved, dataset.root):
        again = extract(begin(replace(dataset, root=root), cache), ignore)
        assert f"small.h5: its videos are in {root.resolve()} now" in capsys.readouterr().err
        assert (again.root, again.digest) == (root.resolve(), first.digest)
        assert again.provenance == first.provenance
        hold(again, moved)
        assert not is_broken(cache)
    with h5py.File(cache) as file:
        assert "moved_to" not in file.attrs


def test_a_shard_that_is_made_again_where_the_videos_are_now(dataset, tmp_path):
    cache, moved = tmp_path / "small.h5", tmp_path / "moved"
    first = extract(begin(dataset, cache), ignore)
    shutil.copytree(dataset.root, moved)
    shard_path(cache, 1).unlink()
    again = extract(begin(replace(dataset, root=moved), cache), ignore)
    assert (again.root, again.digest) == (moved.resolve(), first.digest)
    hold(again, moved)


def remade(dataset: Dataset, cache: Path, **config: object) -> FeatureCache:
    """By a process that makes what is missing, and another that ends the cache."""
    extraction = begin(dataset, cache, **config)
    pipeline.make_here(extraction, extraction.job.plan.missing(cache), ignore)
    return extract(begin(dataset, cache, **config), ignore)


def test_the_index_is_of_the_shards_that_are_there(root, tmp_path):
    """A video was mended, and its shard deleted, as the page on troubleshooting says."""
    videos, cache = tmp_path / "videos", tmp_path / "small.h5"
    shutil.copytree(root, videos)
    whole = (videos / "run/d.avi").read_bytes()
    (videos / "run/d.avi").write_bytes(whole[: len(whole) // 2])
    dataset = make_dataset(videos, list(CLIPS))
    assert len(extract(begin(dataset, cache), ignore).failures) == 1
    (videos / "run/d.avi").write_bytes(whole)
    shard_path(cache, 1).unlink()
    assert read_plan(cache).shards_of({"run/d.avi"}) == [1]
    made = remade(dataset, cache)
    assert made.failures == []
    hold(made, videos)


@pytest.mark.parametrize("change", ["fewer videos", "other names", "other settings"])
def test_an_index_of_shards_that_are_gone_is_of_no_account(dataset, root, tmp_path, change):
    cache, paths, config = tmp_path / "small.h5", list(CLIPS), {}
    extract(begin(dataset, cache), ignore)
    shutil.rmtree(cache.with_suffix(".shards"))
    if change == "fewer videos":
        dataset = make_dataset(root, paths[:-1])
    elif change == "other names":
        (tmp_path / "dive").symlink_to(root / "dive")
        (tmp_path / "run").symlink_to(root / "run")
        (tmp_path / "dive2").symlink_to(root / "dive")
        dataset = make_dataset(tmp_path, ["dive2/a.avi", *paths[1:]])
    else:
        config = {"compression": "gzip"}
    with pytest.raises(KeyboardInterrupt):
        extract(begin(dataset, cache, **config), stop_after(1, interrupt))
    made = remade(dataset, cache, **config)
    assert made.paths == [video.path for video in dataset.videos]
    assert made.provenance["compression"] == config.get("compression", "zstd")
    hold(made, dataset.root)


def test_a_cache_of_a_newer_attnact_is_left_alone(dataset, tmp_path):
    cache = tmp_path / "small.h5"
    extract(begin(dataset, cache), ignore)
    image = io.BytesIO(unsealed(cache.read_bytes()))
    with h5py.File(image, "a") as file:
        file.attrs["schema"] = SCHEMA + 1
    cache.write_bytes(image.getvalue())
    with pytest.raises(CacheError, match="written by a newer attnact"):
        begin(dataset, cache)
    assert cache.read_bytes() == image.getvalue()


def test_the_plan_in_words(dataset, tmp_path):
    extraction = begin(dataset, tmp_path / "small.h5")
    left = frames_left(extraction)
    assert left == pytest.approx(99, abs=2)  # MPEG has no count in its header
    text = describe(extraction)
    assert f"folder: 5 videos, 2 classes, about {left} frames" in text
    assert f"to make: {SHARDS} of {SHARDS} shards, about {left} frames" in text
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_refused_before_work_begins(dataset, tmp_path, monkeypatch):
    full = SimpleNamespace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: full)
    monkeypatch.setattr(making, "Readers", None)
    with pytest.raises(CacheError, match=r"not enough disk, about .* GiB needed"):
        extract(begin(dataset, tmp_path / "small.h5", compression="none"), ignore)
    assert read_plan(tmp_path / "small.h5") is None  # other settings may follow


def test_other_settings_or_videos_are_refused(dataset, tmp_path):
    cache = tmp_path / "small.h5"
    late = begin(dataset, cache, resize="crop")  # when there was no plan yet
    with pytest.raises(KeyboardInterrupt):
        extract(begin(dataset, cache), stop_after(1, interrupt))
    with pytest.raises(CacheError, match="begun with resize squash, now asked for crop"):
        begin(dataset, cache, resize="crop")
    with pytest.raises(CacheError, match="begun with resize squash, now asked for crop"):
        extract(late, ignore)
    with pytest.raises(CacheError, match=r"begun with other videos \(1 gone, 0 new"):
        begin(make_dataset(dataset.root, list(CLIPS)[1:]), cache)


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
    left = set(files(cache))
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
    assert "small.shards/00000.h5" not in files(cache)
    extract(begin(dataset, cache), ignore)
    assert files(cache) == whole


def test_a_disk_that_fills_up_is_told_in_one_line(dataset, tmp_path, monkeypatch):
    def append(writer: ShardWriter, cubes: Cubes) -> None:
        raise OSError(errno.ENOSPC, "Driver write request failed\nand much more")

    monkeypatch.setattr(ShardWriter, "append", append)
    cache = tmp_path / "small.h5"
    with pytest.raises(CacheError, match=r"00000.h5: cannot be written \(No space left") as caught:
        extract(begin(dataset, cache), ignore)
    assert "\n" not in str(caught.value)
    assert list(files(cache)) == ["small.shards/plan.json"]
