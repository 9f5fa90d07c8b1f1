"""The loss of a clip: eq. 7, but for weight decay, which the optimiser adds."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from attnact.model.attention import attention_penalty
from attnact.vocabulary import PenaltyForm


class Loss(NamedTuple):
    """The parts of the loss, each (B,)."""

    cross_entropy: Tensor
    penalty: Tensor


def clip_loss(
    scores: Tensor, maps: Tensor | None, labels: Tensor, mask: Tensor, penalty_form: PenaltyForm
) -> Loss:
    """Σ_t cross-entropy_t, and the attention penalty that λ multiplies.

    Args:
        scores: before softmax or sigmoid, (B, T, N).
        maps: attention maps, (B, T, L); None for a model without attention, whose penalty is 0.
        labels: class indices (B,), or rows of 0 and 1 (B, N) where several classes may hold; then
            the cross-entropy is summed over the classes.
        mask: 1 for each step that counts, (B, T).
        penalty_form: "sum" or "mean" over the locations.
    """
    B, T, N = scores.shape
    if labels.ndim == 1:
        every_step = labels[:, None].expand(B, T).reshape(-1)
        entropy = F.cross_entropy(scores.reshape(B * T, N), every_step, reduction="none")
        entropy = entropy.view(B, T)
    else:
        every_step = labels[:, None].expand(B, T, N).to(scores.dtype)
        entropy = F.binary_cross_entropy_with_logits(scores, every_step, reduction="none").sum(2)
    summed = (entropy * mask).sum(1)
    if maps is None:
        return Loss(summed, torch.zeros_like(summed))
    return Loss(summed, attention_penalty(maps, mask, penalty_form))
