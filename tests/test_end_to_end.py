"""Videos to pictures through the command line, on a few tiny clips."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

import attnact as attnact_package
from attnact.attend import missing_encoder
from attnact.cache.features import FeatureCache
from attnact.cli import main
from attnact.demo import draw_videos

SMALL = [
    *("--lstm-layers", "1", "--hidden-size", "8", "--epochs", "2"),
    *("--batch-size", "4", "--train-stride", "30"),
]


def attnact(*arguments: object) -> Result:
    """Runs a command as a user would; what it raises and does not tell is raised here."""
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def width(picture: Path) -> int:
    """Of a picture that opens, in pixels."""
    with Image.open(picture) as image:
        image.load()
        return image.size[0]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with twelve clips, one of them broken, and their cache of random weights."""
    folder = tmp_path_factory.mktemp("work")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        draw_videos(Path("videos"), Path("balls.csv"), scenes=3)
        Path("videos/scene02 red.avi").write_bytes(b"not a video")
        result = attnact("features", "folder", "--videos", "balls.csv", "--weights", "random")
        assert result.exit_code == 3
        assert "failed: videos/scene02 red.avi: not a video" in result.stderr
        assert "1 of 12 videos failed" in result.stderr
        assert (
            "so leave them there; when they are mended, delete " in result.stderr.splitlines()[-1]
        )
        assert "random weights" in result.stderr
    return folder


