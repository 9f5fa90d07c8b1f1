"""The released code's files to a cache and back: every value in its place, to the bit."""

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attnact.model.windows import Windows
from attnact.released.exporting import export_released
from attnact.released.files import class_names
from attnact.released.importing import import_released
from attnact.train.feed.clips import cut_clips
from attnact.train.feed.store import batches, open_store
from attnact.vocabulary import HOLLYWOOD2_CLASSES, ORDERS, Split
from tests.made_released import TEST, TRAIN, VALID, WIDTH, Files, contents, shards, take


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


@settings(max_examples=20)
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
@pytest.mark.parametrize(("multi_label", "dtype"), [(False, np.float16), (True, np.uint8)])
def test_a_cache_of_ours_there_and_back(order, multi_label, dtype, make_cache, tmp_path):
    """Group 0 of five is unused in the fold; the training videos come first in the new cache."""
    kept = {"videos": 15, "frames": lambda video: 1 + video % 3, "multi_label": multi_label}
    cache = make_cache(tmp_path / "half.h5", **kept, dtype=dtype)
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
        assert (cache.dtype, here.dtype) == (dtype, np.float32)
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
    clips = cut_clips(cache, np.array([0]), fps=30, stride=1, form="released")
    store = open_store(cache, np.array([0]), place, torch.device("cpu"))
    (batch,) = batches(store, clips, np.array([1, 0]), 2)
    theirs = np.stack([long.rows[1:31], long.rows[:30]], axis=1)  # (T, B, 50176)
    theirs = theirs.reshape([30, 2, 49, 1024], order="F").swapaxes(0, 1)
    X = batch.X.gather(batch.X.frames) if isinstance(batch.X, Windows) else batch.X
    assert X.dtype == torch.float32
    assert X.numpy().tobytes() == theirs.tobytes()


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
