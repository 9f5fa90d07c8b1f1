"""The released code's files to a cache and back: every value in its place, to the bit."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from attnact import cli, released_export, released_import
from attnact.errors import CacheError
from attnact.extract.plan import read_plan
from attnact.feature_writer import ShardWriter
from attnact.features import FeatureCache, shard_path
from attnact.released_export import export_released
from attnact.released_files import class_names
from attnact.released_import import import_released
from attnact.train.clips import cut_clips
from attnact.train.store import batches, open_store
from attnact.vocabulary import HOLLYWOOD2_CLASSES, ORDERS, Split

ROOT = Path(__file__).parents[1]
WIDTH = 7 * 7 * 1024
LISTS = ("framenum.txt", "filename.txt", "labels.txt")


@pytest.fixture(autouse=True, scope="module")
def small_blocks() -> Iterator[None]:
    """Blocks and shards of a few frames, so that small files have several."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(released_import, "BLOCK", 2)
        patch.setattr(released_import, "SHARD_FRAMES", 4)
        patch.setattr(released_export, "BLOCK", 2)
        yield


@dataclass(frozen=True)
class Files:
    """What one part is to hold: rows (frames, 50176), and a path, frames and label a video."""

    paths: Sequence[str]
    frames: Sequence[int]
    labels: Sequence[str]
    seed: int = 0

    @property
    def rows(self) -> Any:
        """Any finite float32, tiny ones, huge ones and minus zeros included."""
        bits = np.random.default_rng(self.seed).integers(0, 1 << 32, (sum(self.frames), WIDTH))
        rows = bits.astype(np.uint32).view(np.float32)
        rows[~np.isfinite(rows)] = -0.0
        return rows

    def write(self, folder: Path, part: str, dtype: str = "<f4", eol: str = "\n") -> None:
        folder.mkdir(exist_ok=True)
        with h5py.File(folder / f"{part}_features.h5", "w") as file:
            file.create_dataset("features", data=self.rows, dtype=dtype, maxshape=(None, None))
        for name, lines in zip(LISTS, (self.frames, self.paths, self.labels), strict=True):
            text = "".join(f"{line}{eol}" for line in lines)
            (folder / f"{part}_{name}").write_bytes(text.encode())


TRAIN = Files(["dive/a.avi", "run/b.avi", "dive/c.avi"], [3, 1, 5], ["0", "1", "0"], 1)
TEST = Files(["run/d.avi", "dive/e.avi"], [2, 4], ["1", "0"], 2)
VALID = Files(["run/f.avi"], [2], ["1"], 3)


@pytest.fixture
def released(tmp_path: Path) -> Path:
    """Three training videos and two test videos, of two classes."""
    TRAIN.write(tmp_path / "released", "train")
    TEST.write(tmp_path / "released", "test")
    return tmp_path / "released"


def take(folder: Path, order: Any = "fortran", out: str = "x.h5") -> FeatureCache:
    return import_released(folder, folder.parent / out, "x", order)


def contents(folder: Path) -> dict[str, bytes]:
    """The text of the lists, and the values of the features, by file name."""
    found = {}
    for path in sorted(folder.iterdir()):
        if path.suffix == ".h5":
            with h5py.File(path) as file:
                assert list(file) == ["features"]
                assert file["features"].dtype == np.dtype("<f4")
                assert file["features"].maxshape == (None, None)
                found[path.name] = file["features"][()].tobytes()
        else:
            found[path.name] = path.read_bytes()
    return found


def test_each_value_lands_in_its_place(released):
    """Said value by value, and as the released code reads a batch of T frames of B videos."""
    with h5py.File(released / "train_features.h5") as file:
        rows = file["features"][:3]
    fortran = take(released).read(0, 3)
    plain = take(released, "c", "c.h5").read(0, 3)
    for frame, y, x, channel in [(0, 0, 0, 0), (2, 6, 6, 1023), (1, 2, 5, 700), (2, 5, 2, 3)]:
        assert fortran[frame, y, x, channel] == rows[frame, channel * 49 + 7 * y + x]
        assert plain[frame, y, x, channel] == rows[frame, (7 * y + x) * 1024 + channel]
    batch = rows.reshape(3, 1, WIDTH).reshape([3, 1, 49, 1024], order="F")
    assert fortran.reshape(3, 1, 49, 1024).tobytes() == batch.tobytes()


