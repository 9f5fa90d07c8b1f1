"""The strip of a video: the frames that the model saw, under the maps that it made of them."""

from pathlib import Path

import numpy as np
import pytest
import torch

from attnact import attend
from attnact.errors import RunError, VideoError
from attnact.extract.video import read_frames
from attnact.features import FeatureCache
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
