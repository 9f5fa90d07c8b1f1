"""Products with weights that many rows are multiplied by: every step of a recurrence has the same.

On a CPU, oneDNN, which comes with torch, brings such weights into an order of its own once, and
then multiplies faster than `torch.mm`: by a tenth to a fifth in float32, by half in bfloat16 where
the processor has AMX. `torch.compile` has it do so by the same two operators.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

_onednn: Any = torch.ops.mkldnn


class Weights:
    """The weights of M affine maps, (M, outputs, inputs), and perhaps their biases (M, outputs)."""

    def __init__(self, weights: Tensor, biases: Tensor | None = None) -> None:
        self._weights = weights
        if biases is not None:
            self._biases, self._near = biases, biases.to(weights.dtype)
        self._packed: list[Tensor] = []
        if _packs(weights):
            self._packed = [_onednn._reorder_linear_weight(it.contiguous()) for it in weights]

    def times(self, rows: Tensor) -> Tensor:
        """The rows (M, B, inputs) times the weights, without the bias: (M, B, outputs)."""
        if not self._packed:
            return torch.bmm(rows, self._weights.mT)
        each = zip(rows, self._packed, strict=True)
        return _together([_linear(some, packed, None, "none") for some, packed in each])

    def sigmoids(self, rows: Tensor) -> Tensor:
        """σ of the affine maps of the rows: (M, B, outputs), of the biases' type."""
        if not self._packed:
            return torch.add(self.times(rows), self._biases[:, None]).sigmoid_()
        exact = rows.dtype == self._biases.dtype  # else σ is not to be rounded to it
        each = zip(rows, self._packed, self._near, strict=True)
        made = _together([_linear(*it, "sigmoid" if exact else "none") for it in each])
        return made if exact else made.to(self._biases.dtype).sigmoid_()


def _packs(weights: Tensor) -> bool:
    if not weights.is_cpu or not hasattr(_onednn, "_linear_pointwise"):
        return False
    if not torch.backends.cpu.get_cpu_capability().startswith("AVX"):
        return False  # not tried
    if weights.dtype == torch.bfloat16:
        return bool(_onednn._is_mkldnn_bf16_supported())
    return weights.dtype == torch.float32


def _linear(rows: Tensor, packed: Tensor, bias: Tensor | None, then: str) -> Tensor:
    made: Tensor = _onednn._linear_pointwise(rows, packed, bias, then, [], "")
    return made


def _together(each: Sequence[Tensor]) -> Tensor:
    return each[0][None] if len(each) == 1 else torch.stack(tuple(each))
