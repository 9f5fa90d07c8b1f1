"""Clip scores to video scores to metrics: against naive loops and scikit-learn on the CSV."""

import csv
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, average_precision_score
from torch import Tensor, nn

from attnact.cache.features import FeatureCache
from attnact.errors import RunError
from attnact.model.windows import Windows
from attnact.train.config import TrainConfig
from attnact.train.feed.clips import cut_clips
from attnact.train.feed.places import MemoryStore
from attnact.train.scoring.predictions import (
    write_predictions,
)
from attnact.train.scoring.scores import (
    VideoScores,
    _clips_at_once,
    average_precisions,
    confusion,
    last_steps,
    look_measures,
    masked_steps,
    metric,
    score_videos,
)

CPU = torch.device("cpu")
CONFIG = TrainConfig(batch_size=5)
VIDEOS = np.array([9, 1, 8, 0, 3, 5, 6, 4])  # of 4, 2 and 1 clips
STRIDE = 1
VIDEO = "video (features of random weights)"  # those of this cache


class FirstFrame(nn.Module):
    """Scores and looks by noise of each clip's first frame, so that a video's clips disagree."""

    config = SimpleNamespace(classes=3)

    def forward(self, clips: Windows, mask: Tensor) -> tuple[Tensor, Tensor]:
        assert not self.training
        X = clips.gather(clips.frames)
        ramp = torch.linspace(1, 2, X.shape[1])[:, None]
        scores = 6 * (X[:, :1, 0, 512:515] - 0.5) * ramp
        return scores, (X[:, :, :, 520] * 5).softmax(-1)


def score(cache: FeatureCache, config: TrainConfig = CONFIG) -> VideoScores:
    clips = cut_clips(cache, VIDEOS, fps=30, stride=STRIDE, form=config.clip_form)
    labels = torch.from_numpy(cache.labels)
    model = FirstFrame().train()
    store = MemoryStore(cache, VIDEOS, CPU, CPU)
    scored = score_videos(model, store, clips, labels, config)  # type: ignore[arg-type]
    assert model.training  # left as it was
    return scored


@pytest.mark.parametrize(("frames", "stride", "expected"), [(60, 1, 20), (20, 1, 5), (70, 10, 10)])
def test_batches_take_no_more_frames_than_in_training(
    make_cache, tmp_path, frames: int, stride: int, expected: int
) -> None:
    """Clips that share frames are scored more at a time; videos shorter than a clip share none."""
    cache = make_cache(tmp_path / "x.h5", videos=24, frames=lambda _: frames)
    clips = cut_clips(cache, np.arange(24), fps=30, stride=stride, form="paper")
    assert _clips_at_once(clips, replace(CONFIG, test_stride=stride)) == expected


def naive(cache: FeatureCache, video: int, kept: bool) -> list[dict[str, Any]]:
    """Each clip of a video: its class scores, loss, entropy and spread, a step at a time."""
    with h5py.File(cache.path) as file:
        first, count = int(cache.first_frames[video]), int(cache.frame_counts[video])
        cubes = file["features"][first : first + count].astype(float)
        frames = cubes.reshape(count, 1024, 49).swapaxes(1, 2)
    clips = []
    for start in range(0, max(1, count - 29), STRIDE):
        clip = frames[start : start + 30]
        if kept:
            clip = np.concatenate([clip, np.repeat(clip[-1:], 30 - len(clip), axis=0)])
        p_sum, loss, entropy, spread = np.zeros(3), 0.0, 0.0, 0.0
        for t, cube in enumerate(clip):
            s = 6 * (clip[0, 0, 512:515] - 0.5) * (1 + t / 29)
            label = cache.labels[video]
            if cache.multi_label:
                p = 1 / (1 + np.exp(-s))
                loss -= np.log(np.where(label, p, 1 - p)).sum()
            else:
                p = np.exp(s) / np.exp(s).sum()
                loss -= np.log(p[label])
            p_sum += p
            look = np.exp(5 * cube[:, 520]) / np.exp(5 * cube[:, 520]).sum()
            entropy -= (look * np.log(look)).sum()
            held, shares = 0.0, sorted(look, reverse=True)
            while held < 0.9:
                held += shares.pop(0)
            spread += (49 - len(shares)) / 49
        T = len(clip)
        means = {"scores": p_sum / T, "entropy": entropy / T, "spread": spread / T}
        clips.append({"loss": loss, **means})
    return clips


@pytest.mark.parametrize("form", ["paper", "released"])
@pytest.mark.parametrize("name", ["cache", "multi_label_cache"])
def test_mean_over_steps_clips_and_videos(name: str, form: Any, request: Any) -> None:
    cache: FeatureCache = request.getfixturevalue(name)
    scored = score(cache, replace(CONFIG, clip_form=form))
    assert scored.videos.tolist() == sorted(VIDEOS)
    clips = [naive(cache, video, form == "released") for video in sorted(VIDEOS)]
    assert {len(of_video) for of_video in clips} == {1, 2, 4}
    expected = [sum(clip["scores"] for clip in of_video) / len(of_video) for of_video in clips]
    np.testing.assert_allclose(scored.scores, expected, atol=1e-6)
    losses = [clip["loss"] for of_video in clips for clip in of_video]
    assert scored.loss == pytest.approx(sum(losses) / len(losses), rel=1e-5)
    assert scored.attention is not None
    for found, measure in zip(scored.attention.T, ("entropy", "spread"), strict=True):
        of_videos = [sum(clip[measure] for clip in cs) / len(cs) for cs in clips]
        assert found.tolist() == pytest.approx(of_videos, rel=1e-5)