def test_location_is_row_by_row_as_in_caffes_blob(tmp_path):
    """Caffe's memory of a blob (1024, 7, 7) is what the released scripts made a row of."""
    blob = np.random.default_rng(0).random((1024, 7, 7), np.float32)
    files = Files(["a/a.avi"], [1], ["0"])
    files.write(tmp_path / "released", "train")
    replace(files, paths=["a/b.avi"]).write(tmp_path / "released", "test")
    with h5py.File(tmp_path / "released" / "train_features.h5", "a") as file:
        file["features"][0] = blob.ravel()
    np.testing.assert_array_equal(
        take(tmp_path / "released").read(0, 1)[0], blob.transpose(1, 2, 0)
    )


def test_what_an_imported_cache_says(released):
    VALID.write(released, "valid")
    cache = import_released(released, released.parent / "features" / "y.h5", "hmdb51", "fortran")
    assert (cache.name, cache.classes, cache.multi_label) == ("hmdb51", ["dive", "run"], False)
    assert cache.paths == [*TRAIN.paths, *TEST.paths, *VALID.paths]
    assert cache.groups == cache.paths
    assert cache.labels.tolist() == [0, 1, 0, 1, 0, 1]
    assert cache.frame_counts.tolist() == [3, 1, 5, 2, 4, 2]
    assert cache.frame_rates.tolist() == [30.0] * 6
    assert {fold: sides.tolist() for fold, sides in cache.folds.items()} == {
        "1": [1, 1, 1, 2, 2, 0]
    }
    assert cache.folds["1"][5] == Split.UNUSED
    assert cache.dtype == np.float32
    assert list(cache.verify()) == [None] * 6
    assert [len(h5py.File(shard)["features"]) for shard in shards(cache)] == [4, 5, 6, 2]
    made = cache.provenance
    assert (made["dtype"], made["order"], made["source"]) == ("float32", "fortran", str(released))
    for key in ("backbone", "weights", "weights_digest", "weights_are_random", "resize", "decoder"):
        assert made[key] == "unknown (released files)"


def shards(cache: FeatureCache) -> list[Path]:
    return sorted(cache.path.with_suffix(".shards").glob("*.h5"))


@st.composite
def parts(draw: Callable[[Any], Any]) -> dict[str, Files]:
    """Any lists: single- or multi-label, valid missing, of its own, or the same as test."""
    width = draw(st.sampled_from([1, 1, 2, 12]))
    digit = st.integers(0, 1 if width > 1 else 60).map(str)
    label = st.lists(digit, min_size=width, max_size=width).map(",".join)
    numbers = iter(range(100))

    def files() -> Files:
        frames = draw(st.lists(st.integers(1, 5), min_size=1, max_size=3))
        labels = draw(st.lists(label, min_size=len(frames), max_size=len(frames)))
        paths = [
            f"{draw(st.sampled_from(['', 'é b/', 'c/d/']))}{next(numbers)}.avi" for _ in frames
        ]
        return Files(paths, frames, labels, next(numbers))

    found = {"train": files(), "test": files()}
    valid = draw(st.sampled_from(["missing", "own", "test"]))
    if valid != "missing":
        found["valid"] = found["test"] if valid == "test" else files()
    return found


