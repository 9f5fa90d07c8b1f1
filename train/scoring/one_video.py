"""What a model makes of one video: of a clip, of the whole, and of each frame."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from attnact.train.feed.clips import Ints
from attnact.train.scoring.scores import Floats


class ScoredClip(NamedTuple):
    """What the model makes of one clip, of n distinct frames of a video.

    positions: of the frames in the video, (n,).
    frame_rate: of the video.
    scores: a probability for each class, (N,).
    frame_scores: the same after each frame, (n, N).
    maps: the attention map of each frame, (n, L); None for a model without attention.
    """

    positions: Ints
    frame_rate: float
    scores: Floats
    frame_scores: npt.NDArray[np.float32]
    maps: npt.NDArray[np.float32] | None

    @property
    def seconds(self) -> tuple[float, float]:
        """When its first frame begins and its last one ends."""
        first, last = int(self.positions[0]), int(self.positions[-1])
        return first / self.frame_rate, (last + 1) / self.frame_rate


@dataclass(frozen=True)
class Prediction:
    """The scores of a video, (N,), as `attnact evaluate` would give them, and the classes."""

    scores: Floats
    classes: list[str]

    def top(self, count: int = 1) -> list[tuple[str, float]]:
        """The classes with the highest scores, highest first."""
        order = np.argsort(-self.scores, kind="stable")[:count].tolist()
        return [(self.classes[n], float(self.scores[n])) for n in order]


@dataclass(frozen=True)
class Attention:
    """Where the model looks in a video, and what it says meanwhile; means over a frame's clips.

    positions: of the frames that stand in some clip, ascending, (n,).
    frame_rate: of the video.
    maps: the attention map of each, (n, L).
    frame_scores: the probability of each class at each, (n, N).
    prediction: for the whole video.
    """

    positions: Ints
    frame_rate: float
    maps: npt.NDArray[np.float32]
    frame_scores: npt.NDArray[np.float32]
    prediction: Prediction
