"""What a run begins with: torch's initial weights, or the released code's.

Those are small Gaussians, orthogonal where square.
"""

import torch
from torch import Tensor, nn

from attnact.cache.features import FeatureCache
from attnact.model.attention import ContextAttention
from attnact.model.layers import LSTMLayer
from attnact.model.models import Model, ModelConfig, build_model
from attnact.train.config import TrainConfig

SCALE = 0.01  # standard deviation


def new_model(config: TrainConfig, cache: FeatureCache) -> Model:
    """The untrained model of a run; its weights come from torch's global seed."""
    shape = ModelConfig(
        classes=len(cache.classes),
        kind=config.model,
        attention=config.attention,
        attention_layers=config.attention_layers,
        lstm_layers=config.lstm_layers,
        hidden_size=config.hidden_size,
        dropout=config.dropout,
        dropout_form=config.dropout_form,
    )
    model = build_model(shape)
    if config.initial_weights == "released":
        draw_released_weights(model)
    return model


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