@settings(deadline=None, max_examples=20)
@given(parts(), st.sampled_from(ORDERS), st.sampled_from(ORDERS))
def test_there_and_back_is_the_same_to_the_bit(files, order, other):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part, wanted in files.items():
            wanted.write(folder / "released", part)
        cache = take(folder / "released", order)
        valid = (
            None
            if "valid" not in files
            else "test"
            if files["valid"] == files["test"]
            else "unused"
        )
        counts = export_released(cache, folder / "back", order, "1", valid)
        assert counts == {part: len(wanted.paths) for part, wanted in files.items()}
        assert contents(folder / "back") == contents(folder / "released")
        # And whichever order the files are written in, the cubes are the same.
        export_released(cache, folder / "again", other, None, valid)
        again = take(folder / "again", other, "again.h5")
        assert again.read(0, cache.frames).tobytes() == cache.read(0, cache.frames).tobytes()
        assert (again.paths, again.labels.tolist()) == (cache.paths, cache.labels.tolist())


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("multi_label", [False, True])
def test_a_float16_cache_there_and_back_has_equal_values(order, multi_label, make_cache, tmp_path):
    """Group 0 of five is unused in the fold; the training videos come first in the new cache."""
    kept = {"videos": 15, "frames": lambda video: 1 + video % 3, "multi_label": multi_label}
    cache = make_cache(tmp_path / "half.h5", **kept)
    counts = export_released(cache, tmp_path / "released", order, "wide", "unused")
    assert counts == {"train": 6, "test": 6, "valid": 3}
    back = take(tmp_path / "released", order)
    order_there = [*range(3, 15), *range(3)]
    assert back.paths == [cache.paths[i] for i in order_there]
    assert back.labels.tolist() == cache.labels[order_there].tolist()
    assert back.folds["1"].tolist() == cache.folds["wide"][order_there].tolist()
    for now, then in enumerate(order_there):
        there = cache.read(int(cache.first_frames[then]), 1 + then % 3)
        here = back.read(int(back.first_frames[now]), 1 + then % 3)
        assert (there.dtype, here.dtype) == (np.float16, np.float32)
        np.testing.assert_array_equal(here, there)


def test_a_valid_video_of_another_part_is_stored_once(released):
    replace(TEST, seed=9).write(released, "valid")
    cache = take(released)
    assert cache.paths == [*TRAIN.paths, *TEST.paths]
    assert cache.folds["1"].tolist() == [1, 1, 1, 2, 2]
    assert cache.frames == sum([*TRAIN.frames, *TEST.frames])


def test_windows_lines_and_other_floats_are_read(tmp_path):
    expected = TRAIN.rows
    for part, files in (("train", TRAIN), ("test", TEST)):
        files.write(tmp_path / "released", part, dtype=">f4", eol="\r\n")
    cache = take(tmp_path / "released", "c")
    assert cache.paths == [*TRAIN.paths, *TEST.paths]
    assert cache.read(0, 9).tobytes() == expected.tobytes()


@pytest.mark.parametrize("place", ["host", "disk"])
def test_training_takes_the_batches_that_the_released_code_takes(tmp_path, place):
    """One video of 31 frames gives two clips, at 30 frames a second."""
    long = Files(["a/a.avi"], [31], ["0"])
    long.write(tmp_path / "released", "train")
    TEST.write(tmp_path / "released", "test")
    cache = take(tmp_path / "released")
    clips = cut_clips(cache, np.array([0]), fps=30, stride=1, repeats="kept")
    store = open_store(cache, np.array([0]), place, torch.device("cpu"))
    (batch,) = batches(store, clips, np.array([1, 0]), 2)
    theirs = np.stack([long.rows[1:31], long.rows[:30]], axis=1)  # (T, B, 50176)
    theirs = theirs.reshape([30, 2, 49, 1024], order="F").swapaxes(0, 1)
    assert batch.X.dtype == torch.float32
    assert batch.X.numpy().tobytes() == theirs.tobytes()


NAMES = [
    (["dive/a.avi", "run/b.avi", "dive/c.avi"], [(1,), (0,), (1,)], ["run", "dive"]),
    (["dive/v/a.avi", "run/v/b.avi"], [(0,), (2,)], ["dive", "class 1", "run"]),
    (["dive/a.avi", "dive/b.avi"], [(0,), (1,)], ["class 0", "class 1"]),
    (["dive/a.avi", "run/b.avi"], [(0,), (0,)], ["class 0"]),
    (["a.avi", "b.avi"], [(0,), (1,)], ["class 0", "class 1"]),
    (["dive/a.avi", "b.avi"], [(0,), (1,)], ["class 0", "class 1"]),
    (["dive/a.avi"], [(0, 1)], ["class 0", "class 1"]),
    (["dive/a.avi"], [(0,) * 12], list(HOLLYWOOD2_CLASSES)),
]


@pytest.mark.parametrize(("paths", "labels", "names"), NAMES)
def test_class_names(paths, labels, names):
    assert class_names(paths, labels) == names


def test_hollywood2s_order_is_the_papers_authors():
    assert HOLLYWOOD2_CLASSES[:3] == ("AnswerPhone", "DriveCar", "Eat")
    assert list(HOLLYWOOD2_CLASSES) == sorted(HOLLYWOOD2_CLASSES)


