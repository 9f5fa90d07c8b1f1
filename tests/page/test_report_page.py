"""The report: the page says what the files say, and no name of a file can act on it."""

import base64
import csv
import hashlib
import io
import re
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from attnact.cache.features import FeatureCache
from attnact.cache.tables import index_digest
from attnact.cli import main
from attnact.errors import RunError
from attnact.extract.frames.video import read_frames
from attnact.model.checkpoint import load_checkpoint
from attnact.page.pool import Guess, PoolVideo, choose
from attnact.page.read import (
    find_runs,
)
from attnact.page.write import UNIT, write_page
from attnact.train.feed.clips import scored_clips
from attnact.train.feed.store import open_store
from attnact.train.runs import open_run
from attnact.train.scoring.looks import frame_maps
from attnact.train.scoring.predictions import Predictions
from attnact.train.scoring.scores import average_precisions
from tests.made_report import CPU, HOSTILE, RUNS, Page, train_runs

VIDEO = "video (features of random weights)"


@pytest.fixture(scope="module")
def work(report_folder: Path) -> Path:
    return report_folder


@pytest.fixture(scope="module")
def page(work: Path) -> Page:
    return Page(work / "report.html")


def predictions(run: Path) -> list[dict[str, str]]:
    with (run / "predictions.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_nothing_is_asked_of_the_network(page):
    addresses = [
        value
        for _, attributes in page.tags
        for name, value in attributes.items()
        if name in ("href", "src", "action", "data", "srcset", "poster", "xlink:href") and value
    ]
    assert addresses
    assert all(address.startswith(("#", "data:")) for address in addresses)
    assert "http://" not in page.source
    assert "https://" not in page.source
    assert not re.search(r"url\(|@import|fetch\(|XMLHttp|import\(", page.source)


def test_only_its_own_script_may_run(page):
    policy = page.all("meta", "content")[0]
    digest = base64.b64encode(hashlib.sha256(page.scripts[-1].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'")
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]


def test_names_of_strangers_are_text(page):
    assert len(page.scripts) == 2
    assert "alert(1)" not in page.scripts[1]
    assert "<img src=x>" not in page.source
    assert all(name in page.text for name in HOSTILE)
    guesses = [guess for video in page.data["videos"] for guess in video["guesses"] if guess]
    assert {name for guess in guesses for name, _ in guess["best"]} <= set(HOSTILE)


def test_random_weights_are_said_at_the_top(page):
    said = page.text.index("Features of random weights.")
    assert said < page.text.index("Learning curves")


def test_only_what_differs_is_compared(page):
    header, *rows = page.tables[0]
    differ = ["model", "attention_penalty", "validation"]
    assert header == ["name", "metric", "%", "folds", "seeds", *differ]
    shown = {row[0]: row[3:] for row in rows}
    assert shown == {
        "first": ["1, 2", "0", "attention", "0", "0"],
        "even": ["1", "0", "attention", "10", "0.15"],
        "mean": ["1", "0", "average", "–", "0"],
    }
    assert page.source.index('<dl id="common">') > 0
    assert "hidden_size" in page.text
    shared = re.search(r'<dl id="common">.*?</dl>', page.source, re.DOTALL)[0]
    assert "<dt>features</dt><dd>googlenet, random" in shared
    assert "<dt>cache</dt><dd>small (" in shared


def test_one_run_has_nothing_to_compare(work, tmp_path):
    write_page([work / "runs/mean"], tmp_path / "one.html", 0, CPU)
    assert Page(tmp_path / "one.html").tables[0][0] == ["name", "metric", "%", "folds", "seeds"]


def test_metrics_and_counts_are_those_of_the_predictions(work, page):
    runs = {row[0]: row for row in page.tables[1][1:]}
    trained = {name: open_run(work / "runs" / name).summary()["epochs"] for name in RUNS}
    assert {name: int(row[3]) for name, row in runs.items()} == trained
    for name in RUNS:
        rows = predictions(work / "runs" / name)
        right = np.mean([row["label"] == row["prediction"] for row in rows])
        assert runs[name][-2:] == [str(len(rows)), f"{100 * right:.2f}"]
    both = [row for name in list(RUNS)[:2] for row in predictions(work / "runs" / name)]
    matrices = [table for table in page.tables if table[0][0] == "true \\ predicted"]
    settings = [row[0] for row in page.tables[0][1:]]
    table = matrices[settings.index("first")]
    assert table[0][1:4] == HOSTILE
    for row in table[1:]:
        of_class = [it["prediction"] for it in both if it["label"] == row[0]]
        assert row[1:4] == [str(of_class.count(name)) for name in HOSTILE]
        assert row[-1] == str(len(of_class))


def test_guesses_are_those_of_the_predictions(work, page):
    """The first run of a setting that tests a video speaks for it."""
    rows = {row[VIDEO]: row for name in RUNS for row in predictions(work / "runs" / name)}
    mean = {row[VIDEO]: row for row in predictions(work / "runs/mean")}
    named = [alt.split(" frames of ")[1] for alt in page.all("img", "alt")]
    assert sorted(named) == sorted(rows)
    number = [it["name"] for it in page.data["settings"]].index("mean")
    assert not page.data["settings"][number]["attends"]
    for path, video in zip(named, page.data["videos"], strict=True):
        guess = video["guesses"][number]
        assert (guess is None) == (path not in mean)
        if guess is not None:
            (best, score), _ = guess["best"]
            assert best == mean[path]["prediction"]
            assert score == max(float(mean[path][name]) for name in HOSTILE)
            assert guess["right"] == (best == mean[path]["label"])
            assert guess["maps"] is None


def test_maps_and_frames_are_those_of_the_model(work, page):
    run = open_run(work / "runs/even")
    cache = run.open_cache()
    store = open_store(cache, np.arange(3), "host", CPU)
    clips = scored_clips(cache, np.arange(3), run.config)
    looks = frame_maps(cache, load_checkpoint(run.model).model, store, clips, 8)
    number = [it["name"] for it in page.data["settings"]].index("even")
    named = [alt.split(" frames of ")[1] for alt in page.all("img", "alt")]
    strips = page.all("img", "src")
    for video in range(3):
        card = named.index(cache.paths[video])
        shown = page.data["videos"][card]
        assert (len(shown["frames"]), shown["frames"][0]) == (8, 0)
        assert shown["frames"][-1] == cache.rows[video].frames - 1
        maps = np.array(shown["guesses"][number]["maps"]) / UNIT
        np.testing.assert_allclose(maps, looks[video].maps[shown["frames"]], atol=0.6 / UNIT)
        strip = Image.open(io.BytesIO(base64.b64decode(strips[card].partition(",")[2])))
        width, height = shown["size"]
        assert strip.size == (8 * width, height)
        every = list(read_frames(work / cache.paths[video]))
        for i, frame in enumerate(shown["frames"]):
            part = np.asarray(strip.crop((i * width, 0, (i + 1) * width, height)), float)
            assert np.argmin([np.abs(part - it).mean() for it in every]) == frame


def test_tables_of_the_folder(page):
    assert [
        ["λ", "accuracy %", "a", "b", "seeds"],
        ["0", "1.00", "<b>2</b>", "3", "1"],
    ] in page.tables
    labels = page.all("svg", "aria-label")
    assert "accuracy %; a dot a seed" in labels
    assert "Training loss, by epoch" in labels
    assert "Metric on the held-out videos, by epoch" in labels


def test_without_a_cache_there_is_no_gallery(work, tmp_path):
    shutil.copytree(work / "runs/even", tmp_path / "even")
    config = (tmp_path / "even/config.json").read_text().replace("small.h5", "gone.h5")
    (tmp_path / "even/config.json").write_text(config)
    (note,) = write_page([tmp_path / "even"], tmp_path / "report.html", 24, CPU)
    assert note.startswith("Not in the gallery: even: ")
    assert "gone.h5: no such file" in note
    page = Page(tmp_path / "report.html")
    assert note in page.text
    assert "No videos to show here" in page.text
    assert page.tables[0][1][0] == "even"


def test_missing_videos_and_models_are_named(work, tmp_path, monkeypatch):
    shutil.copytree(work / "runs/even", tmp_path / "even")
    (tmp_path / "even/model.safetensors").unlink()
    cache = open_run(work / "runs/even").open_cache()
    there = Path.is_file
    gone = cache.root / cache.paths[0]
    monkeypatch.setattr(Path, "is_file", lambda path: path != gone and there(path))
    notes = write_page([tmp_path / "even"], tmp_path / "report.html", 24, CPU)
    assert notes[0] == f"Not in the gallery: {gone}: no such file"
    assert "even has no maps here" in notes[1]
    videos = Page(tmp_path / "report.html").data["videos"]
    assert [video["guesses"][0]["maps"] for video in videos] == [None, None]


def test_a_file_that_lost_frames_is_left_out(work, tmp_path, monkeypatch):
    monkeypatch.setattr("attnact.page.gallery.read_frames", lambda path: iter(()))
    notes = write_page([work / "runs/mean"], tmp_path / "report.html", 1, CPU)
    assert len(notes) == 1
    assert "changed since its features were made" in notes[0]


def test_a_file_of_another_size_is_left_out(work, tmp_path, monkeypatch):
    """Its maps would lie over the frames of another video."""
    whole = write_page([work / "runs/mean"], tmp_path / "report.html", 24, CPU)
    monkeypatch.setattr(FeatureCache, "changed", lambda cache, video: True)
    notes = write_page([work / "runs/mean"], tmp_path / "report.html", 24, CPU)
    assert whole == []
    assert all("changed since its features were made" in note for note in notes)
    assert notes
    assert "videos" not in Page(tmp_path / "report.html").data


def test_maps_of_another_part_of_the_frame_are_not_drawn(work, make_cache, tmp_path):
    """One run saw the whole of the frames, the other their centre."""
    cropped = make_cache(tmp_path / "cropped.h5", classes=HOSTILE, root=work)
    with h5py.File(cropped.path, "r+") as file:
        file["provenance"].attrs["resize"] = "crop"
        file.attrs["digest"] = index_digest(file)
    train_runs(tmp_path, FeatureCache(cropped.path), {"centre": {"fold": "1"}})
    runs = [work / "runs/even", tmp_path / "centre"]
    notes = write_page(runs, tmp_path / "report.html", 24, CPU)
    assert notes == ["centre has no maps here: it saw another part of the frames"]
    for video in Page(tmp_path / "report.html").data["videos"]:
        assert [guess["maps"] is None for guess in video["guesses"]] == [False, True]


def test_unfinished_and_damaged_runs(work, tmp_path):
    for name, of in (("even", "even"), ("mean", "mean"), ("broken", "mean")):
        shutil.copytree(work / "runs" / of, tmp_path / "runs" / name)
    (tmp_path / "runs/mean/summary.json").unlink()
    (tmp_path / "runs/broken/config.json").write_text("{}")
    notes = write_page([tmp_path / "runs"], tmp_path / "report.html", 0, CPU)
    assert "broken/config.json: damaged" in notes[0]
    assert notes[1] == "Not finished: mean"
    with pytest.raises(RunError, match="damaged"):
        write_page([tmp_path / "runs/broken"], tmp_path / "report.html", 0, CPU)
    (tmp_path / "runs/even/predictions.csv").write_text("video,label,prediction,a\nx,b,a,0.5\n")
    with pytest.raises(RunError, match=r"predictions\.csv: cannot be read"):
        find_runs([tmp_path / "runs/even"])


def test_a_damaged_table_leaves_the_rest(work, tmp_path):
    shutil.copytree(work / "runs/even", tmp_path / "runs/even")
    (tmp_path / "runs/sweep.csv").write_bytes(b"\xe4,b\n")
    notes = write_page([tmp_path / "runs"], tmp_path / "report.html", 0, CPU)
    assert len(notes) == 1
    assert re.match(r"Left out: .*runs/sweep\.csv: cannot be read", notes[0])


def test_the_same_run_in_two_folders_counts_once(work, tmp_path):
    """As a sweep has the run again that was trained before it; an unfinished one gives way."""
    for name in ("a", "b", "c"):
        shutil.copytree(work / "runs/mean", tmp_path / "runs" / name)
    (tmp_path / "runs/a/summary.json").unlink()
    notes = write_page([tmp_path / "runs"], tmp_path / "report.html", 0, CPU)
    assert notes == ["Not finished: a", "Left out: c: the same choices as b"]
    page = Page(tmp_path / "report.html")
    assert [row[0] for row in page.tables[1][1:]] == ["b"]
    (matrix,) = (it for it in page.tables if it[0][0] == "true \\ predicted")
    assert sum(int(row[-1]) for row in matrix[1:]) == len(predictions(tmp_path / "runs/b"))


def test_runs_and_tables_are_found_at_any_depth(work, tmp_path):
    """As `train` and the sweeps of two data sets lay them; one link leads in a circle."""
    one, other = tmp_path / "runs/ucf11", tmp_path / "runs/hmdb51"
    shutil.copytree(work / "runs/even", one / "first")
    for sweep in (one / "lambda", other / "lambda"):
        shutil.copytree(work / "runs/mean", sweep / f"{sweep.parent.name}-fold1-seed0")
        shutil.copy(work / "runs/sweep.csv", sweep)
    (one / "lambda/up").symlink_to(tmp_path / "runs")
    (other / "notes").mkdir()
    runs, notes = find_runs([one / "lambda", tmp_path / "runs"])
    assert [run.name for run in runs] == ["ucf11-fold1-seed0", "hmdb51-fold1-seed0", "first"]
    assert notes == []
    write_page([tmp_path / "runs", one], tmp_path / "report.html", 0, CPU)
    titles = re.findall(r"<h3>(The sweep .*)</h3>", Page(tmp_path / "report.html").source)
    assert titles == [
        f"The sweep over the attention penalty λ ({it / 'lambda'})" for it in (other, one)
    ]
    with pytest.raises(RunError, match="neither a run nor a folder of runs"):
        find_runs([other / "notes"])


def test_average_precisions_where_several_classes_hold(multi_label_cache, tmp_path):
    train_runs(tmp_path, multi_label_cache, {"several": {"fold": "wide", "epochs": 1}})
    notes = write_page([tmp_path / "several"], tmp_path / "report.html", 24, CPU)
    assert all("no such file" in note for note in notes)  # this cache never had videos
    page = Page(tmp_path / "report.html")
    rows = predictions(tmp_path / "several")
    names = multi_label_cache.classes
    labels = np.array([[name in row["label"].split("|") for name in names] for row in rows])
    scores = np.array([[float(row[name]) for name in names] for row in rows])
    expected = average_precisions(scores, labels.astype(np.int64))
    (table,) = (it for it in page.tables if it[0][0] == "class")
    assert [row[:2] for row in table[1:]] == [
        [name, f"{100 * value:.1f}"] for name, value in zip(names, expected, strict=True)
    ]
    assert page.tables[0][1][1:3] == ["mAP", f"{100 * expected.mean():.2f}"]


def test_videos_are_chosen_fairly():
    """Ten of class a, four of them wrong; two of class b, both right; one of class c, wrong."""
    classes, names = ["a", "b", "c"], "aaaaaaaaaabbc"
    wrong = [0, 1, 2, 3, 12]
    labels = np.array([classes.index(name) for name in names])
    guessed = [(label + (i in wrong)) % 3 for i, label in enumerate(labels)]
    made = Predictions(classes, list(map(str, range(13))), labels, np.eye(3)[guessed])
    pool: Any = {Path(str(i)): PoolVideo(None, i, {0: Guess(None, made, i)}) for i in range(13)}  # type: ignore[arg-type]
    chosen = [int(path.name) for path in choose(pool, 7)]
    assert "".join(names[i] for i in chosen) == "abcabaa"
    assert [i in wrong for i in chosen if names[i] == "a"] == [False, True, False, True]
    assert len({names[int(path.name)] for path in choose(pool, 2)}) == 2
    assert len(choose(pool, 99)) == 13
    assert choose(pool, 0) == []


def test_the_command(work, tmp_path):
    out = tmp_path / "new" / "page.html"
    arguments = ["report", str(work / "runs/even"), "-o", str(out), "--videos", "1"]
    result = CliRunner().invoke(main, arguments)
    assert (result.exit_code, result.stdout) == (0, f"{out}\n")
    assert len(Page(out).data["videos"]) == 1
    result = CliRunner().invoke(main, ["report", str(tmp_path)])
    assert result.exit_code == 1
    assert "neither a run nor a folder of runs" in result.stderr
