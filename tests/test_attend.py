"""Pictures of a video: the frames that the model saw, under the maps that it made of them."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from PIL import Image

from attnact import attend, recognise
from attnact.attend import Video, draw_attention, find_videos
from attnact.cache.features import FeatureCache
from attnact.errors import DatasetError, RunError, VideoError
from attnact.extract.frames.video import read_frames
from attnact.model.checkpoint import Checkpoint, load_checkpoint
from attnact.model.models import ModelConfig
from attnact.recognise import Recogniser
from attnact.train.config import TrainConfig
from attnact.train.feed.store import open_store, videos_in
from attnact.train.loop import train
from attnact.train.pictures import movie
from attnact.train.runs import create_run

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


@pytest.fixture
def strips(monkeypatch: pytest.MonkeyPatch) -> list[tuple]:
    """What strips are drawn of."""
    drawn: list[tuple] = []
    monkeypatch.setattr(attend.plots, "plot_attention", lambda *arguments: drawn.append(arguments))
    return drawn


def draw(run: Path, name: str, out: Path, **options: Any) -> list[Path]:
    recogniser = Recogniser(run)
    (video,) = find_videos(recogniser, [name])
    return draw_attention(recogniser, video, out, **options)


def test_frames_and_maps_belong_together(run, tmp_path, strips):
    files = draw(run, "jump/1.avi", tmp_path / "pictures")
    assert files[0] == tmp_path / "pictures" / "jump_1.avi.png"
    ((_, frames, maps, labels, title),) = strips
    shown = [int(label.removeprefix("frame ")) for label in labels]
    assert len(shown) == 8
    assert (shown[0], shown[-1]) == (2, 31)  # the middle one of four clips of 30 frames
    every = list(read_frames(tmp_path / "jump/1.avi"))
    assert all((frame == every[i]).all() for frame, i in zip(frames, shown, strict=True))
    cache = FeatureCache(tmp_path / "small.h5")
    X = torch.from_numpy(cache.read(33 + 2, 30)).float().view(1, 30, 49, 1024)
    with torch.inference_mode():
        own = load_checkpoint(run / "model.safetensors").model(X, torch.ones(1, 30))[1]
    np.testing.assert_allclose(maps, own[0, np.array(shown) - 2], rtol=1e-5)
    assert "jump, taken for " in title
    assert "random weights" in title


def test_the_middle_of_however_many_clips():
    """Of few the middle one; of many one that is near it, with few held."""
    for count in (1, 2, 3, 4, 63, 64, 65, 66, 127, 130, 1000, 5001):
        middle = attend.Middle()
        for number in middle.of(range(count)):
            assert number in range(count)
            assert len(middle._kept) <= middle.KEPT
        assert abs(middle.clip - (count - 1) / 2) <= max(0.5, count / 64)


def test_a_file_in_no_cache_is_decoded_twice(run, tmp_path, make_clip, strips, monkeypatch):
    """Its pictures are those of the same video in the cache, but for the name."""
    opened = []

    def clips(recogniser, videos):
        opened.append("clips")
        yield recogniser.scored_clips_in(FeatureCache(tmp_path / "small.h5"), 1)

    def frames(path):
        opened.append("frames")
        return read_frames(path)

    monkeypatch.setattr(Recogniser, "scored_clips", clips)
    monkeypatch.setattr(attend, "read_frames", frames)
    monkeypatch.setattr(attend.movie, "can_write_mp4", lambda: False)
    make_clip(tmp_path / "other.avi", frames=33, seed=1)
    draw(run, str(tmp_path / "other.avi"), tmp_path / "pictures")
    assert opened == ["clips", "frames"]
    draw(run, "jump/1.avi", tmp_path / "pictures")
    other, cached = strips
    assert (other[2] == cached[2]).all()
    assert other[3] == cached[3]


def test_only_what_the_backbone_saw_is_drawn(run, tmp_path, strips, monkeypatch):
    """Of frames that were cropped the maps cover the centre, 7/8 of the height and the width."""
    monkeypatch.setattr(attend, "resize_of", lambda provenance: "crop")
    draw(run, "jump/1.avi", tmp_path / "pictures")
    every = list(read_frames(tmp_path / "jump/1.avi"))
    assert (strips[0][1][0] == every[2][9:-9, 11:-11]).all()


def test_repeats_of_a_short_video_do_not_vote(tmp_path, strips, monkeypatch, make_cache, make_clip):
    """The model says "jump" at the 12 frames there are, and is surer of "dive" at their repeats."""

    class Model(torch.nn.Module):
        config = ModelConfig(3)

        def forward(self, X, mask):
            surely = (
                torch.eye(3)[torch.where(mask > 0, 1, 0)] * torch.where(mask > 0, 1, 9)[..., None]
            )
            return surely, torch.full((1, 30, 49), 1 / 49)

    cache = make_cache(tmp_path / "short.h5", videos=6, frames=lambda video: 12)
    (tmp_path / "dive").mkdir()
    make_clip(tmp_path / cache.paths[0], frames=12)
    begun = create_run(tmp_path / "short", CONFIG, cache)
    checkpoint = Checkpoint(Model(), cache.classes, False, cache.provenance)
    monkeypatch.setattr(recognise, "load_checkpoint", lambda *arguments: checkpoint)
    draw(begun.folder, cache.paths[0], tmp_path / "pictures")
    assert "taken for jump" in strips[0][-1]
    assert strips[0][2].shape == (8, 49)


def test_a_movie_of_every_frame_that_browsers_play(run, tmp_path):
    if not movie.can_write_mp4():
        pytest.skip("this PyAV has no H.264 encoder")
    _, mp4, gif = draw(run, "jump/1.avi", tmp_path / "pictures", gif=True)
    with av.open(str(mp4)) as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        assert (context.name, context.pix_fmt) == ("h264", "yuv420p")
        assert context.width % 2 == context.height % 2 == 0
        assert stream.average_rate == 30
        assert len(list(container.decode(stream))) == 33
    assert mp4.read_bytes().index(b"moov") < mp4.read_bytes().index(b"mdat")  # plays as it loads
    with Image.open(gif) as image:
        assert (image.format, image.n_frames) == ("GIF", 30)
        assert image.info["duration"] in (30, 40)  # it counts in hundredths of a second
        assert image.info["loop"] == 0
    assert {file.name for file in mp4.parent.iterdir()} == {
        f"jump_1.avi.{kind}" for kind in ("png", "mp4", "gif")
    }


def test_each_frame_of_a_movie_has_its_own_map_and_scores(run, tmp_path, monkeypatch):
    """At a third of the frame rate a frame between two has the map of the one before it."""
    scenes = []

    def drawn(scene, frame, attention_map, scores, second):
        scenes.append((scene.white, attention_map, scores, second))
        return Image.new("RGB", (4, 4))

    monkeypatch.setattr(attend.movie.Scene, "draw", drawn)
    monkeypatch.setattr(attend.movie, "can_write_mp4", lambda: True)
    monkeypatch.setattr(attend.movie, "writing_mp4", lambda path, rate: Pictures())
    recogniser = Recogniser(run)
    recogniser.run = replace(recogniser.run, config=replace(CONFIG, fps=10.0))
    (video,) = find_videos(recogniser, ["jump/1.avi"])
    draw_attention(recogniser, video, tmp_path)
    attention = recogniser.sum_up_attention(recogniser.scored_clips_in(video.cache, 1))
    assert attention.positions.tolist() == list(range(0, 33, 3))
    assert len({white for white, *_ in scenes}) == 1  # maps of one movie can be compared
    order = np.argsort(-attention.prediction.scores)
    for i, (_, attention_map, scores, second) in enumerate(scenes):
        assert (attention_map == attention.maps[i // 3]).all()
        assert scores == attention.frame_scores[i // 3, order].tolist()
        assert second == pytest.approx(i / 30)
    assert len(scenes) == 33


class Pictures:
    """A movie that is not written."""

    def __enter__(self) -> Callable[[Image.Image], None]:
        return lambda picture: None

    def __exit__(self, *error: object) -> None: ...


def test_without_an_encoder_the_strip_is_drawn(run, tmp_path, monkeypatch):
    monkeypatch.setattr(attend.movie, "CODEC", "libnone")
    assert not movie.can_write_mp4()
    assert [file.suffix for file in draw(run, "jump/1.avi", tmp_path / "pictures")] == [".png"]


def test_a_file_that_lost_frames_is_refused(run, tmp_path, make_clip):
    make_clip(tmp_path / "jump/1.avi", frames=32)
    with pytest.raises(VideoError, match="changed since its features were made"):
        draw(run, "jump/1.avi", tmp_path / "pictures")
    assert not list((tmp_path / "pictures").iterdir())


def test_a_file_of_another_size_is_refused(run, tmp_path, monkeypatch):
    """It may well have as many frames."""
    monkeypatch.setattr(
        FeatureCache, "changed", lambda cache, video: cache.paths[video] == "jump/1.avi"
    )
    with pytest.raises(VideoError, match=r"jump/1\.avi: changed since its features were made"):
        draw(run, "jump/1.avi", tmp_path / "pictures")


def test_one_video_of_each_class_where_several_hold(multi_label_cache):
    """Each class once, though there are more combinations of them."""
    labels = multi_label_cache.labels
    chosen = attend._one_a_class(multi_label_cache, np.arange(12))
    assert labels[chosen].any(0).all()
    assert len(chosen) <= 3 < len(np.unique(labels, axis=0))


def test_one_video_of_each_class_without_names(run):
    names = [video.name for video in find_videos(Recogniser(run), [])]
    assert names == ["dive/0.avi", "jump/1.avi", "run/2.avi"]


def test_files_are_found_in_the_cache_or_beside_it(run, tmp_path, make_clip):
    """Names of files that are not in the cache start where the files' folders part."""
    others = [tmp_path / "more" / place / "0.avi" for place in ("a", "b")]
    for other in others:
        other.parent.mkdir(parents=True)
        make_clip(other, frames=5)
    (tmp_path / "list.txt").write_text("jump/1.avi\n\nmore/b/0.avi\n")
    recogniser = Recogniser(run)
    names = [str(tmp_path / "list.txt"), str(others[0])]
    cached, *found = find_videos(recogniser, names)
    assert (cached.name, cached.position) == ("jump/1.avi", 1)
    assert cached.cache is not None
    assert found == [Video("b/0.avi", others[1]), Video("a/0.avi", others[0])]
    (tmp_path / "small.h5").unlink()  # a run that was carried elsewhere
    assert find_videos(recogniser, [str(others[0])]) == [Video("0.avi", others[0])]


