"""A run on files that are in no cache, with a stand-in for the network."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import attnact
from attnact import recognise
from attnact.cache.compact import to_float, to_uint8
from attnact.cache.features import FeatureCache
from attnact.errors import RunError, VideoError, WeightsError
from attnact.extract.frames.resize import resize
from attnact.extract.frames.video import read_frames
from attnact.recognise import Recogniser
from attnact.train.config import TrainConfig
from attnact.train.feed.store import open_store, videos_in
from attnact.train.feed.stream import stream_clips
from attnact.train.loop import score_test, train
from attnact.train.runs import create_run, open_run
from attnact.train.scoring.one_video import Prediction, ScoredClip

CONFIG = TrainConfig(
    fold="1", lstm_layers=1, hidden_size=4, epochs=2, batch_size=8, validation=0.0, test_stride=4
)
LENGTHS = [75, 33, 12]  # frames of the test videos
TESTS, TRAINS = slice(3), slice(3, 6)


class StandIn:
    """Each location's mean colour, in the first three of 1024 channels."""

    device = torch.device("cpu")

    def __call__(self, frames: Tensor) -> Tensor:
        cubes = torch.zeros(len(frames), 7, 7, 1024)
        cubes[..., :3] = frames.reshape(-1, 7, 32, 7, 32, 3).sum((2, 4)) / 65536
        return cubes


@pytest.fixture(scope="module")
def cache(make_cache, make_clip, tmp_path_factory: pytest.TempPathFactory) -> FeatureCache:
    """Of six videos, of which those of fold 1's test side exist as files, at 25 frames a second."""
    folder = tmp_path_factory.mktemp("recognise")
    files = [folder / f"{name}/{i}.avi" for i, name in enumerate(("dive", "jump", "run"))]
    for seed, (file, frames) in enumerate(zip(files, LENGTHS, strict=True)):
        file.parent.mkdir()
        make_clip(file, frames=frames, seed=seed)

    def cubes(video: int, count: int) -> np.ndarray:
        if video >= 3 or count == 0:
            return np.random.default_rng(video).random((count, 7, 7, 1024)).astype(np.float16)
        frames = resize(np.stack(list(read_frames(files[video]))), "squash")
        return StandIn()(torch.from_numpy(frames)).half().numpy()

    return make_cache(
        folder / "small.h5",
        videos=6,
        frames=lambda video: LENGTHS[video % 3],
        rate=lambda video: 25.0,
        cubes=cubes,
    )


@pytest.fixture
def make_run(cache, tmp_path, monkeypatch) -> Callable[..., Recogniser]:
    """Trains a run with these choices; its backbone is the stand-in."""
    monkeypatch.setattr(recognise, "recorded_backbone", lambda *arguments: StandIn())

    def make(**choices: object) -> Recogniser:
        run = create_run(tmp_path / "run", replace(CONFIG, **choices), cache)
        store = open_store(cache, videos_in(cache, ["1"]), "host", torch.device("cpu"))
        train(run, cache, store)
        return Recogniser(run.folder)

    return make


@pytest.mark.parametrize(
    "choices",
    [
        {},
        {"fps": 10.0, "test_stride": 3},
        {"test_fps": 6.0, "vote": "majority", "scored_steps": 16},
        {"clip_form": "released", "fps": 15.0},
        {"model": "average"},
    ],
)
def test_scores_of_test_videos_are_those_of_evaluate(make_run, cache, choices) -> None:
    recogniser = make_run(**choices)
    run = open_run(recogniser.run.folder)
    store = open_store(cache, videos_in(cache, ["1"]), "host", torch.device("cpu"))
    model = recognise.load_checkpoint(run.model).model
    due = score_test(run, cache, store, model)
    assert due.videos.tolist() == [0, 1, 2]
    for video, scores in zip(due.videos.tolist(), due.scores, strict=True):
        found = recogniser.predict(cache.root / cache.paths[video])
        np.testing.assert_allclose(found.scores, scores, atol=1e-6)
        cached = recogniser.sum_up(recogniser.scored_clips_in(cache, video))
        np.testing.assert_allclose(cached.scores, scores, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "uint8"])
def test_features_are_rounded_as_a_cache_holds_them(make_run, cache, monkeypatch, dtype) -> None:
    seen = []

    def watched(blocks, cut):
        for clips, X in stream_clips(blocks, cut):
            seen.append(X)
            yield clips, X

    monkeypatch.setattr(recognise, "stream_clips", watched)
    recogniser = make_run()
    assert recogniser.features["dtype"] == "float16"
    recogniser.features["dtype"] = dtype
    recogniser.predict(cache.root / cache.paths[1])
    due = cache.read(int(cache.first_frames[1]), 30)
    due = (to_float(to_uint8(due)) if dtype == "uint8" else due).reshape(30, 49, 1024)
    assert (torch.cat(seen)[0].numpy() == due).all()


