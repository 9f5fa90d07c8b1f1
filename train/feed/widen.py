"""Feature cubes of frames, in the cache's own compact type until the step that works on them."""

from typing import NamedTuple

import torch
from torch import Tensor

from attnact.cache.compact import STEPS
from attnact.model.fused import fuses, widen_uint8

FRAMES_AT_ONCE = 16  # of 200 KB each in float32: what a CPU's caches hold


class Stored(NamedTuple):
    """Feature cubes as a cache stores them; see `attnact.cache.compact`.

    cubes: (n, L, C), float16, float32 or uint8; the channels need not lie beside each other.
    scales: (n, L), the largest feature of each location where the cubes are uint8, else None.
    """

    cubes: Tensor
    scales: Tensor | None

    def to(self, device: torch.device) -> "Stored":
        """The same on a device; from pinned memory the copy goes on while others work."""
        cubes = self.cubes.to(device, non_blocking=True)
        scales = self.scales
        return Stored(cubes, scales if scales is None else scales.to(device, non_blocking=True))


def widen(stored: Stored, wide: Tensor) -> Tensor:
    """The features as floats, written to `wide`, (n, L, C) of any float."""
    cubes, scales = stored
    if scales is None:
        return wide.copy_(cubes)
    roots = scales.sqrt() / STEPS  # s (q / 255)² is (q √s / 255)²
    if wide.is_contiguous() and fuses(wide.device):
        return widen_uint8(cubes, roots, wide)
    roots = roots.unsqueeze(-1)
    if wide.dtype == torch.float32:
        return wide.copy_(cubes).mul_(roots).square_()
    # Rounded once, at the end.
    some = FRAMES_AT_ONCE if wide.device.type == "cpu" else len(wide)
    for here, part, root in zip(*(torch.split(x, some) for x in (wide, cubes, roots)), strict=True):
        here.copy_(part.float().mul_(root).square_())
    return wide