def test_a_file_needs_no_cache(run, tmp_path, make_cache, make_clip):
    """Which was made anew since the run began."""
    recogniser = Recogniser(run)
    (tmp_path / "small.h5").unlink()
    shutil.rmtree(tmp_path / "small.shards")
    make_cache(tmp_path / "small.h5", videos=6)
    other = make_clip(tmp_path / "mine.avi", frames=5)
    assert find_videos(recogniser, [str(other)]) == [Video("mine.avi", other)]
    with pytest.raises(RunError, match="was made anew"):
        find_videos(recogniser, [])
    with pytest.raises(RunError, match=r"^dive/0\.avi: no such file; .* was made anew"):
        find_videos(recogniser, [str(other), "dive/0.avi"])


def test_what_is_not_there_is_refused(run, tmp_path, monkeypatch):
    recogniser = Recogniser(run)
    with pytest.raises(RunError, match=r"holds no video run/9\.avi"):
        find_videos(recogniser, ["run/9.avi"])
    with pytest.raises(VideoError, match=r"dive/3\.avi: not in .* any more; to say where"):
        draw(run, "dive/3.avi", tmp_path)  # in the cache, its file gone
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="holds no videos"):
        find_videos(recogniser, [str(tmp_path / "empty")])
    monkeypatch.setattr(recogniser, "attends", False)
    with pytest.raises(RunError, match="no attention to draw"):
        find_videos(recogniser, [])
