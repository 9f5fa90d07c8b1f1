"""The initial weights of the released code: small Gaussians, orthogonal where square."""

import torch
from torch import Tensor, nn

from attnact.attention import ContextAttention
from attnact.layers import LSTMLayer

SCALE = 0.01  # standard deviation


def draw_released_weights(model: nn.Module) -> None:
    """Draws every weight anew, from torch's global seed; biases become 0.

    As `norm_weight` and `ortho_weight` of the released `actrec.py`: a weight is orthogonal where
    its layer has as many outputs as inputs, but for the attention's first layer on the features;
    each gate of an LSTM is drawn on its own, and its recurrent part is always orthogonal.
    """
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "bias" in name:
                parameter.zero_()
            elif "weight_ih" in name or "weight_hh" in name:  # of nn.LSTM
                for gate in parameter.chunk(4):
                    _draw(gate)
            elif not name.endswith("gates.weight"):
                _draw(parameter)
        for module in model.modules():
            if isinstance(module, LSTMLayer):
                hidden_size = module.gates.out_features // 4
                for gate in module.gates.weight.chunk(4):
                    _draw(gate[:, :-hidden_size])
                    _draw(gate[:, -hidden_size:])
            elif isinstance(module, ContextAttention):
                module.features.weight.normal_(std=SCALE)


def _draw(weight: Tensor) -> None:
    if weight.shape[0] == weight.shape[1]:
        weight.copy_(nn.init.orthogonal_(torch.empty_like(weight)))
    else:
        weight.normal_(std=SCALE)
