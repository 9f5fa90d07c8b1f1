"""What the command line says and which exit code it gives when something is wrong."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import click
import pytest
import torch
from click.testing import CliRunner

from attnact import __version__, cli
from attnact.cache.shards import shard_path
from attnact.commands import caches, experiments, extraction, predicting, reporting, training
from attnact.errors import VideoError
from attnact.extract.datasets import DATASETS
from attnact.train import runs

ROOT = Path(__file__).resolve().parents[1]

NO_DATA = [
    (("features", "hmdb51"), 1, r"HMDB-51 in data/hmdb51: .*attnact download hmdb51"),
    (("features", "folder", "--videos", "nowhere"), 1, "nowhere: no such folder or file"),
    (("features", "kinetics"), 2, "'kinetics' is not one of"),
    (("features", "."), 2, "type: attnact features folder --videos ."),
    (("train",), 1, "no cache in features/; make one with `attnact features`"),
    (("train", "nothing.h5"), 1, "nothing.h5: no such file; `attnact features` makes it"),
    (("train", "--resume", "nowhere"), 1, "nowhere/config.json: no such file"),
    (("train", "--resume", "nowhere", "--epochs", "3"), 2, "--resume takes every choice"),
    (("train", "--attention", "hard"), 2, "'hard' is not one of 'location', 'context'"),
    (("evaluate", "nowhere"), 1, "nowhere/config.json: no such file"),
    (("sweep-lambda",), 1, "no cache in features/"),
    (("visualize", "nowhere"), 1, "nowhere/config.json: no such file"),
    (("predict", "nowhere", "a.mp4"), 1, "nowhere/config.json: no such file"),
    (("predict", "nowhere"), 2, "Missing argument 'VIDEOS"),
    (("predict", "nowhere", "a.mp4", "--top", "0"), 2, "--top must be at least 1"),
    (("cache", "info", "text.h5"), 1, "text.h5: not a whole HDF5 file"),
    (("download", "kinetics"), 2, "'kinetics' is not one of"),
    (("download", "folder"), 2, "folder has nothing to download"),
]


@pytest.mark.parametrize(("arguments", "code", "message"), NO_DATA)
def test_what_cannot_be_done_is_told_in_a_line(arguments, code, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("text.h5").write_text("text")
    result = CliRunner().invoke(cli.main, arguments)
    assert result.exit_code == code
    assert re.search(message, result.stderr)
    assert "Traceback" not in result.stderr
    if code == 1:
        assert len(result.stderr.splitlines()) == 1
    assert not result.stdout


def test_several_caches_must_be_told_apart(make_cache, tmp_path, monkeypatch):
    for name in ("a", "b"):
        make_cache(tmp_path / "features" / f"{name}.h5", videos=6)
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(cli.main, ["cache", "info"])
    assert (result.exit_code, "name one of a, b" in result.stderr) == (1, True)
    assert CliRunner().invoke(cli.main, ["cache", "info", "b"]).exit_code == 0
    Path("b").mkdir()  # such as the folder that holds the videos
    assert CliRunner().invoke(cli.main, ["cache", "info", "b"]).exit_code == 0


def test_videos_without_a_frame_rate_are_told(make_cache, tmp_path, monkeypatch):
    make_cache(tmp_path / "features" / "a.h5", videos=6, rate=lambda video: 25.0 * (video > 1))
    make_cache(tmp_path / "features" / "b.h5", videos=6)
    monkeypatch.chdir(tmp_path)
    told = [CliRunner().invoke(cli.main, ["cache", "info", name]).stdout for name in "ab"]
    assert ["2 without a frame rate that can be" in text for text in told] == [True, False]


@pytest.mark.parametrize(
    "module", [caches, experiments, extraction, predicting, reporting, training]
)
def test_every_command_that_is_written_can_be_typed(module):
    commands = [it for it in vars(module).values() if isinstance(it, click.Command)]
    typed = [*cli.main.commands.values(), *caches.cache.commands.values()]
    assert [it.name for it in commands if it not in typed] == []


def test_bad_choices_for_a_run_are_usage_errors(make_cache, tmp_path, monkeypatch):
    make_cache(tmp_path / "features" / "a.h5", videos=6)
    monkeypatch.chdir(tmp_path)
    for arguments in (
        ["train", "--hidden-size", "0"],
        ["train", "--lambda", "-1"],
        ["sweep-lambda", "--lambdas", "0,-1"],
        ["sweep-lambda", "--lambdas", "0,ten"],
        ["sweep-lambda", "--lambdas", "1,1.0000001"],
        ["sweep-lambda", "--folds", "1,9"],
        ["train", "--name", "../x"],
        ["train", "--name", "/tmp/x"],
        ["train", "--name", ""],
        ["train", "--name", "."],
        ["sweep-lambda", "--name", "a/../../x"],
    ):
        result = CliRunner().invoke(cli.main, arguments)
        assert result.exit_code == 2, arguments
        assert result.stderr.splitlines()[-1].startswith("Error: ")
    for option, value in (("--hidden-size", "0"), ("--lambda", "-1"), ("--fps", "0")):
        result = CliRunner().invoke(cli.main, ["train", option, value])
        assert f"Error: {option} must " in result.stderr  # as people type it
    result = CliRunner().invoke(cli.main, ["features", "folder", "--decoders", "0"])
    assert "Error: --decoders must be at least 1" in result.stderr
    assert not Path("runs").exists()


DEVICES = {
    "cuda": "no cuda here, where torch sees 0 GPU(s)",
    "cuda:7": "no cuda:7 here, where torch sees 0 GPU(s)",
    "gpu": "'gpu' is no device; cpu, or cuda:1",
    "meta": "torch cannot work on meta here; cpu, or cuda:1",
    "hpu": "torch cannot work on hpu here; cpu, or cuda:1",
}


@pytest.mark.parametrize("name", DEVICES)
@pytest.mark.parametrize(
    "arguments",
    [
        ("features", "folder", "--videos", "."),
        ("train",),
        ("train", "--resume", "x"),
        ("evaluate", "x"),
        ("predict", "x", "a.mp4"),
        ("visualize", "x"),
        ("sweep-lambda",),
        ("report", "x"),
    ],
)
def test_devices_that_are_not_here_are_usage_errors(arguments, name, monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    result = CliRunner().invoke(cli.main, [*arguments, "--device", name])
    assert result.exit_code == 2
    assert result.stderr.endswith(f"Error: Invalid value for '--device': {DEVICES[name]}\n")


def test_what_cannot_be_trained_leaves_no_run(make_cache, tmp_path, monkeypatch):
    """So that the way out which the message names is free."""
    make_cache(tmp_path / "features" / "a.h5", videos=6)  # in each fold of one group to train on
    monkeypatch.chdir(tmp_path)
    small = ["--hidden-size", "4", "--epochs", "1", "--lstm-layers", "1", "--test-stride", "9"]
    for command in (["train", "--name", "x"], ["sweep-lambda", "--lambdas", "0"]):
        Path("runs/a/x").mkdir(parents=True)  # as somebody may have
        refused = CliRunner().invoke(cli.main, [*command, *small])
        assert "none can be held out; --validation 0" in refused.stderr
        assert refused.exit_code == 1
        assert not list(tmp_path.rglob("config.json"))
        assert CliRunner().invoke(cli.main, [*command, *small, "--validation", "0"]).exit_code == 0
        shutil.rmtree("runs")


def test_ctrl_c_ends_with_130(monkeypatch):
    def interrupt(folder: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(runs, "open_run", interrupt)
    result = CliRunner().invoke(cli.main, ["evaluate", "run"])
    assert result.exit_code == 130
    assert result.stderr.endswith("is lost. To go on: type the same command again\n")


def test_ctrl_c_before_anything_begins_ends_with_130_too(monkeypatch):
    def interrupt(*of: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli.main, "parse_args", interrupt)
    result = CliRunner().invoke(cli.main, ["datasets"])
    assert (result.exit_code, result.output) == (130, "")


def test_ctrl_c_in_the_imports_ends_with_130_too(tmp_path):
    (tmp_path / "click.py").write_text("raise KeyboardInterrupt")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    command = [sys.executable, "-m", "attnact", "datasets"]
    result = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert (result.returncode, result.stdout, result.stderr) == (130, "", "")


def test_ctrl_c_says_how_training_goes_on(make_cache, tmp_path, monkeypatch):
    def interrupt(*of: object) -> None:
        raise KeyboardInterrupt

    make_cache(tmp_path / "features/small.h5", videos=6)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("attnact.train.loop.train", interrupt)
    result = CliRunner().invoke(cli.main, ["train", "--name", "first", "--validation=0"])
    assert result.exit_code == 130
    assert result.stderr.endswith("To go on: attnact train --resume runs/small/first\n")


def test_an_error_of_ours_ends_with_1(monkeypatch):
    def refuse(folder: Path) -> None:
        raise VideoError("a.avi: truncated")

    monkeypatch.setattr(runs, "open_run", refuse)
    result = CliRunner().invoke(cli.main, ["evaluate", "run"])
    assert (result.exit_code, result.stderr) == (1, "attnact: error: a.avi: truncated\n")


def test_a_run_in_place_of_a_cache(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("runs/a/x").mkdir(parents=True)
    Path("runs/a/x/config.json").touch()
    result = CliRunner().invoke(cli.main, ["train", "runs/a/x"])
    told = "runs/a/x: is a run; to go on with it: attnact train --resume runs/a/x\n"
    assert (result.exit_code, result.stderr) == (1, f"attnact: error: {told}")


def test_datasets_says_what_is_on_disk(tmp_path, monkeypatch):
    (tmp_path / "data" / "hmdb51").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    lines = CliRunner().invoke(cli.main, ["datasets"]).stdout.splitlines()
    assert [line.split(":")[0] for line in lines if line[0] != " "] == list(DATASETS)
    assert "  videos   data/hmdb51: on disk" in lines
    assert "  videos   data/ucf11: not on disk" in lines
    assert "  cache    features/hmdb51.h5: not made" in lines


def test_python_m_attnact_runs_beside_a_users_own_train_py(tmp_path):
    for name in ("train.py", "extract.py"):
        (tmp_path / name).write_text("raise SystemExit('the wrong module')")
    root = Path(__file__).resolve().parents[1]
    result = subprocess.run(
        [sys.executable, "-m", "attnact", "train", "--version"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
    )
    assert "No such option" in result.stderr
    version = subprocess.run(
        [sys.executable, "-m", "attnact", "--version"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert version.stdout.strip().endswith(__version__)


COMMANDS = [(name,) for name in cli.main.commands if name != "cache"]
COMMANDS += [("cache", name) for name in caches.cache.commands]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_says_it_in_a_line_with_an_example(command):
    lines = CliRunner().invoke(cli.main, [*command[:-1], "--help"]).stdout.splitlines()
    listed = lines[lines.index("Commands:") + 1 :]
    (line,) = [it for it in listed if it.split()[:1] == [command[-1]]]
    assert not line.endswith("...")
    lines = CliRunner().invoke(cli.main, [*command, "--help"]).stdout.splitlines()
    examples = [it.split() for it in lines if it.strip().startswith("Example: attnact ")]
    assert examples
    for example in examples:
        assert tuple(example[2:])[: len(command)] == command


def test_a_mistyped_cache(make_cache, tmp_path, monkeypatch):
    make_cache(tmp_path / "features" / "balls.h5", videos=6)
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(cli.main, ["cache", "info", "bals"])
    assert result.stderr == "attnact: error: bals: no such file or cache; did you mean balls?\n"


def test_quiet_leaves_results_and_errors(make_cache, tmp_path, monkeypatch):
    make_cache(tmp_path / "features" / "a.h5", videos=6)
    monkeypatch.chdir(tmp_path)
    small = ["--hidden-size", "4", "--epochs", "1", "--lstm-layers", "1", "--validation=0"]
    loud = CliRunner().invoke(cli.main, ["train", "--name", "x", *small])
    quiet = CliRunner().invoke(cli.main, ["-q", "train", "--name", "y", *small])
    assert "features on host memory" in loud.stderr
    assert quiet.stdout == loud.stdout.replace("/x", "/y")
    assert quiet.stderr == "the features are of random weights, so the figure says little\n"
    assert "holds a run" in CliRunner().invoke(cli.main, ["-q", "train", "--name", "y"]).stderr


def test_verbose_tells_what_led_to_an_error(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(cli.main, ["-v", "evaluate", "nowhere"])
    assert result.exit_code == 1
    assert "Traceback" in result.stderr
    assert result.stderr.splitlines()[-1].startswith("attnact: error: nowhere/config.json")


def test_frame_rates_that_cannot_be_are_told(monkeypatch):
    """By `features` of what it made; the rest of the work is left out here."""
    made = SimpleNamespace(
        paths=["a.avi", "b.avi", "c.avi"],
        changed=lambda video: False,
        frame_rates=[0.0, 25.0, 0.0],
        frames=3,
        random_weights=False,
        failures=[],
    )
    work = {"prepare": None, "describe": "", "frames_left": 0, "extract": made}
    for name, result in work.items():
        monkeypatch.setattr(f"attnact.extract.pipeline.{name}", lambda *of, it=result, **how: it)
    dataset = SimpleNamespace(warnings=(), paths=made.paths)
    monkeypatch.setattr("attnact.extract.datasets.load_dataset", lambda *of: dataset)
    result = CliRunner().invoke(cli.main, ["-q", "features", "folder"])
    assert result.exit_code == 0
    told = "attnact: warning: a.avi, c.avi: no frame rate that can be, taken to be 30\n"
    assert result.stderr == told


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(28, "No space left on device", "a/b"), "a/b: No space left on device"),
        (PermissionError(13, "Permission denied", "a.csv"), "a.csv: Permission denied"),
        (OSError("Unable to\nflush"), "Unable to flush"),
        (MemoryError(), "out of memory"),
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nSee"),
            "CUDA out of memory. Tried to allocate 2.00 GiB. See",
        ),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory"),
            "out of memory (DefaultCPUAllocator: can't allocate memory)",
        ),
    ],
)
def test_what_the_system_refuses_is_one_line(monkeypatch, error, told):
    def refuse(*of: object) -> None:
        raise error

    monkeypatch.setattr("attnact.extract.datasets.load_dataset", refuse)
    result = CliRunner().invoke(cli.main, ["features", "folder"])
    assert (result.exit_code, result.stderr) == (1, f"attnact: error: {told}\n")


def test_a_mistake_of_ours_is_told_whole(monkeypatch):
    def fail(*of: object) -> None:
        raise RuntimeError("the sizes do not fit")

    monkeypatch.setattr("attnact.extract.datasets.load_dataset", fail)
    result = CliRunner().invoke(cli.main, ["features", "folder"])
    assert isinstance(result.exception, RuntimeError)


@pytest.mark.parametrize(("videos", "name"), [("clips.test", "clips.test"), ("my.csv", "my")])
def test_a_cache_is_named_as_its_videos_are(videos, name, tmp_path, monkeypatch):
    (tmp_path / "clips.test").mkdir()
    (tmp_path / "my.csv").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "attnact.extract.datasets.load_dataset", lambda *of: SimpleNamespace(warnings=())
    )
    asked = []

    def prepare(found: object, cache: Path, *rest: object) -> None:
        asked.append(cache)
        raise VideoError("enough")

    monkeypatch.setattr("attnact.extract.pipeline.prepare", prepare)
    CliRunner().invoke(cli.main, ["features", "folder", "--videos", videos])
    assert asked == [Path("features", f"{name}.h5")]


def test_features_that_cannot_be_loaded_leave_no_run(make_cache, tmp_path, monkeypatch):
    cache = make_cache(tmp_path / "features" / "a.h5", videos=6)
    monkeypatch.chdir(tmp_path)
    shard_path(cache.path, 0).unlink()
    command = ["train", "--name", "x", "--features-in", "host", "--validation", "0"]
    result = CliRunner().invoke(cli.main, command)
    assert (result.exit_code, "no such file" in result.stderr) == (1, True)
    assert not Path("runs").exists()


def test_a_run_is_no_folder_of_runs_and_a_page_is_one(make_cache, tmp_path, monkeypatch):
    make_cache(tmp_path / "features" / "a.h5", videos=6)
    monkeypatch.chdir(tmp_path)
    Path("runs/a/first").mkdir(parents=True)
    Path("runs/a/first/config.json").write_text("{}")
    for arguments, code, told in (
        (["table1", "--name", "first"], 1, "runs/a/first: is a run; use another --name"),
        (["evaluate", "first"], 1, "first/config.json: no such file; did you mean runs/a/first?"),
        (["report", "runs", "-o", "mine.avi"], 2, "--out mine.avi is no page"),
        (["predict", "x", "y", "--csv", "--timeline"], 2, "give one of --csv, --json"),
    ):
        result = CliRunner().invoke(cli.main, arguments)
        assert (result.exit_code, told in result.stderr) == (code, True), result.stderr
