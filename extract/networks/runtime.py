"""How a network is run: by torch or by OpenVINO, and in which precision.

A runner takes frames and gives a function that waits for their features, so that the next frames
can be under way before the last are done.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from importlib.util import find_spec
from threading import Lock
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from attnact.errors import UnsupportedError
from attnact.machine.replayed import Replayed, replays
from attnact.vocabulary import Precision, Runtime

# On a CPU the frames of a batch pass through the network so many at a time. Every activation then
# stays below the 32 MiB from which on glibc asks the system for fresh pages each time, and near the
# cores: a batch of 32 in one go is a fifth slower.
FRAMES_AT_ONCE = 8

TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

# Waits, and gives (B, 1024, 7, 7), contiguous, float32 or float16: cubes as they lie in a cache
Wait = Callable[[], Tensor]


class Runner(Protocol):
    """A network that is ready to run."""

    def start(self, frames: Tensor) -> Wait:
        """Begin with frames, uint8 (B, 224, 224, 3), on any device."""


class How(NamedTuple):
    """What runs a network, and in which precision; never `auto`."""

    runtime: Runtime
    precision: Precision


def choose(runtime: Runtime, precision: Precision, device: torch.device) -> How:
    """What `auto` stands for here: the fastest that keeps the features right.

    The products of bfloat16 features with those of float32, each of length one, are 0.9999 on real
    frames and trained weights; it is chosen where the processor multiplies in it, for elsewhere it
    would be slower, as float16 was on all CPUs tried. An H200 runs float16 a tenth faster than
    bfloat16, and the product is 0.999999.

    Raises:
        UnsupportedError: OpenVINO is asked for and not installed.
        ValueError: OpenVINO is asked for on a GPU.
    """
    on_cpu = device.type == "cpu"
    if runtime == "auto":
        runtime = "openvino" if on_cpu and find_spec("openvino") else "torch"
    if runtime == "openvino" and not on_cpu:
        raise ValueError(f"OpenVINO runs on the CPU here, not on {device}; --runtime torch")
    if runtime == "openvino" and not find_spec("openvino"):
        raise UnsupportedError("OpenVINO is missing; pip install 'attnact[openvino]'")
    if precision == "auto":
        precision = _fastest_precision(runtime, device)
    return How(runtime, precision)


def make_runner(network: nn.Module, how: How, device: torch.device) -> Runner:
    """Make a network ready to run; it may be changed by that.

    network: uint8 frames (B, 224, 224, 3) → (B, 1024, 7, 7), contiguous, on the CPU, in float32.

    Raises UnsupportedError where this machine cannot run it so.
    """
    if how.runtime == "openvino":
        from attnact.extract.networks.openvino_runner import OpenVINORunner

        return OpenVINORunner(network, how.precision, FRAMES_AT_ONCE)
    # Frames seen as (B, 3, 224, 224) lie in memory just as channels_last wants them. So does all
    # that comes of them, up to the cubes: nothing is ever rearranged.
    network.to(device, TYPES[how.precision])
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return TorchOnGPU(network, device) if device.type == "cuda" else Torch(network, device)


class Torch:
    """Runs a network with torch, in a thread of its own."""

    def __init__(self, network: nn.Module, device: torch.device) -> None:
        self._network, self._device = network, device
        self._thread = ThreadPoolExecutor(1, "network")

    def start(self, frames: Tensor) -> Wait:
        """Begin with frames; see `Runner`."""
        return self._thread.submit(self._run, frames.to(self._device)).result

    def _run(self, frames: Tensor) -> Tensor:
        with torch.inference_mode():
            parts = torch.split(frames, FRAMES_AT_ONCE)
            return torch.cat([self._network(part) for part in parts]).float().cpu()


class TorchOnGPU:
    """Runs a network with torch on a GPU."""

    def __init__(self, network: nn.Module, device: torch.device) -> None:
        self._device, self._turn = device, Lock()
        self._network: Callable[[Tensor], Tensor] = network
        if replays(device):
            self._network = Replayed(network, device)

    def start(self, frames: Tensor) -> Wait:
        """Begin with frames; see `Runner`."""
        # A turn for each thread: what is replayed makes all cubes at one place.
        with self._turn, torch.inference_mode(), torch.cuda.device(self._device), _deterministic():
            there = frames.to(self._device, non_blocking=True)
            there.record_stream(torch.cuda.current_stream())  # which may not be their maker's
            made = self._network(there)
            cubes = torch.empty(made.shape, dtype=made.dtype, pin_memory=True)
            cubes.copy_(made, non_blocking=True)  # before the next batch, on the same stream
            done = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
            done.record()

        def wait() -> Tensor:
            done.synchronize()
            return cubes.float() if cubes.dtype == torch.bfloat16 else cubes

        return wait


def _deterministic() -> AbstractContextManager[None]:
    # A recent GPU would convolve in TF32 unless told not to, with the precision of a float16: too
    # little to agree with Caffe. The same frames shall give the same bits again, too.
    return torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)


def _fastest_precision(runtime: Runtime, device: torch.device) -> Precision:
    if device.type == "cuda":
        return "float16" if torch.cuda.get_device_capability(device) >= (7, 0) else "float32"
    return "bfloat16" if _multiplies_bfloat16(runtime) else "float32"


def _multiplies_bfloat16(runtime: Runtime) -> bool:
    if runtime == "openvino":
        from attnact.extract.networks.openvino_runner import multiplies_bfloat16

        return multiplies_bfloat16()
    known = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return known is not None and bool(known())
