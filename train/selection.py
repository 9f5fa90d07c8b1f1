"""Which videos a run trains on, and which it is tested on; and how the author chooses when to stop:
by videos held out of the training part, never by the test.

(On the tracker of the released code, issue 13; see `loop` for the whole of it.)
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from sklearn.model_selection import GroupShuffleSplit

from attnact.cache.features import FeatureCache
from attnact.errors import RunError
from attnact.train.config import TrainConfig
from attnact.train.feed.clips import Ints
from attnact.vocabulary import Split

SELECTION, FINAL = "selection", "final"  # the phases of a run


class Sides(NamedTuple):
    """The videos of a run, as positions in the cache.

    train, test: of its fold.
    fit, held: of those to train on the ones that fit, and those held out to choose the epoch; all
        and none without validation.
    """

    train: Ints
    test: Ints
    fit: Ints
    held: Ints


def fold_videos(cache: FeatureCache, fold: str, side: Split) -> Ints:
    """The videos, as positions in the cache, on one side of a fold."""
    return np.flatnonzero(cache.folds[fold] == side)


def sides_of(cache: FeatureCache, config: TrainConfig) -> Sides:
    """What a run with these choices trains and is tested on.

    Raises:
        RunError: there are no such videos, or too few groups of them to hold some out.
    """
    videos, test = (fold_videos(cache, config.fold, side) for side in (Split.TRAIN, Split.TEST))
    if not len(videos) or not len(test):
        failed = f" ({len(cache.failures)} videos failed)" if cache.failures else ""
        raise RunError(
            f"{cache.path}: fold {config.fold} has no videos to train or test on{failed}"
        )
    if not config.validation:
        return Sides(videos, test, videos, videos[:0])
    return Sides(videos, test, *hold_out(videos, cache.groups, config))


def hold_out(videos: Ints, groups: list[str], config: TrainConfig) -> tuple[Ints, Ints]:
    """The videos to fit and the videos to choose the epoch by; no group is on both sides.

    Raises:
        RunError: the videos are of one group only, or all groups would be held out.
    """
    names = np.array(groups)[videos]
    count = len(set(names))
    if count < 2:
        raise RunError("the training videos are of one group: none can be held out; --validation 0")
    share = max(config.validation, 1 / count)
    if math.ceil(share * count) == count:
        raise RunError(f"--validation {share:g} of {count} groups of videos leaves none to fit")
    split = GroupShuffleSplit(n_splits=1, test_size=share, random_state=config.seed)
    fit, held = next(split.split(videos, groups=names))
    return videos[fit], videos[held]


def best_epoch(history: list[dict[str, Any]]) -> dict[str, Any]:
    """The epoch that scored the held-out videos best; among equals, with the lowest loss."""
    chosen = [line for line in history if line["phase"] == SELECTION]
    return max(chosen, key=lambda line: (line["validation"], -line["validation_loss"]))


def cost(config: TrainConfig, epoch: Mapping[str, Any]) -> float:
    """What an epoch cost in training, the mean over its clips."""
    return float(epoch["loss"] + config.attention_penalty * epoch["penalty"])
