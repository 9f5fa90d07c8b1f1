"""The parameter archive of the released Theano code (`numpy.savez` of `actrec.py`) as a model.

Theirs are (inputs, outputs), ours (outputs, inputs); the gates stand in the order i, f, o, c in
both. Dropout that halves in testing stays as it is.
"""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from attnact.cache.features import LOCATIONS
from attnact.errors import RunError
from attnact.model.models import Model, ModelConfig, build_model

Arrays = Mapping[str, npt.NDArray[np.float32]]

_NAMES = {
    "ff_state": "start.hidden.0",
    "ff_memory": "start.cell.0",
    "ff_logit_lstm": "head.first",
    "ff_logit": "head.classes",
}
_DECODER = {
    "decoder_Wc_att": "attention.features.weight",
    "decoder_b_att": "attention.features.bias",
    "decoder_Wd_att": "attention.hidden.weight",
    "decoder_U_att": "attention.scores.weight",
    "decoder_c_tt": "attention.scores.bias",
    "decoder_b": "layers.0.gates.bias",
}


def load_released_model(path: Path, inverse_temperature: float = 1.0) -> Model:
    """The model in an archive `model.npz`, ready to score.

    Args:
        path: of the archive. The options beside it, `model.npz.pkl`, are a pickle and not read.
        inverse_temperature: the option `temperature_inverse`, which the archive does not hold.

    Raises:
        RunError: the file is missing, damaged, or of a model with parts that ours has not.
    """
    arrays = _read(path)
    extra = {"decoder_W_sel": "selector", "ff_logit_ctx_W": "ctx2out"}
    for name, option in extra.items():
        if name in arrays:
            raise RunError(f"{path}: trained with {option}=True, which attnact does not have")
    try:
        model = build_model(released_shape(arrays, inverse_temperature))
        model.load_state_dict(released_weights(arrays))
    except (KeyError, IndexError, ValueError, RuntimeError) as error:
        why = " ".join(str(error).split())
        raise RunError(f"{path}: not a model of the released code, or damaged ({why})") from error
    return model.eval()


def released_shape(
    arrays: Arrays, inverse_temperature: float = 1.0, locations: int = LOCATIONS
) -> ModelConfig:
    """The shape of the model that has these parameters.

    Raises:
        KeyError: a parameter is missing.
    """
    channels, hidden_size = arrays["ff_state_W"].shape
    head_size, classes = arrays["ff_logit_W"].shape
    return ModelConfig(
        classes=classes,
        attention="context",
        attention_layers=1 + _count(arrays, "decoder_W_att_{}"),
        lstm_layers=1,
        hidden_size=hidden_size,
        dropout=0.5,
        dropout_form="released",
        start_layers=1 + _count(arrays, "ff_init_{}_W"),
        head_layers=1 + _count(arrays, "ff_logit_h{}_W"),
        head_size=head_size,
        inverse_temperature=inverse_temperature,
        locations=locations,
        channels=channels,
    )


def released_weights(arrays: Arrays) -> dict[str, Tensor]:
    """Their parameters, or gradients of them, under our names and in our shapes.

    Raises:
        KeyError: a parameter is missing.
    """
    joined = np.concatenate([arrays["decoder_W"], arrays["decoder_U"]])
    found = {ours: arrays[theirs] for theirs, ours in _DECODER.items()}
    found["layers.0.gates.weight"] = joined
    affine = dict(_NAMES)
    for i in range(1, 1 + _count(arrays, "ff_init_{}_W")):
        affine[f"ff_init_{i}"] = f"start.deeper.{i - 1}"
    for i in range(1, 1 + _count(arrays, "ff_logit_h{}_W")):
        affine[f"ff_logit_h{i}"] = f"head.deeper.{i - 1}"
    for theirs, ours in affine.items():
        found[f"{ours}.weight"] = arrays[f"{theirs}_W"]
        found[f"{ours}.bias"] = arrays[f"{theirs}_b"]
    for i in range(1, 1 + _count(arrays, "decoder_W_att_{}")):
        found[f"attention.deeper.{i - 1}.weight"] = arrays[f"decoder_W_att_{i}"]
        found[f"attention.deeper.{i - 1}.bias"] = arrays[f"decoder_b_att_{i}"]
    return {name: torch.from_numpy(np.ascontiguousarray(a.T)) for name, a in found.items()}


def _count(arrays: Arrays, name: str) -> int:
    """How many of `name` with 1, 2, ... there are."""
    number = 1
    while name.format(number) in arrays:
        number += 1
    return number - 1


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise RunError(f"{path}: no such file")
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files if name != "history_errs"}
    except (OSError, ValueError, zipfile.BadZipFile, EOFError, AttributeError) as error:
        raise RunError(f"{path}: not an archive of numpy.savez, or damaged ({error})") from error
