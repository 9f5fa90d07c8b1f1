"""UCF-11: the tree of its archive, its folds by group, and trees with something wrong."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnact.errors import DatasetError
from attnact.extract.datasets import ucf11
from attnact.extract.datasets.base import Video, straddling_groups
from attnact.vocabulary import Split
from tests.made_files import lay

CLIPS = [f"{clip}.mpg" for clip in ucf11.official_clips()]


def few(group: str = "01") -> list[str]:
    """One clip of that group in every class."""
    return [path for path in CLIPS if path.endswith(f"_{group}_01.mpg")]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ucf11")
    lay(folder / "UCF11_updated_mpg", CLIPS)
    lay(
        folder / "UCF11_updated_mpg", ["biking/Annotation/v_biking_01_01.mpg", "walking/readme.txt"]
    )
    return folder


def test_official_list_is_the_archive(shared: Path) -> None:
    listed = (shared / "splits/ucf11/clips.txt").read_text().split()
    assert sorted(listed) == sorted(CLIPS)


def test_whole_data_set(root: Path) -> None:
    dataset = ucf11.load(root)
    assert dataset.root == root / "UCF11_updated_mpg"
    assert not dataset.multi_label
    assert dataset.warnings == ()
    assert [video.path for video in dataset.videos] == sorted(CLIPS)
    assert dataset.classes[0] == "basketball"
    assert dataset.videos[0] == Video(
        "basketball/v_shooting_01/v_shooting_01_01.mpg", (0,), "basketball/v_shooting_01"
    )
    sides = list(dataset.folds["1"])
    assert (sides.count(Split.TRAIN), sides.count(Split.TEST)) == (948, 652)
    assert list(dataset.folds)[1:] == [f"leave-{n:02d}" for n in range(1, 26)]
    left_out = {
        v.path
        for v, s in zip(dataset.videos, dataset.folds["leave-07"], strict=True)
        if s == Split.TEST
    }
    assert left_out == {path for path in CLIPS if path.split("/")[1].endswith("_07")}
    for fold in dataset.folds.values():
        assert straddling_groups(dataset.videos, fold) == []


def test_top_folder_is_the_same_data_set(root: Path) -> None:
    assert ucf11.load(root / "UCF11_updated_mpg") == ucf11.load(root)


@given(st.lists(st.tuples(st.sampled_from(ucf11.CLASSES), st.sampled_from(ucf11.GROUPS))))
def test_no_group_on_both_sides(clips: list[tuple[str, int]]) -> None:
    videos = [Video(str(i), (0,), f"{name}/{group}") for i, (name, group) in enumerate(clips)]
    for fold in ucf11.folds_by_group([group for _, group in clips]).values():
        assert straddling_groups(videos, fold) == []


def test_missing_and_extra_clips_are_named(tmp_path: Path) -> None:
    lay(tmp_path, [path for path in CLIPS if path != "swing/v_swing_03/v_swing_03_02.mpg"])
    lay(tmp_path, ["swing/v_swing_03/mine.avi", "diving/v_diving_01/v_diving_01_01.avi"])
    dataset = ucf11.load(tmp_path)
    assert len(dataset.videos) == 1601
    assert dataset.warnings == (
        "1 of the 1600 official clips are missing: swing/v_swing_03/v_swing_03_02",
        "1 clips are not among the official 1600: swing/v_swing_03/mine",
        "1 clips lie there more than once: diving/v_diving_01/v_diving_01_01",
    )


def test_many_missing_clips_are_counted(tmp_path: Path) -> None:
    lay(tmp_path, few())
    (line,) = ucf11.load(tmp_path).warnings
    assert line.startswith("1589 of the 1600 official clips are missing: basketball/v_shooting_01")
    assert line.endswith("and 1579 more")


@pytest.mark.parametrize("folder", ["v_swing", "v_swing_00", "v_swing_26", "Annotation"])
def test_folders_that_are_no_group_are_ignored(tmp_path: Path, folder: str) -> None:
    lay(tmp_path, [*few(), f"swing/{folder}/clip.mpg"])
    assert len(ucf11.load(tmp_path).videos) == 11


def test_no_root(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"no such folder; get it with .* from https://www.crcv"):
        ucf11.load(tmp_path / "absent")


def test_missing_classes(tmp_path: Path) -> None:
    lay(tmp_path, [path for path in few() if not path.startswith(("biking", "swing"))])
    with pytest.raises(DatasetError, match="no folder biking, swing; get it") as caught:
        ucf11.load(tmp_path)
    assert "\n" not in str(caught.value)


def test_still_packed(tmp_path: Path) -> None:
    lay(tmp_path, ["UCF11_updated_mpg.rar"])
    with pytest.raises(DatasetError, match=r"still packed: UCF11_updated_mpg.rar"):
        ucf11.load(tmp_path)


def test_class_without_videos(tmp_path: Path) -> None:
    lay(tmp_path, few())
    (tmp_path / "walking/v_walk_dog_01/v_walk_dog_01_01.mpg").unlink()
    with pytest.raises(DatasetError, match="no videos in the folder walking"):
        ucf11.load(tmp_path)
