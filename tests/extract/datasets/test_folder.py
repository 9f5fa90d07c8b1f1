"""Your own videos: folders of classes, CSV lists, cross-validation by group."""

import csv
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
import sklearn.model_selection  # noqa: F401  here, so that no test is charged for the import
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from attnact.errors import DatasetError
from attnact.extract.datasets import folder
from attnact.extract.datasets.base import Dataset, Video, straddling_groups
from attnact.extract.datasets.disk import videos_meant
from attnact.vocabulary import Split
from tests.made_files import lay

CLIPS = [f"{name}/{number}.mp4" for name in ("jump", "walk") for number in range(6)]


def write(path: Path, *rows: Sequence[str]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return path


def listed(root: Path, header: str, *cells: str) -> Path:
    """A list of as many clips as there are cells, classes alternating, with one more column."""
    lay(root, CLIPS)
    clips = [CLIPS[i // 2 + 6 * (i % 2)] for i in range(len(cells))]
    rows = [(clip, clip.split("/")[0], cell) for clip, cell in zip(clips, cells, strict=True)]
    return write(root / "list.csv", ("path", "label", header), *rows)


def sides(dataset: Dataset, fold: str) -> dict[str, Split]:
    return {v.path: s for v, s in zip(dataset.videos, dataset.folds[fold], strict=True)}


# Folders of classes


def test_tree(tmp_path: Path) -> None:
    lay(tmp_path, [*CLIPS, "walk/more/deep/a b #1.AVI"])
    dataset = folder.load(tmp_path)
    assert dataset.root == tmp_path
    assert dataset.classes == ("jump", "walk")
    assert dataset.warnings == ()
    assert [v.path for v in dataset.videos] == [*CLIPS, "walk/more/deep/a b #1.AVI"]
    assert dataset.videos[-1] == Video("walk/more/deep/a b #1.AVI", (1,), dataset.videos[-1].path)
    assert list(dataset.folds) == ["1", "2", "3", "4", "5"]


def test_links_to_folders_are_followed(tmp_path: Path) -> None:
    """But none into what is walked anyway: a video would stand there twice, or for ever."""
    videos, day = tmp_path / "videos", tmp_path / "elsewhere/day2"
    lay(tmp_path, ["videos/dive/z/a.avi", "videos/run/b.avi", "elsewhere/day2/c.avi"])
    (videos / "run/day2").symlink_to(day)
    for link, target in (
        (videos / "dive/best", videos / "dive/z"),
        (videos / "run/also", videos / "dive"),
        (videos / "run/again", day),
        (videos / "run/up", tmp_path),
        (day / "circle", day),
    ):
        link.symlink_to(target)
    found = folder.scan(videos)
    assert found.paths == ["dive/z/a.avi", "run/b.avi", "run/again/c.avi"]
    assert found.labels == ["dive", "run", "run"]
    meant = videos_meant(videos)
    assert [file.relative_to(videos).as_posix() for file in meant] == sorted(found.paths)


def test_hidden_files_are_passed_over_and_others_named(tmp_path: Path) -> None:
    lay(tmp_path, [*CLIPS, ".git/a.mp4", "walk/._0.mp4", "walk/.x/a.mp4", ".DS_Store"])
    lay(tmp_path, ["readme.txt", "beside.mp4", "walk/notes.txt", "docs/a.pdf"])
    (tmp_path / "walk/gone.mp4").symlink_to(tmp_path / "nowhere")
    dataset = folder.load(tmp_path)
    assert [v.path for v in dataset.videos] == CLIPS
    assert dataset.warnings == (
        "5 files are no videos of a class: "
        "beside.mp4, docs/a.pdf, readme.txt, walk/gone.mp4, walk/notes.txt",
        "1 folders have no videos: docs",
    )


@pytest.mark.parametrize(
    ("names", "classes"),
    [
        (["10", "9", "-1", "07"], ("-1", "07", "9", "10")),
        (["10", "9", "b"], ("10", "9", "b")),
        (["b", "ä", "B"], ("B", "b", "ä")),
    ],
)
def test_class_order(names: list[str], classes: tuple[str, ...]) -> None:
    assert folder.in_order(names * 2) == classes


@pytest.mark.parametrize("paths", [[], ["a.mp4"], ["walk/notes.txt"]])
def test_no_videos(tmp_path: Path, paths: list[str]) -> None:
    lay(tmp_path, paths)
    with pytest.raises(DatasetError, match="no videos in its sub-folders; give a folder"):
        folder.load(tmp_path)


def test_no_root(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no such folder or file"):
        folder.load(tmp_path / "absent")


def test_one_class(tmp_path: Path) -> None:
    lay(tmp_path, CLIPS[:6])
    with pytest.raises(DatasetError, match="all videos are of one class, jump"):
        folder.load(tmp_path)


def test_name_that_is_not_utf8(tmp_path: Path) -> None:
    lay(tmp_path, CLIPS)
    try:
        (tmp_path / "walk" / "caf\udce9.mp4").touch()
    except OSError:
        pytest.skip("this file system refuses names that are not UTF-8")
    with pytest.raises(DatasetError, match="not UTF-8; rename the file") as caught:
        folder.load(tmp_path)
    str(caught.value).encode()


# Lists


def test_list_with_folds(tmp_path: Path) -> None:
    lay(tmp_path, CLIPS)
    rows = [("Label", "group", "PATH", "day 1", "B")]
    rows += [
        (f"class {i % 2}", "", c, ("train", "TEST")[i % 2], ("Test", "")[i // 9])
        for i, c in enumerate(CLIPS)
    ]
    rows[-1] = ("class 1", "", CLIPS[-1], " unused ", "train")
    dataset = folder.load(write(tmp_path / "list.csv", *rows))
    assert dataset.root == tmp_path
    assert dataset.classes == ("class 0", "class 1")
    assert [v.path for v in dataset.videos] == CLIPS
    assert [v.group for v in dataset.videos] == CLIPS
    assert list(dataset.folds["day 1"]) == [Split.TRAIN, Split.TEST] * 5 + [
        Split.TRAIN,
        Split.UNUSED,
    ]
    assert list(dataset.folds["B"]) == [Split.TEST] * 9 + [Split.UNUSED] * 2 + [Split.TRAIN]


def test_list_without_folds_is_cross_validated_by_group(tmp_path: Path) -> None:
    dataset = folder.load(listed(tmp_path, "group", *"aabbccdd"), folds=4)
    assert [v.group for v in dataset.videos] == list("aabbccdd")
    assert list(dataset.folds) == ["1", "2", "3", "4"]
    for fold in dataset.folds.values():
        assert straddling_groups(dataset.videos, fold) == []


def test_excel_list(tmp_path: Path) -> None:
    """A byte order mark, carriage returns, blank lines, blanks after commas, quoted cells."""
    lay(tmp_path, ["a, b.mp4", "c.mp4"])
    text = '\ufeffpath, label, fold\r\n"a, b.mp4", "x ""y""", train\r\n\r\n,,\r\nc.mp4, z, test\r\n'
    (tmp_path / "list.csv").write_bytes(text.encode())
    dataset = folder.load(tmp_path / "list.csv")
    assert [v.path for v in dataset.videos] == ["a, b.mp4", "c.mp4"]
    assert dataset.classes == ('x "y"', "z")


def test_paths_outside_the_lists_folder(tmp_path: Path) -> None:
    lay(tmp_path, ["data/a/1.mp4", "data/b/2.mp4"])
    (tmp_path / "lists").mkdir()
    rows = [("path", "label", "f"), ("../data/a/1.mp4", "x", "train")]
    rows += [(str(tmp_path / "data/b/2.mp4"), "y", "test")]
    dataset = folder.load(write(tmp_path / "lists/list.csv", *rows))
    assert dataset.root == tmp_path / "data"
    assert [v.path for v in dataset.videos] == ["a/1.mp4", "b/2.mp4"]


def test_relative_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = listed(tmp_path, "fold", "train", "test")
    monkeypatch.chdir(tmp_path)
    assert folder.load(Path(file.name)) == folder.load(file)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"must be path,label\[,group\]\[,folds\], with commas: ''"),
        ("path;label\na;b\n", "the first line must be .*: 'path;label'"),
        ("path,label,\njump/0.mp4,x,\n", "column without a name"),
        ("path,label,a,a\njump/0.mp4,x,train,train\n", "or one twice"),
        ("path,label,a/b\njump/0.mp4,x,train\n", "'a/b' cannot name a fold"),
        ("path,label\n", "lists no videos"),
        ("path,label\njump/0.mp4\n", "line 2: 1 cells, the header has 2; mend it"),
        ("path,label\njump/0.mp4,\n", "line 2: no path or no label"),
        ("path,label\n\n,walk\n", "line 3: no path or no label"),
        ("path,label\njump/0.mp4,x\njump/../jump/0.mp4,x\n", "line 3: .* is on line 2 already"),
        (
            "path,label,f\njump/0.mp4,x,val\n",
            "line 2: 'val' in the column 'f'; .* train, test or un",
        ),
        (
            "path,label\nwalk/0.mp4,x\nb.mp4,x\nc.mp4,x\n",
            "2 of 3 listed videos are not on disk: .*b.mp",
        ),
        ('path,label\n"jump/0.mp4"x,x\n', "line 2: not CSV"),
    ],
)
def test_refused_lists(tmp_path: Path, text: str, message: str) -> None:
    lay(tmp_path, CLIPS)
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(DatasetError, match=message) as caught:
        folder.load(tmp_path / "list.csv")
    assert str(tmp_path / "list.csv") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_list_that_is_not_text(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_bytes("path,label\ncafé.mp4,x\n".encode("latin-1"))
    with pytest.raises(DatasetError, match="not UTF-8 text; give a folder, or a list saved as"):
        folder.load(tmp_path / "list.csv")


def test_group_on_both_sides_of_a_fold_column(tmp_path: Path) -> None:
    lay(tmp_path, CLIPS)
    rows = [
        (clip, clip[:4], "a", side)
        for clip, side in zip(CLIPS[4:8], ["train", "test"] * 2, strict=True)
    ]
    file = write(tmp_path / "list.csv", ("path", "label", "group", "mine"), *rows)
    with pytest.raises(DatasetError, match="fold mine has groups both in train and in test: a;"):
        folder.load(file)


@pytest.mark.parametrize("cells", [("train", "train"), ("", "test"), ("", "")])
def test_fold_column_with_an_empty_side(tmp_path: Path, cells: tuple[str, str]) -> None:
    with pytest.raises(DatasetError, match="fold mine has no videos in train or in test"):
        folder.load(listed(tmp_path, "mine", *cells))


# Cross-validation


def test_folds_are_seeded_and_stratified(tmp_path: Path) -> None:
    lay(tmp_path, [f"{name}/{i:02d}.mkv" for name in "ab" for i in range(15)])
    dataset = folder.load(tmp_path, folds=3, seed=1)
    assert dataset.folds == folder.load(tmp_path, folds=3, seed=1).folds
    assert dataset.folds != folder.load(tmp_path, folds=3, seed=2).folds
    for fold in dataset.folds:
        tested = [path[0] for path, side in sides(dataset, fold).items() if side == Split.TEST]
        assert (tested.count("a"), tested.count("b")) == (5, 5)


def test_too_few_groups(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="5 folds need as many groups, and there are 3; ask"):
        folder.load(listed(tmp_path, "group", *"aabbcc"))


def test_too_few_videos_of_every_class(tmp_path: Path) -> None:
    lay(tmp_path, ["a/1.mp4", "a/2.mp4", "b/1.mp4", "b/2.mp4"])
    with pytest.raises(DatasetError, match="3 folds need a class with as many videos"):
        folder.load(tmp_path, folds=3)


def test_rare_classes_are_named(tmp_path: Path) -> None:
    lay(tmp_path, [*CLIPS, "rare/1.mp4"])
    (line,) = folder.load(tmp_path).warnings
    assert line == "not in the test side of every fold, too few groups: rare"


def test_one_fold(tmp_path: Path) -> None:
    lay(tmp_path, CLIPS)
    with pytest.raises(ValueError, match="folds must be 2 or more, not 1"):
        folder.load(tmp_path, folds=1)
    with pytest.raises(ValueError, match="seed must be from 0 to"):
        folder.load(tmp_path, folds=2, seed=-1)


def test_folds_that_a_list_has_are_those(tmp_path: Path) -> None:
    lay(tmp_path, CLIPS)
    lines = [f"{clip},{i % 2},{'test' if i < 2 else 'train'}" for i, clip in enumerate(CLIPS)]
    (tmp_path / "list.csv").write_text("\n".join(["path,label,mine", *lines]))
    assert folder.load(tmp_path / "list.csv").warnings == ()
    dataset = folder.load(tmp_path / "list.csv", folds=3)
    assert list(dataset.folds) == ["mine"]
    (line,) = dataset.warnings
    assert line.startswith("--folds and --seed are not used: ")
    assert line.endswith("has the folds mine")


@st.composite
def grouped_videos(draw: st.DrawFn) -> list[Video]:
    """Videos of four classes in groups of any mix."""
    labels = st.lists(st.integers(0, 3), min_size=1, max_size=5)
    groups = draw(st.lists(labels, min_size=2, max_size=12))
    return [
        Video(f"{group}-{i}", (label,), str(group))
        for group, labels_of_group in enumerate(groups)
        for i, label in enumerate(labels_of_group)
    ]


@settings(max_examples=50)
@given(grouped_videos(), st.integers(2, 6), st.integers(0, 9))
def test_no_group_on_both_sides(videos: list[Video], number: int, seed: int) -> None:
    assume(len({video.group for video in videos}) >= number)
    assume(max(Counter(video.labels for video in videos).values()) >= number)
    folds = folder.cross_validation(Path("x"), videos, number, seed)
    assert list(folds) == [str(k) for k in range(1, number + 1)]
    for fold in folds.values():
        assert straddling_groups(videos, fold) == []
    assert all([*video].count(Split.TEST) == 1 for video in zip(*folds.values(), strict=True))
