"""Clip scores to video scores to the data set's metric, as the paper does; and how it looked."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from sklearn.metrics import average_precision_score, confusion_matrix
from torch import Tensor

from attnact.errors import RunError
from attnact.machine import ranks
from attnact.machine.progress import progress
from attnact.model.models import Model
from attnact.train.config import CLIP_FRAMES, TrainConfig
from attnact.train.feed.clips import Clips, Ints, windows
from attnact.train.feed.places import FeatureStore
from attnact.train.feed.store import batches
from attnact.train.loss import clip_loss

MASS = 0.9  # of the attention; the spread is the share of locations that hold it

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class VideoScores:
    """What a model makes of some videos; one row a video, in the order of `videos`.

    videos: positions in the cache, (V,).
    scores: a probability for each class, (V, N).
    loss: mean over the clips of Σ_t cross-entropy_t.
    attention: entropy and spread of the attention maps of each video, averaged over its frames and
        clips, (V, 2); None for a model without attention. The entropy is in nats: ln 49 = 3.89
        looks everywhere, 0 at one location. The spread is the share of the locations that hold
        90 % of a map.
    """

    videos: Ints
    scores: Floats
    loss: float
    attention: Floats | None


def score_videos(
    model: Model, store: FeatureStore, clips: Clips, labels: Tensor, config: TrainConfig
) -> VideoScores:
    """Scores every clip, and every video by its clips (section 4.2).

    A clip's scores are the mean over its steps, or over the last `scored_steps` of them. A video's
    are the mean over its clips, or with `vote="majority"`, as the released code does, the share of
    clips that vote for a class, the mean deciding between equals.

    Args:
        model: in any mode; it is left as it was.
        store: holds the features of the clips.
        clips: of whole videos.
        labels: of every video of the cache, on the store's device.
        config: gives the size of a training batch, the scored steps, the vote and the penalty.

    Raises:
        RunError: the model has come to weights that make no numbers.
    """
    videos, row = np.unique(clips.video, return_inverse=True)
    count = np.bincount(row, minlength=len(videos))
    mean = np.zeros((len(videos), model.config.classes))
    votes = np.zeros_like(mean)
    looks = np.zeros((len(videos), 2))  # summed entropy and spread
    loss, done, attends = 0.0, 0, False
    was_training = model.training
    model.eval()
    with torch.inference_mode(), progress("scoring", len(clips), "clips") as advance:
        for clip_scores, seen, entropy in ranks.in_turn(
            _scored(model, store, clips, labels, config)
        ):
            here = row[done : done + len(clip_scores)]
            np.add.at(mean, here, clip_scores)
            np.add.at(votes, here, clip_votes(clip_scores, labels.ndim == 2))
            if seen is not None:
                attends = True
                np.add.at(looks, here, seen)
            loss += entropy
            done += len(here)
            advance(len(here), "")
    model.train(was_training)
    video_scores = sum_up(mean, votes, count[:, None], config)
    looks = looks / count[:, None]
    return VideoScores(videos, video_scores, loss / len(clips), looks if attends else None)


def _scored(
    model: Model, store: FeatureStore, clips: Clips, labels: Tensor, config: TrainConfig
) -> Iterator[tuple[Floats, Floats | None, float]]:
    """Of each batch whose turn it is here: the clips' scores, entropy and spread, summed loss.

    The batches are those of one process, so that the scores are the same to the bit.
    """
    size = _clips_at_once(clips, config)
    mine = np.arange(len(clips)) // size % ranks.count() == ranks.rank()
    for batch in batches(store, clips[np.flatnonzero(mine)], None, size):
        scores, maps = model(batch.X, batch.mask)
        target = labels[torch.from_numpy(batch.video).to(labels.device)]
        losses = clip_loss(scores, maps, target, batch.mask, config.penalty_form)
        chances = probabilities(scores, target.ndim == 2)
        seen = None if maps is None else masked_steps(look_measures(maps), batch.mask)
        yield (
            score_clips(chances, batch.mask, config),
            None if seen is None else seen.cpu().numpy(),
            float(losses.cross_entropy.sum()),
        )


def _clips_at_once(clips: Clips, config: TrainConfig) -> int:
    """How many clips to score at a time, the same in all processes.

    Larger products are faster: up to four times as many as in training, where they share so many
    frames that these take no more memory.
    """
    every, size = np.arange(len(clips)), config.batch_size
    for more in (4 * size, 2 * size):
        parts = (clips[every[start : start + more]] for start in range(0, len(clips), more))
        if all(len(windows(part)[0]) <= size * CLIP_FRAMES for part in parts):
            return more
    return size


def probabilities(scores: Tensor, multi_label: bool) -> Tensor:
    """What a model's scores (..., N) say of each class, between 0 and 1."""
    return scores.sigmoid() if multi_label else scores.softmax(-1)