WRONG_LISTS = [
    (
        "train_framenum.txt",
        b"3\n1\n",
        r"train_filename\.txt: 3 lines, but train_framenum.txt has 2",
    ),
    (
        "train_filename.txt",
        b"a\nb\n",
        r"train_filename\.txt: 2 lines, but train_framenum.txt has 3",
    ),
    ("test_labels.txt", b"0\n0\n0\n", r"test_labels\.txt: 3 lines, but test_framenum.txt has 2"),
    ("train_framenum.txt", b"3\n1\n6\n", r"features\.h5: 9 frames, but train_framenum.txt has 10"),
    ("train_framenum.txt", b"3\n0\n6\n", r"framenum\.txt: line 2: '0' is no count of frames"),
    ("train_framenum.txt", b"3\n1\nsix", r"framenum\.txt: line 3: 'six' is no count of frames"),
    ("train_framenum.txt", b"3\n1.0\n6", r"framenum\.txt: line 2: '1\.0' is no count of frames"),
    ("test_labels.txt", b"1\n-1\n", r"labels\.txt: line 2: '-1' is no class index"),
    ("test_labels.txt", b"1\nrun\n", r"labels\.txt: line 2: 'run' is no class index"),
    ("test_labels.txt", b"1,0\n2,0\n", r"labels\.txt: line 2: '2,0' is no class index or row"),
    ("test_labels.txt", b"1,0\n1,\n", r"labels\.txt: line 2: '1,' is no class index or row"),
    ("test_labels.txt", b"1,0\n1\n", r"labels\.txt: line 2 has 1 values, line 1 has 2"),
    ("test_labels.txt", b"1,0\n0,1\n", r"released: labels of 1 in train and 2 in test"),
    ("test_labels.txt", b"1\n\n0\n", r"test_labels\.txt: line 2 is blank"),
    ("test_labels.txt", b"1\r\n0\r\n \r\n", r"test_labels\.txt: line 3 is blank"),
    ("test_labels.txt", b"", r"test_labels\.txt: line 1 is blank"),
    ("test_filename.txt", b"run/d.avi\n\xff.avi\n", r"test_filename\.txt: not UTF-8 text"),
    ("test_filename.txt", b"run/d.avi\nrun/b.avi", r"released: run/b\.avi is in train and test"),
    ("test_filename.txt", b"run/d.avi\nrun/d.avi", r"released: run/d\.avi is in test and test"),
]


def refused(folder: Path, message: str) -> None:
    """The import says it in a line, and leaves nothing."""
    with pytest.raises(CacheError, match=message) as caught:
        take(folder)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)
    left = [path for path in folder.parent.rglob("*") if folder not in (path, *path.parents)]
    assert {path.name for path in left} <= {"x.shards", "plan.json"}


@pytest.mark.parametrize(("file", "content", "message"), WRONG_LISTS)
def test_wrong_lists(released, file, content, message):
    (released / file).write_bytes(content)
    refused(released, message)


@pytest.mark.parametrize(
    "file", [f"{part}_{name}" for part in ("train", "test") for name in (*LISTS, "features.h5")]
)
def test_a_missing_file(released, file):
    (released / file).unlink()
    refused(released, rf"{file}: (no such file|cannot be read \(No such file or directory\))")


def test_valid_files_are_wanted_whole(released):
    VALID.write(released, "valid")
    (released / "valid_features.h5").unlink()
    refused(released, "valid_features.h5: no such file")


def test_a_valid_video_that_is_another_in_train(released):
    replace(VALID, paths=["dive/a.avi"]).write(released, "valid")
    refused(released, r"dive/a\.avi has other frames or labels in train than in valid")


def test_a_video_twice_in_valid(released):
    Files(["run/f.avi"] * 2, [2, 2], ["1", "1"]).write(released, "valid")
    refused(released, r"run/f\.avi is in valid and valid")


WRONG_FEATURES: list[tuple[Any, str]] = [
    (np.zeros((9, 1024), np.float32), r"features of shape \(9, 1024\), not \(n, 50176\)"),
    (np.zeros((9, 49, 1024), np.float32), r"features of shape \(9, 49, 1024\), not"),
    (np.zeros((8, WIDTH), np.float32), r"8 frames, but train_framenum\.txt has 9"),
    (np.zeros((9, WIDTH), np.float64), r"float64 features do not fit float32"),
    (None, r"train_features\.h5: holds no data set `features`"),
]


