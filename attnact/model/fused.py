"""What a GPU does in one kernel where torch has an operator for every sign of a formula.

Its time goes into the many passes over memory and their beginnings, not into arithmetic: with these
a training step takes half as long. The kernels are Triton's, which comes with torch for CUDA on
Linux and compiles them at first use; where it is not, or cannot, torch's operators do the same.
"""

from functools import cache
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from attnact.machine.progress import note

BLOCK, STRETCH = 256, 128  # numbers of a row that a program works on; and a warp by itself


@cache
def fuses(device: torch.device) -> bool:
    """Whether there are kernels for this device; where a GPU goes without, it says why."""
    if device.type != "cuda":
        return False
    try:
        cubes = torch.ones(1, 1, 1, dtype=torch.uint8, device=device)
        for dtype in (torch.float32, torch.bfloat16):  # which old ones of both do not know
            wide = torch.empty(1, 1, 1, dtype=dtype, device=device)
            widen_uint8(cubes, torch.ones(1, 1, device=device), wide)
    except torch.cuda.OutOfMemoryError:
        raise
    except Exception as error:  # no Triton, no C compiler for it, a GPU that it does not know
        reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
        note(f"{device}: Triton does not work here ({reason}): training takes up to twice as long")
        return False
    return True


def lstm_step(
    raw: Tensor,
    bias: Tensor,
    cell: Tensor,
    next_cell: Tensor,
    hidden: Tensor,
    kept: Tensor | None,
    out: Tensor,
) -> Tensor:
    """The gates i, f, o after their sigmoids, and σ(−2x) for g, (B, 4H), in float32.

    raw: what they are without their biases (4H,), of any float.
    cell: the cell state, (B, H); the next one is written to `next_cell`, and the hidden state to
        `hidden`, of any float, whose rows need not lie beside each other.
    kept: what of the hidden state is not dropped in `out`, of any float, where it goes too.
    """
    B, H = cell.shape
    gates = torch.empty_like(raw, dtype=cell.dtype)
    sizes = {"H": H, "BLOCK": BLOCK, "DROPS": kept is not None}
    with _on(raw.device):
        _kernels().lstm_step[B, -(-H // BLOCK)](
            *(raw, bias, cell, gates, next_cell, hidden, hidden.stride(0)),
            *(raw if kept is None else kept, out, out.stride(0)),
            **sizes,
        )
    return gates


def lstm_step_back(
    above: Tensor,
    kept: Tensor | None,
    own: Tensor,
    gates: Tensor,
    cell: Tensor,
    next_cell: Tensor,
    dcell: Tensor,
    dgates: Tensor,
) -> None:
    """Back through `lstm_step`: writes the gradient of `raw` to `dgates`.

    above, own: the two parts of the gradient of the hidden state, (B, H), of any float.
    kept: what of the first part was not dropped, (B, H).
    dcell: the gradient of the next cell state, float32, which becomes that of `cell`.
    """
    B, H = cell.shape
    sizes = {"H": H, "BLOCK": BLOCK, "DROPS": kept is not None}
    with _on(cell.device):
        _kernels().lstm_step_back[B, -(-H // BLOCK)](
            *(*_rows(above), above if kept is None else kept, *_rows(own)),
            *(gates, cell, next_cell, dcell, dgates),
            **sizes,
        )


def look(hidden: Tensor, weights: Tensor, maps: Tensor) -> None:
    """softmax(W h), written to `maps`, (B, L), float32 (eq. 4).

    hidden: (B, H), of any float. weights: W, (L, H).
    """
    L, H = weights.shape
    sizes = {"L": L, "H": H, **_tile(L)}
    with _on(hidden.device):
        _kernels().look[(len(hidden),)](*_rows(hidden), weights.contiguous(), maps, **sizes)


def look_back(draw: Tensor, weights: Tensor, dhidden: Tensor) -> None:
    """Back through `look`: Σ_l draw_l W_l of what its softmax took is added to `dhidden`, (B, H).

    draw: (B, L), of any float, and so is `dhidden`, whose rows need not lie beside each other.
    """
    L, H = weights.shape
    sizes = {"L": L, "H": H, "BLOCK": STRETCH, "num_warps": 1}
    with _on(draw.device):
        _kernels().look_back[len(draw), -(-H // STRETCH)](
            draw, weights.contiguous(), dhidden, dhidden.stride(0), **sizes
        )


def glimpse(maps: Tensor, x: Tensor, kept: Tensor | None, out: Tensor) -> None:
    """Σ_l maps_l x_l, less what is dropped, written to `out`, (B, C) of any float (eq. 5).

    maps: (B, L), float32. x: the features of a frame of each clip, (B, L, C), of any float.
    kept: what of the glimpse is not dropped, (B, C).
    """
    B, L, C = x.shape
    sizes = {"L": L, "C": C, "BLOCK": STRETCH, "num_warps": 1}
    with _on(x.device):
        _kernels().glimpse[B, -(-C // STRETCH)](
            *(maps, *_places(x), maps if kept is None else kept, out, out.stride(0)),
            **sizes,
            DROPS=kept is not None,
        )


def glimpse_back(
    above: Tensor, kept: Tensor | None, x: Tensor, maps: Tensor, dmaps: Tensor, draw: Tensor
) -> None:
    """Back through `glimpse` and the softmax that made its maps: what that took gets `draw`.

    above: the gradient of what `glimpse` wrote, (B, C), of any float.
    dmaps: the rest of the maps' gradient, (B, L), float32 and in one piece.
    draw: (B, L), of any float, in one piece.
    """
    B, L, C = x.shape
    with _on(x.device):
        _kernels().glimpse_back[(B,)](
            *(*_rows(above), above if kept is None else kept),
            *(*_places(x), maps, dmaps, draw),
            **{"L": L, "C": C, "DROPS": kept is not None, **_tile(L)},
        )


def widen_uint8(cubes: Tensor, roots: Tensor, wide: Tensor) -> Tensor:
    """(q r)² for the features q (n, L, C), uint8, and r (n, L), written to `wide`, of any float."""
    n, L, C = cubes.shape
    block = _power_of_two(C)
    with _on(cubes.device):
        _kernels().widen_uint8[(n * L,)](cubes, *cubes.stride(), roots, wide, L, C=C, BLOCK=block)
    return wide


def _kernels() -> Any:
    return import_module("attnact.model.kernels")


def _on(device: torch.device) -> torch.cuda.device:
    """Triton launches on the current device; of a CPU, where its interpreter runs, it is none."""
    return torch.cuda.device(device if device.type == "cuda" else -1)


def _power_of_two(least: int) -> int:
    return 1 << (least - 1).bit_length()


def _places(x: Tensor) -> tuple[Tensor, int, int]:
    """Features (B, L, C) whose channels lie beside each other, and the strides of the rest."""
    x = x if x.stride(2) == 1 else x.contiguous()
    return x, x.stride(0), x.stride(1)


def _rows(values: Tensor) -> tuple[Tensor, int]:
    """Values (B, H), each row in one piece, and how far apart the rows are."""
    values = values if values.stride(1) == 1 else values.contiguous()
    return values, values.stride(0)


def _tile(L: int) -> dict[str, int]:
    """All places of a clip beside some channels: what a program has of them at a time."""
    places = _power_of_two(L)
    return {"PLACES": places, "BLOCK": max(16, 2**14 // places), "num_warps": 16}
