"""The registry of data sets."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from attnact.errors import DatasetError
from attnact.extract.datasets import DATASETS, load_dataset
from attnact.extract.datasets.base import Video, straddling_groups
from attnact.extract.datasets.disk import incomplete, some, videos_meant
from attnact.vocabulary import Split


def test_names() -> None:
    assert list(DATASETS) == ["ucf11", "hmdb51", "hollywood2", "folder"]
    assert all(info.name == name for name, info in DATASETS.items())


def test_every_archive_can_be_fetched_and_checked() -> None:
    for info in DATASETS.values():
        assert bool(info.archives) == bool(info.homepage)
        for archive in info.archives:
            assert archive.url.startswith(("https://", "ftp://"))
            assert archive.name.endswith((".rar", ".zip", ".tar.gz"))
            if archive.checksum is not None:
                algorithm, _, digest = archive.checksum.partition(":")
                assert len(digest) == {"sha256": 64, "md5": 32}[algorithm]


def test_only_what_can_be_downloaded_is_advised(tmp_path: Path) -> None:
    ucf11 = DATASETS["ucf11"]
    page, layout = f"from {ucf11.homepage}", f"so that it lies as {ucf11.layout}"
    for info, how in (
        (ucf11, f"get it with 'attnact download ucf11' or {page}, and unpack"),
        (replace(ucf11, archives=()), f"get it {page}, and unpack"),
        (replace(ucf11, archives=(), homepage=""), "unpack"),
    ):
        told = f"UCF-11 in {tmp_path}: no clips; {how} every archive {layout}"
        assert str(incomplete(info, tmp_path, "no clips")) == told


def test_folds_and_seed_reach_the_folder(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        for number in range(6):
            (tmp_path / name / f"{number}.mp4").touch()
    dataset = load_dataset("folder", tmp_path, folds=3)
    assert list(dataset.folds) == ["1", "2", "3"]
    assert dataset.folds != load_dataset("folder", tmp_path, folds=3, seed=1).folds


def test_unknown_name(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match="called 'ucf101'; there are ucf11, hmdb51, hollywood2, fol"
    ):
        load_dataset("ucf101", tmp_path)


def test_what_a_path_means(tmp_path: Path) -> None:
    """A folder all that is below it, a list its lines, any other path itself."""
    for name in ("b.mp4", "a.AVI", "deep/c.mkv", "notes.csv", ".hidden.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    names = [path.relative_to(tmp_path).as_posix() for path in videos_meant(tmp_path)]
    assert names == ["a.AVI", "b.mp4", "deep/c.mkv"]
    (tmp_path / "list.txt").write_text("b.mp4\n\n deep/c.mkv\n/far/d.avi\n")
    assert videos_meant(tmp_path / "list.txt") == [
        *(tmp_path / "b.mp4", tmp_path / "deep/c.mkv", Path("/far/d.avi"))
    ]
    assert videos_meant(tmp_path / "gone.mp4") == [tmp_path / "gone.mp4"]


def test_a_path_that_means_nothing_is_told(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty.txt").touch()
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe\xfa")
    for name in ("empty", "empty.txt"):
        with pytest.raises(DatasetError, match="holds no videos"):
            videos_meant(tmp_path / name)
    with pytest.raises(DatasetError, match=r"list\.csv: .* is a \.txt, a path a line"):
        videos_meant(tmp_path / "list.csv")
    for name in ("bytes.txt", "gone.txt"):
        with pytest.raises(DatasetError, match="cannot be read as a list"):
            videos_meant(tmp_path / name)


def test_import_is_cheap() -> None:
    code = "import sys, attnact.extract.datasets; print(*sys.modules)"
    root = Path(__file__).resolve().parents[3]
    modules = subprocess.check_output([sys.executable, "-c", code], cwd=root, text=True)
    assert not {"sklearn", "scipy", "torch", "torchvision"} & set(modules.split())


def test_straddling_groups() -> None:
    videos = [Video(str(i), (0,), group) for i, group in enumerate("abbcc")]
    sides = [Split.TRAIN, Split.TRAIN, Split.TEST, Split.UNUSED, Split.TEST]
    assert straddling_groups(videos, sides) == ["b"]


def test_some() -> None:
    assert some(["a", "b"]) == "a, b"
    assert some([str(i) for i in range(12)]) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more"
