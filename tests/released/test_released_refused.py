"""Files of the released code that are refused, interrupted imports, and full disks."""

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest
from click.testing import CliRunner

from attnact import cli
from attnact.cache.feature_writer import ShardWriter
from attnact.cache.features import FeatureCache
from attnact.cache.shards import shard_path
from attnact.errors import CacheError
from attnact.extract.plan import read_plan
from attnact.released import importing
from attnact.released.exporting import export_released
from tests.made_released import (
    LISTS,
    ROOT,
    TEST,
    TRAIN,
    VALID,
    WIDTH,
    Files,
    contents,
    shards,
    take,
)

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
        patch.setattr(importing, "ShardWriter", Interrupted)
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
    with pytest.raises(CacheError, match=r"x\.h5: made of the released code's files"):
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
from attnact.cache.features import FeatureCache
from attnact.released.exporting import export_released
from attnact.released.importing import import_released
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
