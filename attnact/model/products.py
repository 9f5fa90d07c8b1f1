"""Products with weights that many rows are multiplied by: every step of a recurrence has the same.

On a CPU, oneDNN, which comes with torch, brings such weights into an order of its own once, and
then multiplies faster than `torch.mm`: by a tenth to a fifth in float32, by half in bfloat16 where
the processor has AMX, and twice as fast in float32 on AMD's Zen 5: MKL, which `torch.mm` calls,
leaves AVX-512 unused there. `torch.compile` has it do so by the same two operators.
"""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear

_onednn: Any = torch.ops.mkldnn

Then = Literal["none", "tanh"]  # what is made of an affine map

ROWS_AT_ONCE = 4096  # 16 MB of 1,024 inputs
LEAST_OUTPUTS = 512  # with fewer, to bring inputs into order takes as long as it saves


class Weights:
    """The weights of an affine map, (outputs, inputs), and perhaps its biases (outputs,)."""

    def __init__(self, weights: Tensor, biases: Tensor | None = None) -> None:
        self._weights = weights
        if biases is not None:
            self._biases, self._near = biases, biases.to(weights.dtype)
        self._packed: Tensor | None = None
        if _packs(weights.device, weights.dtype):
            self._packed = _onednn._reorder_linear_weight(weights.contiguous())

    def times(self, rows: Tensor) -> Tensor:
        """The rows (B, inputs) times the weights, without the bias: (B, outputs)."""
        if self._packed is None:
            return torch.mm(rows, self._weights.t())
        return _linear(rows, self._packed, None, "none")

    def sigmoids(self, rows: Tensor) -> Tensor:
        """σ of the affine map of the rows: (B, outputs), of the biases' type."""
        if self._packed is None:
            return torch.add(self.times(rows), self._biases).sigmoid_()
        exact = rows.dtype == self._biases.dtype  # else σ is not to be rounded to it
        made = _linear(rows, self._packed, self._near, "sigmoid" if exact else "none")
        return made if exact else made.to(self._biases.dtype).sigmoid_()


def affine(rows: Tensor, weight: Tensor, bias: Tensor, then: Then = "none") -> Tensor:
    """The affine map (..., outputs) of many rows (..., inputs), or the tanh of it."""
    dtype = product_type(weight)
    if not _packs(weight.device, dtype):
        made = linear(rows, weight, bias)
        return made.tanh() if then == "tanh" else made
    if rows.dim() == 3 and not rows.is_contiguous() and rows.transpose(0, 1).is_contiguous():
        # Clips that lie step by step are taken as they lie, and not copied.
        return affine(rows.transpose(0, 1), weight, bias, then).transpose(0, 1)
    near = rows.flatten(0, -2).to(dtype), weight.to(dtype), bias.to(dtype)
    with torch.autocast(weight.device.type, enabled=False):
        made = _Affine.apply(*near, then)  # type: ignore[no-untyped-call]
    whole: Tensor = made.view(*rows.shape[:-1], -1)
    return whole


def weight_gradients(doutputs: Tensor, inputs: Tensor) -> Tensor:
    """Those of an affine map's weights, (outputs, inputs): over all rows, the gradient of what it
    made, (…, outputs), times what it took, (…, inputs).
    """
    doutputs, inputs = doutputs.flatten(0, -2), inputs.flatten(0, -2)
    outputs, exact = doutputs.shape[1], doutputs.dtype == torch.float32
    if outputs < LEAST_OUTPUTS or not (exact and _beats_mkl(doutputs.device)):
        return doutputs.t() @ inputs
    made = doutputs.new_zeros(outputs, inputs.shape[1])
    # Some at a time, or what is brought into another order would be copies of the whole.
    some = zip(*(torch.split(it, ROWS_AT_ONCE) for it in (doutputs, inputs)), strict=True)
    for dmade, taken in some:
        made += Weights(taken.t()).times(dmade.t())
    return made


class _Affine(torch.autograd.Function):
    """Of rows (n, inputs), and back."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor, then: Then) -> Tensor:
        made = _linear(rows, _onednn._reorder_linear_weight(weight.contiguous()), bias, then)
        ctx.save_for_backward(rows, weight, made if then == "tanh" else None)
        return made

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dmade: Tensor) -> tuple[Tensor | None, Tensor, Tensor, None]:
        rows, weight, tanh = ctx.saved_tensors
        if tanh is not None:
            dmade = torch.ops.aten.tanh_backward(dmade, tanh)
        wanted = ctx.needs_input_grad[0]
        drows = Weights(weight.t()).times(dmade) if wanted else None
        # As a product, which is twice as fast as a sum on a CPU.
        dbias = dmade.new_ones(1, len(dmade)) @ dmade
        return drows, weight_gradients(dmade, rows), dbias[0], None


def product_type(weight: Tensor) -> torch.dtype:
    """In which products with this weight are computed: autocast's type where that is on."""
    device = weight.device.type
    if torch.is_autocast_enabled(device) and weight.dtype == torch.float32:
        return torch.get_autocast_dtype(device)
    return weight.dtype


def _packs(device: torch.device, dtype: torch.dtype) -> bool:
    if device.type != "cpu" or not hasattr(_onednn, "_linear_pointwise"):
        return False
    if not torch.backends.cpu.get_cpu_capability().startswith("AVX"):
        return False  # not tried
    if dtype == torch.bfloat16:
        return bool(_onednn._is_mkldnn_bf16_supported())
    return dtype == torch.float32


def _beats_mkl(device: torch.device) -> bool:
    """Whether oneDNN's float32 pays for bringing both factors into its order: beside MKL on AMD's
    Zen 5, as these two features together tell. (On a laptop's, of half the width, it is not tried.)
    """
    able: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # of newer torch
    zen5 = able.get("sse4a") and able.get("avx512_vp2intersect")
    mkl = torch.backends.mkl.is_available()  # type: ignore[no-untyped-call]
    return bool(zen5 and mkl) and _packs(device, torch.float32)


def _linear(rows: Tensor, packed: Tensor, bias: Tensor | None, then: str) -> Tensor:
    made: Tensor = _onednn._linear_pointwise(rows, packed, bias, then, [], "")
    return made