@pytest.mark.parametrize(("values", "message"), WRONG_FEATURES)
def test_wrong_features(released, values, message):
    with h5py.File(released / "train_features.h5", "w") as file:
        if values is None:
            file.create_group("features")
        else:
            file["features"] = values
    refused(released, message)
    h5py.File(released / "train_features.h5", "a").close()  # HDF5 would refuse, were it open


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_feature_that_is_no_number(released, value):
    """In the last frame of the training videos; frame 4 of the video is a block of its own."""
    with h5py.File(released / "train_features.h5", "a") as file:
        file["features"][8, 50175] = value
    with pytest.raises(
        CacheError, match=r"dive/c\.avi: frames 4 to 4 hold what is no finite number"
    ):
        take(released)
    assert [path.name for path in (released.parent / "x.shards").glob("*.h5")] == ["00000.h5"]


def test_a_features_file_cut_short(released):
    path = released / "train_features.h5"
    path.write_bytes(path.read_bytes()[:-1000])
    refused(released, r"train_features\.h5: (not a whole HDF5 file|.* cannot be read)")


def test_features_that_do_not_decompress(released):
    path = released / "train_features.h5"
    with h5py.File(path, "w") as file:
        rows = file.create_dataset("features", data=TRAIN.rows, chunks=(1, WIDTH), compression=1)
        offset = rows.id.get_chunk_info(8).byte_offset
    content = bytearray(path.read_bytes())
    content[offset : offset + 1000] = bytes(1000)
    path.write_bytes(content)
    with pytest.raises(CacheError, match=r"dive/c\.avi: frames 4 to 4 cannot be read"):
        take(released)


def test_a_full_disk_is_refused_before_work_begins(released, monkeypatch, cache, tmp_path):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=15 * 41 * 1024 - 1))
    refused_here = r"not enough disk, about 0\.\d GiB needed"
    with pytest.raises(CacheError, match=refused_here):
        take(released)
    with pytest.raises(CacheError, match=refused_here):
        export_released(cache, tmp_path / "back", "c", None)
    assert not list((tmp_path / "back").iterdir())
    assert not (tmp_path / "x.shards").exists()
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=15 * 41 * 1024))
    take(released)


def test_an_interrupted_import_goes_on_with_the_same_bytes(released, monkeypatch):
    expected = [path.read_bytes() for path in shards(take(released, out="whole.h5"))]
    stops = iter([False, False, True])

    class Interrupted(ShardWriter):
        def close(self) -> None:
            if next(stops):
                raise KeyboardInterrupt
            super().close()

    with monkeypatch.context() as patch:
        patch.setattr(released_import, "ShardWriter", Interrupted)
        with pytest.raises(KeyboardInterrupt):
            take(released)
    folder = released.parent / "x.shards"
    assert sorted(path.name for path in folder.iterdir()) == ["00000.h5", "00001.h5", "plan.json"]
    first = (folder / "00000.h5").stat()
    cache = take(released)
    assert [path.read_bytes() for path in shards(cache)] == expected
    assert (folder / "00000.h5").stat().st_ino == first.st_ino
    assert list(cache.verify()) == [None] * 5
    assert take(released).paths == cache.paths  # once more does no harm


def test_what_was_begun_otherwise_is_not_mixed(released):
    take(released)
    with pytest.raises(CacheError, match=r"x\.h5: begun with other features or another --order"):
        take(released, "c")
    replace(TEST, seed=5).write(released, "test")
    with pytest.raises(CacheError, match=r"x\.h5: begun with other features or another --order"):
        take(released)
    with pytest.raises(CacheError, match=r"plan\.json: damaged; delete the folder"):
        read_plan(released.parent / "x.h5")  # so that `attnact features` keeps its hands off


def test_a_shard_in_another_process_is_left_to_it(released):
    whole = take(released, out="whole.h5")
    shard = shard_path(released.parent / "x.h5", 1)
    shard.parent.mkdir()
    other = ShardWriter.claim(shard, "zstd", np.float32)
    with pytest.raises(CacheError, match=r"x\.h5: another process imports the rest"):
        take(released)
    other.abandon()
    assert take(released).read(0, 15).tobytes() == whole.read(0, 15).tobytes()