def score_clips(chances: Tensor, mask: Tensor, config: TrainConfig) -> Floats:
    """The scores of clips, (B, N), from the probabilities (B, T, N) at their steps."""
    scored = last_steps(mask, config.scored_steps)
    scores: Floats = masked_steps(chances, scored).double().cpu().numpy()
    return scores


def sum_up(total: Floats, votes: Floats, count: Ints | int, config: TrainConfig) -> Floats:
    """The scores of videos, (..., N), from the sums of their clips' scores and votes.

    Raises:
        RunError: the model has come to weights that make no numbers.
    """
    if not np.isfinite(total).all():
        raise RunError("the scores are not numbers any more; try a smaller --learning-rate")
    mean: Floats = total / count
    return mean if config.vote == "mean" else (votes + mean) / (count + 1)


def look_measures(maps: Tensor) -> Tensor:
    """Entropy and spread of attention maps (..., L), as (..., 2)."""
    entropy = torch.special.entr(maps).sum(-1)
    held = maps.sort(dim=-1, descending=True).values.cumsum(-1)
    needed = 1 + (held < MASS).sum(-1).clamp(max=maps.shape[-1] - 1)
    return torch.stack((entropy, needed / maps.shape[-1]), dim=-1)


def masked_steps(values: Tensor, mask: Tensor) -> Tensor:
    """The mean over the steps that count of values (B, T, K), as (B, K)."""
    return torch.einsum("btk,bt->bk", values, mask) / mask.sum(1, keepdim=True)


def last_steps(mask: Tensor, count: int) -> Tensor:
    """The mask (B, T) of the last `count` of the steps that count."""
    after = mask.flip(1).cumsum(1).flip(1)  # steps that count from here on
    return mask * (after <= count)


def metric_name(multi_label: bool) -> str:
    """The metric that the data set is judged by."""
    return "mAP" if multi_label else "accuracy"


def metric(scores: Floats, labels: npt.NDArray[np.int64]) -> float:
    """Accuracy for class indices (V,), mean average precision for rows of 0 and 1 (V, N)."""
    if labels.ndim == 1:
        return float((scores.argmax(1) == labels).mean())
    return float(np.nanmean(average_precisions(scores, labels)))


def average_precisions(scores: Floats, labels: npt.NDArray[np.int64]) -> Floats:
    """Average precision of each class, not interpolated, (N,); NaN for a class never seen."""
    return np.array(
        [
            average_precision_score(labels[:, n], scores[:, n]) if labels[:, n].any() else np.nan
            for n in range(labels.shape[1])
        ]
    )


def confusion(scores: Floats, labels: npt.NDArray[np.int64]) -> Ints:
    """Videos of each true class (row) given each predicted class (column), (N, N)."""
    matrix: Ints = confusion_matrix(labels, scores.argmax(1), labels=range(scores.shape[1]))
    return matrix


def clip_votes(scores: Floats, multi_label: bool) -> Floats:
    """The classes (B, N) that clips with these scores vote for, 1 for each."""
    if multi_label:
        return (scores > 0.5).astype(np.float64)
    votes: Floats = np.eye(scores.shape[1])[scores.argmax(1)]
    return votes
