"""The backbones: frames in, feature cubes out.

Both are GoogLeNets cut after inception 5b, whose output is 7×7 locations of 1024 channels:
`googlenet` is torchvision's, `bvlc_googlenet` is Caffe's, which the paper used.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from attnact.extract.networks.bvlc_googlenet import BVLCGoogLeNet, to_caffe
from attnact.extract.networks.googlenet import (
    fold_batch_norms,
    googlenet_trunk,
    random_googlenet,
    to_torchvision,
)
from attnact.extract.networks.runtime import choose, make_runner
from attnact.extract.networks.weights import (
    PUBLISHED,
    digest,
    fetch_published,
    fit,
    read_weights,
)
from attnact.machine.files import write_bytes
from attnact.vocabulary import Precision, Runtime

SEED = 0  # of random weights
FRAME = (224, 224, 3)  # rows, columns, RGB

RANDOM = "random"  # in place of a file: weights drawn from a seed
RANDOM_NOTE = "attnact.random"  # where the metadata of a saved file of such weights says so


class Network(NamedTuple):
    """What makes a backbone differ from the other."""

    build: Callable[[], nn.Module]  # makes it, its tensors on the meta device
    prepare: Callable[[Tensor], Tensor]  # RGB 0-255 (B, 3, 224, 224) → its input
    spare: tuple[str, ...]  # how the names of tensors start that files hold and it does not need


NETWORKS = {
    "googlenet": Network(googlenet_trunk, to_torchvision, ("aux1.", "aux2.", "fc.")),
    "bvlc_googlenet": Network(BVLCGoogLeNet, to_caffe, ("loss1/", "loss2/", "loss3/")),
}
BACKBONES = tuple(NETWORKS)


class Whole(nn.Module):
    """A network from frames to feature cubes."""

    def __init__(self, network: nn.Module, prepare: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self._network, self._prepare = network, prepare

    def forward(self, frames: Tensor) -> Tensor:
        """Run it: uint8 RGB (B, 224, 224, 3) → (B, 1024, 7, 7), in the type of its weights."""
        pixels = self._prepare(_pixels(frames)).to(next(self.parameters()).dtype)
        features: Tensor = self._network(pixels)
        return features.contiguous()


class Backbone:
    """A network with its weights, ready to run; `load_backbone` makes one.

    name       one of BACKBONES
    weights    which weights these are, for people
    is_random  whether they were never trained
    digest     SHA-256 of their names, shapes and bytes, in hex
    device     where the network runs and its feature cubes come to lie
    runtime    what runs it, "torch" or "openvino"
    precision  in which it runs, "float32", "bfloat16" or "float16"
    """

    def __init__(
        self,
        name: str,
        state: dict[str, Tensor],
        weights: str,
        is_random: bool,
        device: str | torch.device,
        runtime: Runtime,
        precision: Precision,
    ) -> None:
        self.name = name
        self.weights = weights
        self.is_random = is_random
        self.digest = digest(state)
        self.device = torch.device(device)
        how = choose(runtime, precision, self.device)
        self.runtime, self.precision = how
        self._state = state
        network = NETWORKS[name].build()
        network.load_state_dict(state, assign=True)
        network.eval().requires_grad_(False)
        fold_batch_norms(network)  # Caffe's network has none
        whole = Whole(network, NETWORKS[name].prepare)
        self._runner = make_runner(whole, how, self.device)

    def __call__(self, frames: Tensor) -> Tensor:
        """Turn frames into feature cubes.

        frames: uint8 RGB, (B, 224, 224, 3), on any device. Returns the output of inception 5b
        after ReLU, float32 (B, 7, 7, 1024), on the backbone's device: what the shape legend calls
        location row · 7 + column is [row, column]. Raises ValueError for anything but such frames.
        """
        _check(frames)
        return _cubes(self._runner.start(frames)()).float().to(self.device).contiguous()

    def start(self, frames: Tensor) -> Callable[[], Tensor]:
        """Begin to turn frames into feature cubes; what it returns waits for them when called.

        The cubes are float16 on the CPU and lie channel by channel, as in a cache; else as in a
        call.
        """
        _check(frames)
        wait = self._runner.start(frames)
        return lambda: _cubes(wait().half())

    def save(self, path: Path) -> None:
        """Write the weights to a .safetensors file, for `load_backbone` to read again.

        Random weights stay marked as random in it.
        """
        note = {RANDOM_NOTE: self.weights} if self.is_random else None
        write_bytes(path, safetensors.torch.save(self._state, metadata=note))


def load_backbone(
    name: str,
    weights: str | Path | None = None,
    device: str | torch.device = "cpu",
    runtime: Runtime = "torch",
    precision: Precision = "float32",
    calibration: Tensor | None = None,
) -> Backbone:
    """Load a backbone with its published weights, those of a file, or random ones.

    weights: None fetches the published ones on first use (into torch.hub's folder); a path is a
    .safetensors, .pth or .pt file with the names of torchvision or Caffe, or a .caffemodel; and
    "random", for `googlenet` alone and for tests and demonstrations, draws them, always
    the same, and calibrates the batch norms on `calibration`, a few dozen frames, uint8 RGB
    (n, 224, 224, 3).

    runtime, precision: how it runs; "auto" is the fastest here that keeps the features right.

    Raises ValueError for arguments that do not fit together, WeightsError for weights that cannot
    be fetched or read, or are another network's, and UnsupportedError where this machine cannot run
    it so.
    """
    if name not in BACKBONES:
        raise ValueError(f"there is no backbone {name!r}: choose one of {', '.join(BACKBONES)}")
    if weights == RANDOM:
        if name != "googlenet" or calibration is None or len(calibration) == 0:
            raise ValueError("random weights are for googlenet and need frames to calibrate on")
        _check(calibration)
        state = random_googlenet(_pixels(calibration.cpu()), SEED)
        text = f"random (seed {SEED}), batch norms calibrated on {len(calibration)} frames"
        return Backbone(name, state, text, True, device, runtime, precision)
    path = fetch_published(name) if weights is None else Path(weights)
    network = NETWORKS[name]
    state = fit(read_weights(path), network.build(), network.spare, path)
    note = _random_note(path)
    text = note or (PUBLISHED[name].label if weights is None else path.name)
    return Backbone(name, state, text, note is not None, device, runtime, precision)


def likeness(cubes: Tensor, exact: Tensor) -> float:
    """The cosine of each frame's features with its exact ones, both (B, ...), on average."""
    return cosine_similarity(cubes.flatten(1), exact.flatten(1), dim=1).mean().item()


def _check(frames: Tensor) -> None:
    if frames.dtype != torch.uint8 or frames.dim() != 4 or frames.shape[1:] != FRAME:
        given = f"{frames.dtype} {tuple(frames.shape)}"
        raise ValueError(f"a backbone takes frames of torch.uint8 (B, 224, 224, 3), not {given}")


def _pixels(frames: Tensor) -> Tensor:
    return frames.permute(0, 3, 1, 2).float()


def _cubes(features: Tensor) -> Tensor:
    return features.permute(0, 2, 3, 1)


def _random_note(path: Path) -> str | None:
    if path.suffix != ".safetensors":
        return None
    with safetensors.safe_open(path, framework="pt") as file:
        return (file.metadata() or {}).get(RANDOM_NOTE)
