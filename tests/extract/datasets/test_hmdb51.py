"""HMDB-51: its official lists, its hard file names, its groups, and trees with something wrong."""

from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnact.errors import DatasetError
from attnact.extract.datasets import hmdb51
from attnact.extract.datasets.base import Video, straddling_groups
from attnact.vocabulary import Split
from tests.made_files import lay

HARD = ["#1 (a) [b]!", "Jack & Jill;)~+", "Übung_é_*", "_", "eat", "50%"]


def clip(name: str, source: str = "film", number: int = 0) -> str:
    return f"{source}_{name}_f_cm_np1_fr_med_{number}.avi"


def make(root: Path, sources: Iterable[str] = ("film", "show"), lists: str = "splits") -> None:
    """A small HMDB-51: two clips a source in every class, the first source trains, others test."""
    (root / lists).mkdir(parents=True, exist_ok=True)
    for name in hmdb51.CLASSES:
        tags = {clip(name, s, n): 1 if not i else 2 for i, s in enumerate(sources) for n in (0, 1)}
        lay(root / name, tags)
        for fold in hmdb51.FOLDS:
            text = "".join(f"{file} {tag} \n" for file, tag in tags.items())
            (root / lists / f"{name}_test_split{fold}.txt").write_text(text, encoding="utf-8")


