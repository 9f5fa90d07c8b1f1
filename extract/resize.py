"""Frames as the backbone sees them: 224×224, whatever the video's size."""

import numpy as np
import torch
from torch.nn.functional import interpolate

from attnact.extract.video import Frame
from attnact.vocabulary import Resize

FRAME_SIDE = 224  # pixels, the side of the frame that GoogLeNet sees
UNCROPPED_SIDE = 256  # of the frame whose centre it sees, where it is cropped


def resize(frames: Frame, how: Resize) -> Frame:
    """The frames (n, height, width, 3) that the backbone sees, by antialiased bilinear sampling.

    `squash` is the paper's "resized to 224×224"; `crop`, the authors' later word on their issue
    tracker, resizes to 256×256 and keeps the centre. Neither keeps the aspect ratio. torch takes a
    fifth of the time that Pillow does, whose values are the same but for a rounding here or there.
    """
    side = FRAME_SIDE if how == "squash" else UNCROPPED_SIDE
    margin = (side - FRAME_SIDE) // 2
    pixels = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2)
    resized = interpolate(pixels, (side, side), mode="bilinear", antialias=True)
    seen = slice(margin, margin + FRAME_SIDE)
    made: Frame = resized[..., seen, seen].permute(0, 2, 3, 1).contiguous().numpy()
    return made


def seen_part(frame: Frame, how: Resize) -> Frame:
    """What of a frame the backbone sees, in the frame's own pixels."""
    if how == "squash":
        return frame
    height, width = frame.shape[:2]
    unseen = (1 - FRAME_SIDE / UNCROPPED_SIDE) / 2  # on each side
    top, left = round(unseen * height), round(unseen * width)
    return frame[top : height - top, left : width - left]