@pytest.fixture(autouse=True)
def in_work(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(work)


def test_features_again_makes_nothing_new():
    before = {file: file.read_bytes() for file in Path("features").rglob("*.h5")}
    result = attnact("features", "folder", "--videos", "balls.csv", "--weights", "random")
    assert result.exit_code == 3
    assert "all 1 shards of features/balls.h5 are there" in result.stderr
    assert {file: file.read_bytes() for file in Path("features").rglob("*.h5")} == before


def test_dry_run_shows_the_plan_and_writes_nothing(tmp_path):
    out = tmp_path / "new.h5"
    result = attnact(
        *("features", "folder", "--videos", "balls.csv", "--weights", "random"),
        *("--out", out, "--dry-run"),
    )
    assert result.exit_code == 0
    assert "12 videos, 4 classes" in result.stdout
    assert "GiB" in result.stdout
    assert not list(tmp_path.iterdir())


def test_cache_info_and_verify():
    info = attnact("cache", "info").stdout
    assert "11 videos" in info
    assert "weights_are_random: true" in info
    assert "failed: videos/scene02 red.avi" in info
    result = attnact("cache", "verify", "balls")
    assert (result.exit_code, "0 of 11 videos damaged" in result.stdout) == (0, True)


@pytest.fixture(scope="module")
def run(work: Path) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(work)
        result = attnact("train", "--name", "first", "--validation=0", *SMALL)
    assert result.exit_code == 0
    assert "runs/balls/first: accuracy" in result.stdout
    assert "random weights" in result.stderr
    return Path("runs/balls/first")


def test_a_run_leaves_what_it_should(run):
    names = {file.name for file in run.iterdir()}
    assert names >= {
        *("config.json", "metrics.jsonl", "last.ckpt"),
        *("model.safetensors", "predictions.csv", "summary.json"),
    }
    assert json.loads((run / "summary.json").read_text())["random_weights"] is True


def test_a_run_is_never_overwritten(run):
    before = (run / "model.safetensors").read_bytes()
    result = attnact("train", "--name", "first", *SMALL)
    assert result.exit_code == 1
    assert result.stderr.startswith("attnact: error: runs/balls/first: holds a run; --resume it")
    assert (run / "model.safetensors").read_bytes() == before


def test_evaluate_gives_the_result_again(run):
    value = json.loads((run / "summary.json").read_text())["value"]
    predictions = (run / "predictions.csv").read_text()
    result = attnact("evaluate", run)
    assert f"accuracy {value:.4f}" in result.stdout
    assert result.stdout.endswith(f"\n{run}/confusion.png\n")
    assert (run / "predictions.csv").read_text() == predictions
    with (run / "confusion.csv").open() as file:
        rows = list(csv.reader(file))
    counts = np.array([row[1:] for row in rows[1:]], int)
    assert np.trace(counts) / counts.sum() == pytest.approx(value)
    assert width(run / "confusion.png") > 100


def test_visualize_draws_a_strip_and_a_movie_of_each_class(run):
    result = attnact("visualize", run)
    pictures = [Path(line) for line in result.stdout.splitlines()]
    strips = [picture for picture in pictures if picture.suffix == ".png"]
    assert len(strips) == len(FeatureCache(Path("features/balls.h5")).classes)
    assert all(width(picture) > 500 for picture in strips)
    movies = [picture for picture in pictures if picture.suffix == ".mp4"]
    assert len(movies) == 0 if missing_encoder() else len(strips)


def test_visualize_draws_what_is_in_no_cache(run, tmp_path):
    """The same file under another name gives the same picture, but for its title."""
    shutil.copy("videos/scene00 blue.avi", tmp_path / "mine.avi")
    (tmp_path / "bad.avi").write_text("no video")
    out = tmp_path / "out"
    result = attnact("visualize", run, tmp_path, "--out", out, "--gif")
    assert result.exit_code == 3
    assert "failed: " in result.stderr
    assert "bad.avi: not a video" in result.stderr
    assert {file.name for file in out.iterdir()} >= {"mine.avi.png", "mine.avi.gif"}
    assert not list(out.glob("bad*"))
    attnact("visualize", run, "videos/scene00 blue.avi", "--out", out, "--gif")
    with Image.open(out / "mine.avi.gif") as own, Image.open(next(out.glob("*blue*.gif"))) as other:
        assert own.n_frames == other.n_frames > 20
        own_pixels, others = (np.asarray(it.convert("RGB"))[40:] for it in (own, other))
    assert own_pixels.shape == others.shape
    assert abs(own_pixels.astype(int) - others).mean() < 1


def test_predict_scores_a_test_video_as_evaluate_does(run):
    """The scores of `predictions.csv`, from the files, to what another batch rounds otherwise."""
    with (run / "predictions.csv").open() as file:
        header, *expected = csv.reader(file)
    assert len(expected) >= 3
    result = attnact("predict", run, *(row[0] for row in expected), "--csv")
    assert result.exit_code == 0
    assert "random weights" in result.stderr
    assert "trained on" not in result.stderr
    columns, *rows = csv.reader(result.stdout.splitlines())
    assert columns == ["video (features of random weights)", "prediction", *header[3:]]
    assert [row[:2] for row in rows] == [[row[0], row[2]] for row in expected]
    scores, due = (np.array([row[i:] for row in it], float) for i, it in ((2, rows), (3, expected)))
    np.testing.assert_allclose(scores, due, atol=1e-4)


def test_predict_passes_over_what_does_not_decode(run, tmp_path):
    (tmp_path / "list.txt").write_text(
        "".join(f"{Path('videos').resolve()}/scene02 {name}.avi\n" for name in ("red", "blue"))
    )
    result = attnact("predict", run, tmp_path / "list.txt", "nobody.avi", "--top", "2")
    assert result.exit_code == 3
    (line,) = result.stdout.splitlines()
    found = attnact_package.load(run).predict("videos/scene02 blue.avi").top(2)
    assert line.split()[-4:] == [word for name, score in found for word in (name, f"{score:.3f}")]
    assert "videos/scene02 red.avi: not a video" in result.stderr
    assert "nobody.avi: cannot be opened" in result.stderr
    assert "2 of 3 videos failed" in result.stderr
    assert "the run was trained on 1 of these 3 videos, /" in result.stderr


def test_the_few_lines_of_the_readme(run, capsys):
    """As they stand there, but for the names of the run and the video."""
    readme = (Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")
    lines = readme.split("```python\n")[1].split("```")[0]
    assert len(lines.splitlines()) < 10
    video = "videos/scene00 blue.avi"
    exec(lines.replace("runs/hmdb51/first", str(run)).replace("mine.mp4", video), found := {})
    top = found["recogniser"].predict(video).top(3)
    assert str(top) in capsys.readouterr().out
    assert found["recogniser"].attend(video).maps.shape[1] == 49


def test_predict_in_json_and_over_time(run):
    video = "videos/scene00 blue.avi"
    whole = json.loads(attnact("predict", run, video, "--json").stdout)
    assert whole["video"] == video
    assert whole["random_weights"] is True
    assert whole["prediction"] == max(whole["scores"], key=whole["scores"].get)
    assert sum(whole["scores"].values()) == pytest.approx(1)
    result = attnact("predict", run, video, "videos/scene02 red.avi", "--timeline")
    assert result.exit_code == 3
    header, *rows = csv.reader(result.stdout.splitlines())
    assert header[1:] == ["start", "end", *whole["scores"]]
    assert header[0] == "video (features of random weights)"
    assert {row[0] for row in rows} == {video}  # of a file that failed there is nothing
    scores = np.array([row[3:] for row in rows], float)
    np.testing.assert_allclose(scores.mean(0), list(whole["scores"].values()), rtol=1e-6)
    times = np.array([row[1:3] for row in rows], float)
    assert times[0, 0] == 0
    cache = FeatureCache(Path("features/balls.h5"))
    frames = cache.rows[cache.paths.index(video)].frames
    assert times[-1, 1] == pytest.approx(frames / 30, abs=1e-3)


def test_predict_needs_the_weights_that_made_the_features(run):
    weights = Path("features/balls.shards/weights.safetensors")
    elsewhere = weights.rename("moved.safetensors")
    try:
        video = "videos/scene00 blue.avi"
        result = attnact("predict", run, video)
        assert result.exit_code == 1
        assert "weights.safetensors: the weights of the run's features are gone" in result.stderr
        assert attnact("predict", run, video, "--weights", elsewhere).exit_code == 0
    finally:
        elsewhere.rename(weights)


def test_visualize_refuses_a_video_that_is_not_there(run):
    result = attnact("visualize", run, "videos/nobody.avi")
    assert result.exit_code == 1
    assert "holds no video videos/nobody.avi" in result.stderr


def test_sweep_goes_on_where_it_stood():
    options = ["sweep-lambda", "--lambdas", "0,10", "--seeds", "0,1", "--validation", "0", *SMALL]
    first = attnact(*options)
    assert first.exit_code == 0
    folder = Path("runs/balls/sweep-lambda")
    models = {file: file.stat().st_mtime_ns for file in folder.rglob("model.safetensors")}
    assert len(models) == 4
    again = attnact(*options)
    assert again.stdout == first.stdout
    assert {file: file.stat().st_mtime_ns for file in folder.rglob("model.safetensors")} == models
    assert (folder / "sweep.md").read_text() in first.stdout
    assert "random" in first.stdout
    assert width(folder / "sweep.png") > 500


TABLE = ["--validation", "0", "--fps", "15", "--test-stride", "9", *SMALL]


@pytest.fixture(scope="module")
def table(work: Path) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(work)
        result = attnact("table1", *TABLE)
        folder = Path("runs/balls/table1")
        assert result.exit_code == 0
        assert (folder / "table1.md").read_text() in result.stdout
    assert result.stdout.count("soft attention, λ = 10") == 4  # a row, and against each baseline
    return folder


def test_the_study_is_of_the_runs_of_the_table(table):
    folder = table
    models = {file: file.stat().st_mtime_ns for file in folder.rglob("model.safetensors")}
    assert len(models) == 6
    study = attnact("study", *TABLE)
    assert study.exit_code == 0
    assert {file: file.stat().st_mtime_ns for file in folder.rglob("model.safetensors")} == models
    page = (folder / "study/study.md").read_text()
    assert page in study.stdout
    assert page.count("\n## ") == 5
    for file in ("1-attention", "2-lambda", "3-motion", "4-frame-rate", "5-stability"):
        assert f"({file}.png)" in page
        assert width(folder / "study" / f"{file}.png") > 300
        assert (folder / "study" / f"{file}.csv").read_text()


def test_a_report_of_runs_and_of_the_table(run, table):
    """The page has tests of its own in page/test_report_page.py."""
    attnact("study", *TABLE)
    result = attnact("report", run, table, "--videos", "2")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "report.html\n", "")
    page = Path("report.html").read_text()
    assert "7 models compared" in page
    assert "Features of random weights." in page
    for part in ("Table 1", "1. Does attention help?", "5. How stable is it?"):
        assert f"<h3>{part} (table1)</h3>" in page
    assert page.count('class="strip"') == 2
    assert page.count("data:image/png") == 5


def test_a_study_needs_the_whole_table(run):
    """A run that is in the way leaves its row out."""
    folder = Path("runs/balls/short")
    (folder / "max-fold1-seed0").mkdir(parents=True)
    (folder / "max-fold1-seed0/config.json").write_text("{}")
    result = attnact("-q", "study", "--name", "short", "--validation", "0", *SMALL)
    assert result.exit_code == 1
    assert "attnact: failed: runs/balls/short/max-fold1-seed0: " in result.stderr
    assert "needs all six rows" in result.stderr