@pytest.fixture(scope="module")
def official(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All 6766 clips, empty, with the official lists, as the two archives leave them."""
    root = tmp_path_factory.mktemp("hmdb51")
    (root / "testTrainMulti_7030_splits").symlink_to(shared / "splits/hmdb51")
    for path in (shared / "splits/hmdb51").iterdir():
        name, _, fold = path.stem.partition("_test_split")
        if fold == "1":
            lines = path.read_text().splitlines()
            lay(root / name, (line.split()[0] for line in lines))
    return root


def test_official_lists(official: Path) -> None:
    dataset = hmdb51.load(official)
    assert dataset.warnings == ()
    assert dataset.root == official
    assert (len(dataset.videos), len(dataset.classes)) == (6766, 51)
    for fold in ("1", "2", "3"):
        sides = list(dataset.folds[fold])
        counts = [sides.count(side) for side in (Split.TRAIN, Split.TEST, Split.UNUSED)]
        assert counts == [3570, 1530, 1666]
        assert straddling_groups(dataset.videos, sides) == []


def test_folds_are_those_of_the_lists(official: Path, shared: Path) -> None:
    dataset = hmdb51.load(official)
    text = (shared / "splits/hmdb51/eat_test_split2.txt").read_text()
    expected = {f"eat/{line.split()[0]}": int(line.split()[1]) for line in text.splitlines()}
    sides = {v.path: s for v, s in zip(dataset.videos, dataset.folds["2"], strict=True)}
    assert {path: sides[path] for path in expected} == expected


def test_small_tree(tmp_path: Path) -> None:
    make(tmp_path)
    dataset = hmdb51.load(tmp_path)
    assert dataset.videos[0] == Video(f"brush_hair/{clip('brush_hair')}", (0,), "brush_hair/film")
    assert [v.group for v in dataset.videos[:4]] == ["brush_hair/film"] * 2 + [
        "brush_hair/show"
    ] * 2
    assert list(dataset.folds["3"][:4]) == [Split.TRAIN, Split.TRAIN, Split.TEST, Split.TEST]
    assert dataset.warnings[0] == (
        "fold 1 has 102 train, 102 test and 0 unused clips, officially 3570, 1530 and 1666"
    )


def test_hard_names(tmp_path: Path) -> None:
    make(tmp_path, sources=HARD)
    dataset = hmdb51.load(tmp_path)
    assert len(dataset.videos) == 51 * len(HARD) * 2
    assert {v.group for v in dataset.videos if v.labels == (11,)} == {f"eat/{s}" for s in HARD}
    assert all((tmp_path / v.path).is_file() for v in dataset.videos)


@pytest.mark.parametrize("lists", hmdb51.LIST_FOLDERS)
def test_lists_are_found_where_archives_leave_them(tmp_path: Path, lists: str) -> None:
    make(tmp_path, lists=lists)
    assert len(hmdb51.load(tmp_path).videos) == 204


def test_clips_one_folder_down(tmp_path: Path) -> None:
    make(tmp_path / "hmdb51_org", lists="../test_train_splits")
    dataset = hmdb51.load(tmp_path)
    assert dataset.root == tmp_path / "hmdb51_org"
    assert len(dataset.videos) == 204


def test_missing_and_extra_clips_are_named(tmp_path: Path) -> None:
    make(tmp_path)
    (tmp_path / "eat" / clip("eat")).unlink()
    lay(tmp_path, ["eat/[new]_eat_1.avi", "eat/notes.txt"])
    dataset = hmdb51.load(tmp_path)
    assert len(dataset.videos) == 203
    assert dataset.warnings[:2] == (
        f"1 listed clips are missing: eat/{clip('eat')}",
        "1 clips are in no list and left out: eat/[new]_eat_1.avi",
    )


def test_clip_in_one_list_only_is_unused_in_the_others(tmp_path: Path) -> None:
    make(tmp_path)
    (tmp_path / "splits/brush_hair_test_split2.txt").write_text("")
    dataset = hmdb51.load(tmp_path)
    assert [dataset.folds[fold][0] for fold in hmdb51.FOLDS] == [1, 0, 1]


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("AmericanGangster_eat_u_nm_np1_fr_bad_65.avi", "AmericanGangster"),
        ("how_to_eat_pie_eat_h_nm_np10_fr_goo_3.avi", "how_to_eat_pie"),
        ("no tags at all.avi", "no tags at all"),
        ("_eat_u.avi", "_eat_u"),
    ],
)
def test_source_video(file: str, source: str) -> None:
    assert hmdb51.source_video(file, "eat") == source


@given(st.text("ae_t #(.é", min_size=1), st.sampled_from(hmdb51.CLASSES), st.integers(0, 300))
def test_clips_of_a_source_share_its_group(source: str, name: str, number: int) -> None:
    assert hmdb51.source_video(clip(name, source, number), name) == source


@pytest.mark.parametrize("line", ["film.avi", "film.avi 3", "film.avi train", "1"])
def test_broken_list(tmp_path: Path, line: str) -> None:
    make(tmp_path)
    (tmp_path / "splits/eat_test_split2.txt").write_text(f"a.avi 1\n\n{line}\n")
    with pytest.raises(DatasetError, match=r"eat_test_split2.txt, line 3: .* is not a clip and 0"):
        hmdb51.load(tmp_path)


def test_no_lists(tmp_path: Path) -> None:
    lay(tmp_path, (f"{name}/{clip(name)}" for name in hmdb51.CLASSES))
    with pytest.raises(
        DatasetError, match="153 of the 153 official lists missing: brush_hair_test"
    ):
        hmdb51.load(tmp_path)


def test_one_list_missing(tmp_path: Path) -> None:
    make(tmp_path)
    (tmp_path / "splits/wave_test_split3.txt").unlink()
    with pytest.raises(DatasetError, match=r"lists missing: wave_test_split3.txt; get it with"):
        hmdb51.load(tmp_path)


def test_classes_still_packed(tmp_path: Path) -> None:
    lay(tmp_path / "hmdb51_org", (f"{name}.rar" for name in hmdb51.CLASSES))
    with pytest.raises(
        DatasetError, match=r"no folder brush_hair.*brush_hair.rar.* and 41 more"
    ) as e:
        hmdb51.load(tmp_path)
    assert "\n" not in str(e.value)


def test_class_without_videos(tmp_path: Path) -> None:
    make(tmp_path)
    for file in (tmp_path / "run").iterdir():
        file.unlink()
    with pytest.raises(DatasetError, match="no videos in the folder run"):
        hmdb51.load(tmp_path)
