"""Frames as the backbone sees them: 224×224, whatever the video's size.

The same pixels come out on every device. To round once, not after each of two passes, changes every
sixth of them by one, and by that the features by some 3 %.
"""

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from attnact.extract.frames.video import Frame
from attnact.vocabulary import Resize

FRAME_SIDE = 224  # pixels, the side of the frame that GoogLeNet sees
UNCROPPED_SIDE = 256  # of the frame whose centre it sees, where it is cropped
HALF = 7  # bits of a weight, of which there are 15 at most


def resize(frames: Frame, how: Resize) -> Frame:
    """The frames (n, height, width, 3) that the backbone sees, by antialiased bilinear sampling.

    `squash` is the paper's "resized to 224×224"; `crop`, the authors' later word on their issue
    tracker, resizes to 256×256 and keeps the centre. Neither keeps the aspect ratio. torch takes a
    fifth of the time that Pillow does, whose values are the same but for a rounding here or there.
    """
    made: Frame = resize_tensor(torch.from_numpy(np.ascontiguousarray(frames)), how).numpy()
    return made


def resize_tensor(frames: Tensor, how: Resize) -> Tensor:
    """What `resize` makes, of uint8 frames on any device, in new memory there."""
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

    The product is exact in whatever order it sums: its factors are below 2^8, which TF32 holds too,
    and no sum passes 2^24, up to 50,000 pixels.
    """
    halves, bits = _weights(pixels.shape[dim], side, pixels.is_cuda)
    rows = pixels.movedim(dim, -1).contiguous().float()
    sums = (rows @ halves.to(pixels.device, non_blocking=True)).int()
    rounded = ((sums[..., :side] << HALF) + sums[..., side:] + (1 << (bits - 1))) >> bits
    return rounded.clamp_(0, 255).to(torch.uint8)


@lru_cache(64)
def _weights(size: int, side: int, pinned: bool = False) -> tuple[Tensor, int]:
    """How much each of `side` pixels takes of each of `size`, times 2 to the bits: whole numbers.

    In two halves beside each other, (size, 2 · side), what is above the last seven bits and these.
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
    whole = (shares * 2**bits + 0.5).int()
    halves = torch.cat([whole >> HALF, whole & ((1 << HALF) - 1)], 1).float()
    return (halves.pin_memory() if pinned else halves), bits
