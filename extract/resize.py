"""Frames as the backbone sees them: 224×224, whatever the video's size.

The same pixels come out on every device. To round once, not after each of two passes, changes every
sixth of them by one, and by that the features by some 3 %.
"""

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
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
    made: Frame = resized(torch.from_numpy(np.ascontiguousarray(frames)), how).numpy()
    return made


def resized(frames: Tensor, how: Resize) -> Tensor:
    """The same of uint8 frames on any device, where they are."""
    side = FRAME_SIDE if how == "squash" else UNCROPPED_SIDE
    sample = sample_by_torch if frames.device.type == "cpu" else sample_by_products
    first = (side - FRAME_SIDE) // 2
    seen = sample(frames, side)[:, first : first + FRAME_SIDE, first : first + FRAME_SIDE]
    return seen.contiguous()


def sample_by_torch(frames: Tensor, side: int) -> Tensor:
    """Frames (n, height, width, 3) of this side, on a CPU: torch samples whole numbers there."""
    pixels = frames.permute(0, 3, 1, 2)
    made = interpolate(pixels, (side, side), mode="bilinear", antialias=True)
    return made.permute(0, 2, 3, 1)


def sample_by_products(frames: Tensor, side: int) -> Tensor:
    """The same bits, for a GPU: each pass is a product with a matrix of whole numbers."""
    across = _along(frames, 2, side)  # (n, height, 3, side)
    return _along(across, 1, side).permute(0, 3, 2, 1)


def seen_part(frame: Frame, how: Resize) -> Frame:
    """What of a frame the backbone sees, in the frame's own pixels."""
    if how == "squash":
        return frame
    height, width = frame.shape[:2]
    unseen = (1 - FRAME_SIDE / UNCROPPED_SIDE) / 2  # on each side
    top, left = round(unseen * height), round(unseen * width)
    return frame[top : height - top, left : width - left]


def _along(pixels: Tensor, dim: int, side: int) -> Tensor:
    """One pass along a dimension, which becomes the last.

    A product in float32 is exact, in whatever order it sums, as long as no sum passes 2^24. With
    half a byte at a time none does, up to 14,000 pixels.
    """
    weights, bits = _weights(pixels.shape[dim], side)
    there = weights.to(pixels.device)
    halves = (pixels >> 4, pixels & 15)
    high, low = (torch.tensordot(it.float(), there, ([dim], [0])).int() for it in halves)
    rounded: Tensor = (high * 16 + low + (1 << bits - 1)) >> bits
    return rounded.clamp_(0, 255).to(torch.uint8)


@lru_cache(64)
def _weights(size: int, side: int) -> tuple[Tensor, int]:
    """How much each of `side` pixels takes of each of `size`, (size, side), times 2 to the bits.

    As torch has it for whole numbers (aten/src/ATen/native/cpu/UpSampleKernel.cpp): a triangle as
    wide as a pixel is there, with as many bits as leave the largest weight below 2^15.
    """
    scale = size / side
    centres = (torch.arange(side, dtype=torch.float64) + 0.5) * scale
    far = torch.arange(size, dtype=torch.float64)[:, None] + 0.5 - centres
    triangle = (1 - far.abs() / max(scale, 1)).clamp_(0)
    shares = triangle / triangle.sum(0)
    bits = 0
    while bits < 22 and int(shares.max() * 2 ** (bits + 1) + 0.5) < 1 << 15:
        bits += 1
    return (shares * 2**bits + 0.5).floor().float(), bits
