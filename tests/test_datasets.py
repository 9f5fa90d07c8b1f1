"""The registry of data sets."""

import subprocess
import sys
from pathlib import Path

import pytest

from attnact.extract.datasets import DATASETS, load_dataset
from attnact.extract.datasets.base import Video, straddling_groups
from attnact.extract.datasets.disk import some
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


def test_import_is_cheap() -> None:
    code = "import sys, attnact.extract.datasets; print(*sys.modules)"
    root = Path(__file__).resolve().parents[1]
    modules = subprocess.check_output([sys.executable, "-c", code], cwd=root, text=True)
    assert not {"sklearn", "scipy", "torch", "torchvision"} & set(modules.split())


def test_straddling_groups() -> None:
    videos = [Video(str(i), (0,), group) for i, group in enumerate("abbcc")]
    sides = [Split.TRAIN, Split.TRAIN, Split.TEST, Split.UNUSED, Split.TEST]
    assert straddling_groups(videos, sides) == ["b"]


def test_some() -> None:
    assert some(["a", "b"]) == "a, b"
    assert some([str(i) for i in range(12)]) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more"
