"""Where to look: the two forms of soft attention, and the penalty that spreads it.

Both turn the top layer's last hidden state h_{t-1} into an attention map l_t, (B, L): a
probability for each location of the next frame. They differ in whether they see the frame.
"""

import torch
from torch import Tensor, nn

from attnact.vocabulary import PenaltyForm


class LocationAttention(nn.Module):
    """l_t = softmax(W h_{t-1}): the paper's eq. 4, which does not see the frame."""

    def __init__(self, hidden_size: int, locations: int) -> None:
        super().__init__()
        self.scores = nn.Linear(hidden_size, locations, bias=False)

    def project(self, X: Tensor) -> Tensor:
        """Nothing to prepare; gives X back."""
        return X

    def forward(self, hidden: Tensor, projected: Tensor) -> Tensor:
        """The attention map (B, L) for the hidden state (B, H)."""
        return torch.softmax(self.scores(hidden), dim=-1)


class ContextAttention(nn.Module):
    """e_ti = u · tanh(P(X_ti) + W_d h_{t-1}) + c, l_t = softmax(e_t): the released code's form.

    P is affine, W_c X_ti + b; the further layers are affine too, with tanh between one of them and
    the next. Its authors call the X missing from the paper's eq. 4 an erratum. (`lstm_cond_layer`
    in the released `actrec.py`, whose `temperature_inverse` multiplies e_ti.)
    """

    def __init__(
        self, channels: int, hidden_size: int, layers: int, inverse_temperature: float = 1.0
    ) -> None:
        super().__init__()
        self.inverse_temperature = inverse_temperature
        self.features = nn.Linear(channels, channels)
        self.deeper = nn.ModuleList(nn.Linear(channels, channels) for _ in range(layers - 1))
        self.hidden = nn.Linear(hidden_size, channels, bias=False)
        self.scores = nn.Linear(channels, 1)

    def project(self, X: Tensor) -> Tensor:
        """P(X) for all frames at once, (B, T, L, C): it does not depend on the hidden state."""
        projected: Tensor = self.features(X)
        for i, layer in enumerate(self.deeper):
            projected = layer(torch.tanh(projected) if i else projected)
        return projected

    def forward(self, hidden: Tensor, projected: Tensor) -> Tensor:
        """The attention map (B, L) for the hidden state (B, H) and P of one frame, (B, L, C)."""
        scores = self.scores(torch.tanh(projected + self.hidden(hidden)[:, None]))
        return torch.softmax(self.inverse_temperature * scores[..., 0], dim=-1)


def attention_penalty(maps: Tensor, mask: Tensor, form: PenaltyForm) -> Tensor:
    """How unevenly the locations were looked at over a clip, (B,): eq. 7's Σ_i (1 − Σ_t l_ti)².

    The released code takes the mean over the locations instead of the sum, so that the same λ is
    49 times weaker there.

    Args:
        maps: attention maps, (B, T, L).
        mask: 1 for a frame, 0 for a repeat that fills up a short clip, (B, T).
        form: "sum" or "mean" over the locations.
    """
    looked = torch.einsum("btl,bt->bl", maps, mask.to(maps.dtype))
    uneven = (1 - looked).square()
    return uneven.sum(dim=1) if form == "sum" else uneven.mean(dim=1)