def test_scores_that_are_no_numbers(cache: FeatureCache, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their best class would be the first, and its share of the videos the accuracy."""
    right = FirstFrame.forward

    def broken(self: Any, X: Any, mask: Any) -> Any:
        scores, maps = right(self, X, mask)
        return scores * torch.nan, maps

    monkeypatch.setattr(FirstFrame, "forward", broken)
    with pytest.raises(RunError, match="the scores are not numbers"):
        score(cache)


def test_majority_vote(make_cache, tmp_path: Path) -> None:
    cache = make_cache(tmp_path / "x.h5", frames=lambda video: 35)  # 6 clips a video
    scored = score(cache, replace(CONFIG, vote="majority"))
    ties = differ = 0
    for video, scores in zip(scored.videos, scored.scores, strict=True):
        clips = naive(cache, int(video), kept=False)
        votes = [int(clip["scores"].argmax()) for clip in clips]
        mean = sum(clip["scores"] for clip in clips) / len(clips)
        counts = [votes.count(n) for n in range(3)]
        winners = [n for n in range(3) if counts[n] == max(counts)]
        ties += len(winners) > 1
        winner = max(winners, key=lambda n: mean[n])
        differ += mean.argmax() != winner
        assert scores.argmax() == winner
        assert 0 <= scores.min() <= scores.max() <= 1
    assert ties  # or this does not test them
    assert differ  # from the vote by the mean


def test_majority_vote_of_several_classes(multi_label_cache: FeatureCache) -> None:
    """More votes always give a higher score, and the mean orders equals: what mAP reads."""
    scored = score(multi_label_cache, replace(CONFIG, vote="majority"))
    for video, scores in zip(scored.videos, scored.scores, strict=True):
        clips = naive(multi_label_cache, int(video), kept=False)
        votes = sum((clip["scores"] > 0.5).astype(int) for clip in clips)
        mean = sum(clip["scores"] for clip in clips) / len(clips)
        order = sorted(range(3), key=lambda n: (votes[n], mean[n]))
        assert scores.argsort().tolist() == order


@pytest.mark.parametrize("name", ["cache", "multi_label_cache"])
@pytest.mark.parametrize("vote", ["mean", "majority"])
def test_metrics_from_the_csv_by_scikit_learn(
    name: str, vote: Any, request: Any, tmp_path: Path
) -> None:
    cache: FeatureCache = request.getfixturevalue(name)
    scored = score(cache, replace(CONFIG, vote=vote))
    write_predictions(tmp_path / "predictions.csv", cache, scored)
    with (tmp_path / "predictions.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row[VIDEO] for row in rows] == [cache.paths[video] for video in scored.videos]
    scores = np.array([[float(row[name]) for name in cache.classes] for row in rows])
    assert np.array_equal(scores, scored.scores)
    value = metric(scored.scores, cache.labels[scored.videos])
    assert [row["prediction"] for row in rows] == [cache.classes[s.argmax()] for s in scores]
    if cache.multi_label:
        true = np.array([[n in row["label"].split("|") for n in cache.classes] for row in rows])
        assert value == pytest.approx(average_precision_score(true, scores, average="macro"))
        return
    labels, guesses = ([row[key] for row in rows] for key in ("label", "prediction"))
    assert value == accuracy_score(labels, guesses)
    matrix = confusion(scored.scores, cache.labels[scored.videos])
    for (true, guess), count in np.ndenumerate(matrix):
        pair = (cache.classes[true], cache.classes[guess])
        assert count == list(zip(labels, guesses, strict=True)).count(pair)


def test_average_precision_is_not_interpolated() -> None:
    """By hand: of the ranks 1, 3 and 4 that hold, precisions 1/1, 2/3 and 3/4."""
    labels = np.array([[1, 0], [0, 0], [1, 0], [1, 0]])
    scores = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.3], [0.1, 0.4]])
    found = average_precisions(scores, labels)
    assert found[0] == pytest.approx((1 + 2 / 3 + 3 / 4) / 3)
    assert math.isnan(found[1])  # never seen, so it has no part in the mean
    assert metric(scores, labels) == found[0]


def test_confusion_keeps_classes_never_seen() -> None:
    scores = np.eye(4)[[0, 2, 2]]
    found = confusion(scores, np.array([0, 0, 2]))
    assert found.tolist() == [[1, 0, 1, 0], [0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]


def test_look_measures() -> None:
    uniform, point = torch.full((49,), 1 / 49), torch.eye(49)[17]
    half = torch.zeros(49)
    half[:2] = 0.5
    found = look_measures(torch.stack([uniform, point, half])).tolist()
    assert found[0] == pytest.approx([math.log(49), math.ceil(0.9 * 49) / 49], rel=1e-5)
    assert found[1] == pytest.approx([0, 1 / 49])
    assert found[2] == pytest.approx([math.log(2), 2 / 49])


def test_masked_steps() -> None:
    values = torch.tensor([[[1.0, 2.0], [3.0, 6.0], [50.0, -50.0]]])
    assert masked_steps(values, torch.tensor([[1.0, 1.0, 0.0]])).tolist() == [[2.0, 4.0]]


def test_last_steps_that_count() -> None:
    mask = torch.tensor([[1.0, 1, 1, 1], [1, 1, 1, 0], [1, 0, 0, 0]])
    expected = [[0, 0, 1, 1], [0, 1, 1, 0], [1, 0, 0, 0]]
    assert last_steps(mask, 2).tolist() == expected
    assert torch.equal(last_steps(mask, 4), mask)
