"""Where something moves in a video, on the grid of the attention maps."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from attnact.cache.features import LOCATIONS, ROWS
from attnact.extract.frames.resize import FRAME_SIDE, resize
from attnact.extract.frames.video import Frame, read_frames
from attnact.vocabulary import Resize

CELL = FRAME_SIDE // ROWS  # pixels of the frame, in height and in width, to a location


def motion_maps(path: Path, how: Resize = "squash") -> npt.NDArray[np.float32]:
    """How much every location of every frame differs from the frame before it, (T, L).

    The mean of |difference| over a location's 32×32 pixels and over R, G and B, in levels from 0
    to 255: colours that change while the grey stays move as well. The first frame has none before
    it, so its motion is not known; its map is 0 everywhere, flat, and agrees with no other map.

    Args:
        path: of the video; a frame and the one before it are all that is held of it.
        how: the backbone's frames were resized, so that a location is the same place here.

    Raises:
        VideoError: the file is missing or broken.
    """
    maps: list[npt.NDArray[np.float32]] = []
    before: Frame | None = None
    for frame in read_frames(path):
        (now,) = resize(frame[None], how)
        maps.append(_difference(now, now if before is None else before))
        before = now
    return np.stack(maps)


def _difference(a: Frame, b: Frame) -> npt.NDArray[np.float32]:
    change = np.maximum(a, b) - np.minimum(a, b)  # a - b would wrap around below 0
    cells = change.reshape(ROWS, CELL, ROWS, CELL, 3)
    pooled: npt.NDArray[np.float32] = cells.mean((1, 3, 4), dtype=np.float32)
    return pooled.reshape(LOCATIONS)
