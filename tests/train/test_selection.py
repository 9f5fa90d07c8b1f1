"""What is held out of the training videos, and which epoch it chooses."""

import numpy as np
import pytest

from attnact.errors import RunError
from attnact.train.config import TrainConfig
from attnact.train.selection import SELECTION, best_epoch, cost, hold_out


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("share", [0.01, 0.3, 0.6])
def test_hold_out(seed: int, share: float) -> None:
    """Whole groups, some on each side, about the share that was asked for."""
    videos = np.random.default_rng(seed).permutation(60)[:50]
    groups = [f"g{video // 6}" for video in range(60)]
    fit, held = hold_out(videos, groups, TrainConfig(validation=share, seed=seed))
    assert sorted([*fit, *held]) == sorted(videos)
    assert not {groups[video] for video in fit} & {groups[video] for video in held}
    assert len({groups[video] for video in held}) == max(1, round(10 * share))


def test_hold_out_of_one_group() -> None:
    with pytest.raises(RunError, match="of one group: none can be held out; --validation 0"):
        hold_out(np.arange(3), ["a"] * 3, TrainConfig())
    with pytest.raises(RunError, match=r"--validation 0\.9 of 3 groups of videos leaves none"):
        hold_out(np.arange(3), ["a", "b", "c"], TrainConfig(validation=0.9))


def test_the_best_epoch_is_of_the_selection_alone() -> None:
    lines = [
        {"phase": SELECTION, "epoch": 1, "validation": 0.5, "validation_loss": 2.0},
        {"phase": SELECTION, "epoch": 2, "validation": 0.5, "validation_loss": 1.0},
        {"phase": SELECTION, "epoch": 3, "validation": 0.4, "validation_loss": 0.5},
        {"phase": "final", "epoch": 1, "loss": 0.0, "penalty": 0.0},
    ]
    assert best_epoch(lines)["epoch"] == 2


def test_what_an_epoch_cost() -> None:
    assert cost(TrainConfig(attention_penalty=10.0), {"loss": 3.0, "penalty": 0.5}) == 8.0
