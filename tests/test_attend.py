"""The strip of a video: the frames that the model saw, under the maps that it made of them."""

from pathlib import Path

import numpy as np
import pytest
import torch

from attnact import attend
from attnact.checkpoint import Checkpoint
from attnact.errors import RunError, VideoError
from attnact.extract.video import read_frames
from attnact.features import FeatureCache
from attnact.model import ModelConfig
from attnact.train.config import TrainConfig
from attnact.train.loop import train
from attnact.train.runs import create_run
from attnact.train.store import open_store, videos_in

CONFIG = TrainConfig(fold="1", lstm_layers=1, hidden_size=4, epochs=1, batch_size=8, validation=0.0)


@pytest.fixture
def run(make_cache, make_clip, tmp_path: Path) -> Path:
    """A run on a cache of clips of 33 frames, of which those of the test side exist as videos."""
    cache: FeatureCache = make_cache(tmp_path / "small.h5", videos=6, frames=lambda video: 33)
    for path in cache.paths[:3]:
        (tmp_path / path).parent.mkdir(exist_ok=True)
        make_clip(tmp_path / path, frames=33)
    begun = create_run(tmp_path / "run", CONFIG, cache)
    train(begun, cache, open_store(cache, videos_in(cache, ["1"]), "host", torch.device("cpu")))
    return begun.folder


def test_frames_and_maps_belong_together(run, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(attend.plots, "plot_attention", lambda *arguments: drawn.append(arguments))
    pictures = attend.attention_strips(run, ["jump/1.avi"], tmp_path / "pictures")
    assert pictures == [tmp_path / "pictures" / "jump_1.avi.png"]
    ((_, frames, maps, labels, title),) = drawn
    shown = [int(label.removeprefix("frame ")) for label in labels]
    assert len(shown) == 8
    assert (shown[0], shown[-1]) == (2, 31)  # the middle one of four clips of 30 frames
    every = list(read_frames(tmp_path / "jump/1.avi"))
    assert all((frame == every[i]).all() for frame, i in zip(frames, shown, strict=True))
    np.testing.assert_allclose(maps.sum(1), 1, rtol=1e-5)
    assert "jump" in title
    assert "random weights" in title


def test_only_what_the_backbone_saw_is_drawn(run, tmp_path, monkeypatch):
    """Of frames that were cropped the maps cover the centre, 7/8 of the height and the width."""
    drawn = []
    monkeypatch.setattr(attend, "resize_of", lambda cache: "crop")
    monkeypatch.setattr(attend.plots, "plot_attention", lambda *arguments: drawn.append(arguments))
    attend.attention_strips(run, ["jump/1.avi"], tmp_path / "pictures")
    every = list(read_frames(tmp_path / "jump/1.avi"))
    assert (drawn[0][1][0] == every[2][9:-9, 11:-11]).all()


def test_repeats_of_a_short_video_do_not_vote(run, tmp_path, monkeypatch, make_cache, make_clip):
    """The model says "jump" at the 12 frames there are, and is surer of "dive" at their repeats."""

    class Model(torch.nn.Module):
        config = ModelConfig(3)

        def forward(self, X, mask):
            surely = (
                torch.eye(3)[torch.where(mask > 0, 1, 0)] * torch.where(mask > 0, 1, 9)[..., None]
            )
            return surely, torch.full((1, 30, 49), 1 / 49)

    drawn = []
    cache = make_cache(tmp_path / "short.h5", videos=6, frames=lambda video: 12)
    make_clip(tmp_path / cache.paths[0], frames=12)
    begun = create_run(tmp_path / "short", CONFIG, cache)
    checkpoint = Checkpoint(Model(), cache.classes, False, {})
    monkeypatch.setattr(attend, "load_checkpoint", lambda path: checkpoint)
    monkeypatch.setattr(attend.plots, "plot_attention", lambda *arguments: drawn.append(arguments))
    attend.attention_strips(begun.folder, [cache.paths[0]], tmp_path / "pictures")
    assert "taken for jump" in drawn[0][-1]


def test_a_file_that_lost_frames_is_refused(run, tmp_path, make_clip):
    make_clip(tmp_path / "jump/1.avi", frames=20)
    with pytest.raises(RunError, match="changed since its features were made"):
        attend.attention_strips(run, ["jump/1.avi"], tmp_path / "pictures")


def test_one_video_of_each_class_where_several_hold(multi_label_cache):
    """Each class once, though there are more combinations of them."""
    labels = multi_label_cache.labels
    chosen = attend._one_a_class(multi_label_cache, np.arange(12))
    assert labels[chosen].any(0).all()
    assert len(chosen) <= 3 < len(np.unique(labels, axis=0))


def test_one_video_of_each_class_without_names(run, tmp_path):
    pictures = attend.attention_strips(run, [], tmp_path / "pictures")
    assert [picture.name for picture in pictures] == [
        *("dive_0.avi.png", "jump_1.avi.png", "run_2.avi.png")
    ]
    assert all(picture.stat().st_size > 1000 for picture in pictures)


def test_what_is_not_there_is_refused(run, tmp_path):
    with pytest.raises(RunError, match=r"holds no video run/9\.avi"):
        attend.attention_strips(run, ["run/9.avi"], tmp_path)
    with pytest.raises(VideoError, match=r"3\.avi"):
        attend.attention_strips(run, ["dive/3.avi"], tmp_path)  # in the cache, its file gone