def test_clips_say_when_they_are(make_run, cache) -> None:
    recogniser = make_run(fps=12.5)  # every 2nd frame: a clip spans 59 of the 75
    ((first, *others),) = map(list, recogniser.scored_clips([cache.root / cache.paths[0]]))
    assert first.positions.tolist() == list(range(0, 60, 2))
    assert first.seconds == (0, 59 / 25)
    assert [clip.positions[0] for clip in others] == [4, 8, 12, 16]
    assert first.maps.shape == (30, 49)
    np.testing.assert_allclose(first.maps.sum(1), 1, rtol=1e-5)
    np.testing.assert_allclose(first.frame_scores.mean(0), first.scores, rtol=1e-5)
    (short,) = next(recogniser.scored_clips([cache.root / cache.paths[2]]))
    assert short.positions.tolist() == [0, 2, 4, 6, 8, 10]
    assert len(short.maps) == len(short.frame_scores) == 6


def test_a_frame_in_several_clips_has_the_mean_of_their_maps(make_run, cache) -> None:
    recogniser = make_run()
    attention = recogniser.attend(cache.root / cache.paths[0])
    clips = list(next(recogniser.scored_clips([cache.root / cache.paths[0]])))
    assert len(clips) == 12
    assert attention.positions.tolist() == list(range(74))
    for position in (0, 3, 4, 40, 73):
        own = [clip for clip in clips if position in clip.positions]
        for name in ("maps", "frame_scores"):
            mean = np.mean([getattr(it, name)[position - it.positions[0]] for it in own], axis=0)
            np.testing.assert_allclose(getattr(attention, name)[position], mean, rtol=1e-5)
    scores = recogniser.predict(cache.root / cache.paths[0]).scores
    np.testing.assert_allclose(attention.prediction.scores, scores)
    assert attention.frame_rate == 25


def test_bad_videos_raise_and_the_next_is_read(make_run, cache, tmp_path) -> None:
    recogniser = make_run()
    whole = (cache.root / cache.paths[0]).read_bytes()
    (tmp_path / "cut.avi").write_bytes(whole[: len(whole) // 2])
    paths = [tmp_path / "gone.avi", tmp_path / "cut.avi", cache.root / cache.paths[1]]
    videos = recogniser.scored_clips(paths)
    with pytest.raises(VideoError, match="cannot be opened"):
        recogniser.sum_up(next(videos))
    with pytest.raises(VideoError, match="truncated"):
        recogniser.sum_up(next(videos))
    assert len(list(next(videos))) == 1
    with pytest.raises(VideoError, match=r"gone\.avi"):
        recogniser.predict(tmp_path / "gone.avi")


def test_videos_are_read_in_turn(make_run, cache) -> None:
    first, second = make_run().scored_clips([cache.root / path for path in cache.paths[:2]])
    with pytest.raises(ValueError, match="before the next"):
        list(first)
    del second


def test_a_model_without_attention_attends_to_nothing(make_run, cache) -> None:
    recogniser = make_run(model="max")
    with pytest.raises(RunError, match="no attention to draw"):
        recogniser.attend(cache.root / cache.paths[1])
    assert next(next(recogniser.scored_clips([cache.root / cache.paths[1]]))).maps is None


def test_scores_that_are_no_numbers_are_refused(make_run) -> None:
    clip = ScoredClip(np.arange(1), 30.0, np.full(3, np.nan), np.zeros((1, 3)), None)
    with pytest.raises(RunError, match="not numbers"):
        make_run().sum_up([clip])


def test_what_it_was_trained_on(make_run, cache, tmp_path, monkeypatch) -> None:
    recogniser = make_run()
    root = cache.root
    monkeypatch.chdir(root)
    tests, trains = ([Path(path) for path in cache.paths[part]] for part in (TESTS, TRAINS))
    link, other = tmp_path / "link.avi", tmp_path / trains[0].name
    link.symlink_to(root / trains[1])
    told = recogniser.trained_on([*tests, other, link, root / trains[0], trains[2]])
    assert told == [link, root / trains[0], trains[2]]
    run = recogniser.run
    for other in (
        replace(run, folder=tmp_path / "imported"),  # there is no state in it
        replace(run, cache=tmp_path / "gone.h5"),
    ):
        monkeypatch.setattr(recogniser, "run", other)
        assert recogniser.trained_on(trains) == []


def test_the_top_classes() -> None:
    found = Prediction(np.array([0.2, 0.5, 0.3]), ["dive", "jump", "run"])
    assert found.top() == [("jump", 0.5)]
    assert found.top(9) == [("jump", 0.5), ("run", 0.3), ("dive", 0.2)]


def test_load_refuses_at_once_what_has_no_weights(cache, tmp_path) -> None:
    run = create_run(tmp_path / "run", CONFIG, cache)
    with pytest.raises(RunError, match="has the run finished"):
        attnact.load(run.folder)
    store = open_store(cache, videos_in(cache, ["1"]), "host", torch.device("cpu"))
    train(run, cache, store)
    with pytest.raises(WeightsError, match="are gone"):
        attnact.load(str(run.folder))
    with pytest.raises(WeightsError, match="no weights at"):
        attnact.load(run.folder, weights=tmp_path / "none.safetensors")


def test_the_package_alone_is_light() -> None:
    program = "import sys, attnact; attnact.load; print('torch' in sys.modules)"
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"