def test_export_overwrites_nothing(released, cache):
    for part in ("train", "test", "valid"):
        folder = released.parent / part
        folder.mkdir()
        (folder / f"{part}_labels.txt").write_text("mine")
        with pytest.raises(CacheError, match=rf"{part}_labels\.txt is in the way"):
            export_released(cache, folder, "fortran", None)
        assert [path.name for path in folder.iterdir()] == [f"{part}_labels.txt"]


def test_export_needs_a_fold_with_videos_on_both_sides(make_cache, tmp_path):
    cache = make_cache(tmp_path / "x.h5", videos=3, frames=lambda _: 1)
    for fold, valid, message in [
        ("9", None, r"x\.h5: no fold '9'; it has 1, wide"),
        ("1", None, r"x\.h5: fold 1 has no videos for train"),
    ]:
        with pytest.raises(CacheError, match=message):
            export_released(cache, tmp_path / "back", "c", fold, valid)
    other = make_cache(tmp_path / "y.h5", videos=6, frames=lambda _: 1)
    with pytest.raises(CacheError, match=r"y\.h5: fold 2 has no videos for valid"):
        export_released(other, tmp_path / "back", "c", "2", "unused")
    assert not (tmp_path / "back").exists()
    assert export_released(other, tmp_path / "back", "c", None) == {"train": 3, "test": 3}


def test_a_failed_export_leaves_no_half_file(released):
    cache = take(released)
    shards(cache)[2].unlink()  # the test videos
    with pytest.raises(CacheError, match=r"00002\.h5: no such file"):
        export_released(cache, released.parent / "back", "c", None)
    names = {path.name for path in (released.parent / "back").iterdir()}
    assert names == {f"train_{name}" for name in (*LISTS, "features.h5")}


FULL = """
import resource, sys
from pathlib import Path
from attnact.errors import CacheError
from attnact.features import FeatureCache
from attnact.released_export import export_released
from attnact.released_import import import_released
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
here = Path(sys.argv[1])
for work in (
    lambda: import_released(here / "released", here / "y.h5", "y", "c"),
    lambda: export_released(FeatureCache(here / "x.h5"), here / "back", "c", None),
):
    try:
        work()
    except CacheError as error:
        print(error)
"""


def test_a_disk_that_fills_up_is_told_in_a_line(released, tmp_path):
    """No file may grow beyond a MiB; the first training video alone has 0.6, the part 1.8."""
    take(released)
    command = [sys.executable, "-c", FULL, str(tmp_path)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    told = result.stdout.splitlines()
    assert told[0].startswith(f"{tmp_path}/y.shards/00000.h5: cannot be written (")
    assert told[1].startswith(f"{tmp_path}/back/train_features.h5: cannot be written (")
    assert len(told) == 2
    left = [
        path.name for path in (*(tmp_path / "y.shards").iterdir(), *(tmp_path / "back").iterdir())
    ]
    assert left == ["plan.json"]


def test_the_command_line(released, monkeypatch):
    VALID.write(released, "valid")
    monkeypatch.chdir(released.parent)

    def run(*arguments: str) -> str:
        result = CliRunner().invoke(cli.main, ["cache", *arguments], catch_exceptions=False)
        assert result.exit_code == 0, result.stderr
        return result.stdout

    told = run("import-released", "released", "--order", "c", "--name", "small")
    assert told.splitlines()[0] == "features/small.h5: 6 videos, 17 frames"
    assert "1 valid videos are on neither side of fold 1" in told
    assert "0 of 6 videos damaged" in run("verify", "small")
    assert "dtype: float32" in run("info", "small")
    told = run("export-released", "small", "c", "--order", "c", "--valid", "unused")
    assert told == "c: 3 videos in train, 2 videos in test, 1 videos in valid\n"
    assert contents(Path("c")) == contents(released)
    run("export-released", "small", "plain", "--fold", "1")
    assert sorted(os.listdir("plain")) == sorted(
        f"{part}_{name}" for part in ("train", "test") for name in (*LISTS, "features.h5")
    )
    run("import-released", "plain", "--out", "z.h5")
    assert FeatureCache(Path("z.h5")).name == "plain"
    result = CliRunner().invoke(cli.main, ["cache", "export-released", "small", "c"])
    assert (result.exit_code, len(result.stderr.splitlines())) == (1, 1)
    assert "c/train_features.h5 is in the way; delete it" in result.stderr
