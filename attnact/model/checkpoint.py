"""The weights of a run, with all that is needed to use them; and the state to train on.

Nothing here unpickles: weights are safetensors with their description as JSON beside them, and
the training state is read by torch with `weights_only`.
"""

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from attnact.errors import RunError
from attnact.machine.files import write_bytes
from attnact.machine.sealed import parse
from attnact.model.models import Model, ModelConfig, build_model


@dataclass(frozen=True)
class Checkpoint:
    """A trained model and what its inputs and outputs mean.

    features: the provenance of the cache it was trained on: backbone, weights, resize, ...
    """

    model: Model
    classes: list[str]
    multi_label: bool
    features: dict[str, str]


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Writes the model's weights and description to a safetensors file, whole."""
    description = {
        "model": asdict(checkpoint.model.config),
        "classes": checkpoint.classes,
        "multi_label": checkpoint.multi_label,
        "features": checkpoint.features,
    }
    tensors = {name: tensor.contiguous() for name, tensor in checkpoint.model.state_dict().items()}
    # In the description, not beside it: safetensors writes two entries in any order.
    description["digest"] = _digest(description, tensors)
    write_bytes(path, save(tensors, {"attnact": json.dumps(description)}))


def load_checkpoint(path: Path, device: str | torch.device = "cpu") -> Checkpoint:
    """The model of a run, ready to score.

    Raises:
        RunError: the file is missing, damaged, or of another program.
    """
    if not path.is_file():
        raise RunError(f"{path}: no such file; has the run finished? `attnact train --resume`")
    try:
        with safe_open(path, framework="pt", device=str(device)) as file:
            description = parse(file.metadata()["attnact"])
            model = build_model(ModelConfig(**description["model"])).to(device)
            names = file.keys()
            tensors = {name: file.get_tensor(name) for name in names}
        told = description.pop("digest", None)  # older files have none
        if told is not None and told != _digest(description, tensors):
            raise ValueError("its digest is that of other weights")
        model.load_state_dict(tensors)
        return Checkpoint(
            model=model.eval(),
            classes=description["classes"],
            multi_label=description["multi_label"],
            features=description["features"],
        )
    except (
        SafetensorError,
        KeyError,
        TypeError,
        ValueError,
        AttributeError,
        RuntimeError,
    ) as error:
        why = " ".join(str(error).split())  # torch's messages have several lines
        raise RunError(f"{path}: not a model of attnact, or damaged ({why})") from error


def _digest(description: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of a model's description and of the names, types, shapes and bytes of its weights."""
    sha = hashlib.sha256(json.dumps(description, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        sha.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return sha.hexdigest()


def save_state(path: Path, state: Mapping[str, Any]) -> None:
    """Writes all that training needs to go on, whole."""
    content = io.BytesIO()  # torch does not say why it cannot write to a file
    torch.save(dict(state), content)
    write_bytes(path, content.getvalue())


def load_state(path: Path) -> dict[str, Any] | None:
    """What `save_state` wrote; None when there is none yet.

    Raises:
        RunError: the file is damaged.
    """
    if not path.exists():
        return None
    try:
        with zipfile.ZipFile(path) as parts:  # torch writes checksums and does not read them
            if damaged := parts.testzip():
                raise ValueError(damaged)
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever its unzipper and unpickler meet
        raise RunError(f"{path}: damaged; delete it and --resume starts anew") from error
    return state
