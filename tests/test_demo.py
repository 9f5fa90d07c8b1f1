"""The demo's videos: what tells their class, and what must not; and that a failed demo says so."""

import csv
import json
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner

from attnact import cli, demo
from attnact.demo import COLOURS, draw_clip, draw_videos
from attnact.errors import RunError
from attnact.extract.datasets import load_dataset
from attnact.extract.frames.video import read_frames


def coloured(frames: np.ndarray) -> np.ndarray:
    """Where a pixel is no grey, (T, height, width)."""
    pixels = frames.astype(int)
    return pixels.max(-1) - pixels.min(-1) > 60


def test_only_the_ball_tells_the_class():
    clips = [draw_clip(3, number, colour) for number, colour in enumerate(COLOURS.values())]
    backgrounds = [np.median(clip, axis=0) for clip in clips]
    for clip, colour in zip(clips, COLOURS.values(), strict=True):
        ball = coloured(clip)
        assert (clip[ball] == colour).all()
        assert (ball.sum((1, 2)) > 400).all()  # whole in every frame
        hidden = (coloured(clip) | (clip == 0).all(-1)).mean(0) > 0.3
        same = np.abs(np.median(clip, axis=0) - np.mean(backgrounds, axis=0)).max(-1) < 1
        assert (same | hidden).mean() > 0.9


def test_the_ball_moves_and_stays_inside():
    ball = coloured(draw_clip(0, 1, COLOURS["green"]))
    middles = np.array([np.argwhere(frame).mean(0) for frame in ball])
    steps = np.linalg.norm(np.diff(middles, axis=0), axis=1)
    assert (steps < 4).all()
    assert np.ptp(middles, axis=0).max() > 20
    assert ball[:, 0].sum() < len(ball) * 10


def test_the_list_splits_by_scene_and_the_files_hold_what_was_drawn(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    draw_videos(Path("videos"), Path("balls.csv"), scenes=4)
    dataset = load_dataset("folder", Path("balls.csv"))
    assert len(dataset.videos) == 16
    assert sorted(dataset.classes) == sorted(COLOURS)
    with open("balls.csv") as file:
        sides = {(row["group"], row["1"]) for row in csv.DictReader(file)}
    assert sides == {("scene 0", "test"), *((f"scene {n}", "train") for n in (1, 2, 3))}
    drawn = draw_clip(2, 0, COLOURS["red"])
    read = np.stack(list(read_frames(Path("videos/scene02 red.avi"))))
    assert read.shape == drawn.shape
    assert np.abs(read.astype(int) - drawn).mean() < 8


@pytest.mark.parametrize("accuracy", [0.3, 0.9])
def test_a_demo_that_learns_nothing_fails(accuracy, tmp_path, monkeypatch):
    commands = []

    def pretend(main: click.Group, *arguments: str) -> None:
        commands.append(arguments[0])
        if arguments[0] == "train":
            run = Path("runs/balls/first")
            run.mkdir(parents=True)
            config = {"train": {}, "cache": "x.h5", "cache_digest": ""}
            (run / "config.json").write_text(json.dumps(config))
            (run / "summary.json").write_text(json.dumps({"value": accuracy}))

    monkeypatch.setattr(demo, "_type", pretend)
    monkeypatch.setattr(demo, "draw_videos", lambda folder, listing: None)
    monkeypatch.setattr(demo, "_weights", lambda cache: [])
    before = Path.cwd()
    if accuracy > 0.6:
        demo.run_demo(tmp_path / "demo", cli.main)
    else:
        with pytest.raises(RunError, match=r"accuracy 0\.30 is too near chance"):
            demo.run_demo(tmp_path / "demo", cli.main)
    assert Path.cwd() == before
    assert commands == ["features", "train", "evaluate", "sweep-lambda", "visualize", "report"]


@pytest.mark.parametrize("code", [1, 130])
def test_a_command_that_fails_or_is_interrupted_ends_the_demo(code, tmp_path, monkeypatch):
    """With its own exit code; nothing is tried on what it left undone."""

    @click.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
    @click.pass_context
    def features(context: click.Context) -> None:
        click.echo("it failed")
        context.exit(code)

    monkeypatch.setitem(cli.main.commands, "features", features)
    monkeypatch.setattr(demo, "draw_videos", lambda folder, listing: None)
    monkeypatch.setattr(demo, "_weights", lambda cache: [])
    result = CliRunner().invoke(cli.main, ["demo", "--to", str(tmp_path / "demo")])
    assert (result.exit_code, result.output.count("it failed")) == (code, 1)
    assert "$ attnact train" not in result.output
