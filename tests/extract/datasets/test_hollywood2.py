"""Hollywood2: its two sides, its twelve labels, and trees with something wrong."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from attnact.errors import DatasetError
from attnact.extract.datasets import hollywood2
from attnact.extract.datasets.base import Video, straddling_groups
from attnact.vocabulary import Split

SMALL = {
    "train": {"actioncliptrain00001": ["Eat"], "actioncliptrain00002": ["Kiss", "HugPerson"]},
    "test": {"actioncliptest00001": ["Run"], "actioncliptest00002": []},
}
Clips = Mapping[str, Mapping[str, Sequence[str]]]


def make(home: Path, clips: Clips = SMALL) -> None:
    """Hollywood2's folders with these clips, empty, and the lists that give them their actions."""
    (home / "AVIClips").mkdir(parents=True)
    (home / "ClipSets").mkdir()
    for side, actions_of in clips.items():
        for clip in actions_of:
            (home / "AVIClips" / f"{clip}.avi").touch()
        for action in hollywood2.CLASSES:
            lines = (f"{c}  {1 if action in held else -1}\n" for c, held in actions_of.items())
            (home / "ClipSets" / f"{action}_{side}.txt").write_text("".join(lines))


def official(shared: Path) -> Clips:
    clips = {}
    for side in ("train", "test"):
        with (shared / f"splits/hollywood2/{side}.csv").open(newline="") as file:
            clips[side] = {
                row["clip"]: [name for name in hollywood2.CLASSES if row[name] == "1"]
                for row in csv.DictReader(file)
            }
    return clips


def test_official_lists(shared: Path, tmp_path: Path) -> None:
    clips = official(shared)
    make(tmp_path / "Hollywood2", clips)
    dataset = hollywood2.load(tmp_path)
    assert dataset.warnings == ()
    assert dataset.multi_label
    sides = list(dataset.folds["1"])
    assert (sides.count(Split.TRAIN), sides.count(Split.TEST)) == (823, 884)
    assert straddling_groups(dataset.videos, sides) == []
    held = {v.path[9:-4]: [dataset.classes[label] for label in v.labels] for v in dataset.videos}
    assert held == {**clips["train"], **clips["test"]}


def test_small_tree(tmp_path: Path) -> None:
    make(tmp_path)
    dataset = hollywood2.load(tmp_path)
    first, second, third, fourth = dataset.videos
    assert first == Video("AVIClips/actioncliptrain00001.avi", (2,), "actioncliptrain00001")
    assert [second.labels, third.labels, fourth.labels] == [(6, 7), (8,), ()]
    assert dataset.folds == {"1": [Split.TRAIN, Split.TRAIN, Split.TEST, Split.TEST]}
    assert dataset.warnings == (
        "2 train clips, officially 823",
        "2 test clips, officially 884",
    )


def test_top_folder_is_the_same_data_set(tmp_path: Path) -> None:
    make(tmp_path / "Hollywood2")
    assert hollywood2.load(tmp_path / "Hollywood2") == hollywood2.load(tmp_path)


def test_scene_clips_and_autotrain_are_ignored(tmp_path: Path) -> None:
    make(tmp_path)
    for action in hollywood2.CLASSES:
        with (tmp_path / f"ClipSets/{action}_test.txt").open("a") as file:
            file.write("sceneclipautoautotrain00001  1\nscenecliptest00001  -1\n")
    (tmp_path / "ClipSets/Eat_autotrain.txt").write_text("actionclipautotrain00001  1\n")
    (tmp_path / "AVIClips/sceneclipautoautotrain00001.avi").touch()
    (tmp_path / "AVIClips/actionclipautotrain00001.avi").touch()
    assert len(hollywood2.load(tmp_path).videos) == 4


def test_missing_clip_is_named(tmp_path: Path) -> None:
    make(tmp_path)
    (tmp_path / "AVIClips/actioncliptest00001.avi").unlink()
    dataset = hollywood2.load(tmp_path)
    assert len(dataset.videos) == len(dataset.folds["1"]) == 3
    assert dataset.warnings[0] == "1 listed clips are missing in AVIClips: actioncliptest00001"


def test_no_clips(tmp_path: Path) -> None:
    make(tmp_path)
    for file in (tmp_path / "AVIClips").iterdir():
        file.unlink()
    with pytest.raises(DatasetError, match="none of the listed clips in the folder AVIClips"):
        hollywood2.load(tmp_path)


def test_no_folders(tmp_path: Path) -> None:
    (tmp_path / "Hollywood2-actions.tar.gz").touch()
    with pytest.raises(DatasetError, match=r"no folder AVIClips, ClipSets;.*tar\.gz") as caught:
        hollywood2.load(tmp_path)
    assert "\n" not in str(caught.value)


def test_missing_list(tmp_path: Path) -> None:
    make(tmp_path)
    (tmp_path / "ClipSets/Kiss_test.txt").unlink()
    with pytest.raises(DatasetError, match=r"ClipSets lacks Kiss_test.txt"):
        hollywood2.load(tmp_path)


@pytest.mark.parametrize("line", ["actioncliptrain00002", "actioncliptrain00002 0", "a b 1"])
def test_broken_list(tmp_path: Path, line: str) -> None:
    make(tmp_path)
    (tmp_path / "ClipSets/Eat_train.txt").write_text(f"actioncliptrain00001 1\n{line}\n")
    with pytest.raises(DatasetError, match=r"Eat_train.txt, line 2: .* is not a clip and 1 or -1"):
        hollywood2.load(tmp_path)


def test_lists_that_name_other_clips(tmp_path: Path) -> None:
    make(tmp_path)
    (tmp_path / "ClipSets/Run_train.txt").write_text("actioncliptrain00001 1\n")
    with pytest.raises(DatasetError, match=r"Run_train.txt names other clips than AnswerPhone"):
        hollywood2.load(tmp_path)


def test_clip_on_both_sides(tmp_path: Path) -> None:
    make(tmp_path, {"train": SMALL["train"], "test": SMALL["train"]})
    with pytest.raises(DatasetError, match="clips are in train and test lists"):
        hollywood2.load(tmp_path)
