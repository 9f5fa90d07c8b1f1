"""What a GPU and the host ask of each other while frames cross from one to the other.

Several threads bring frames to a GPU beside the network.
"""

import mmap
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache

import numpy as np
import torch
from torch import Tensor

from attnact.extract.frames.video import Frame
from attnact.machine.progress import note

CPU = torch.device("cpu")


def resizes_on(device: torch.device) -> torch.device:
    """Where the frames for a network on this device are resized: of all but CUDA's, on the CPU."""
    return device if device.type == "cuda" else CPU


def on_device(frames: Frame, device: torch.device) -> Tensor:
    """Frames on a device, all of which have arrived there; on a CPU they stay where they are."""
    there = torch.from_numpy(frames).to(device, non_blocking=True)
    if device.type == "cuda":
        _wait_asleep(device)
    return there


@contextmanager
def own_stream(device: torch.device) -> Iterator[Callable[[], None]]:
    """What this thread has a GPU do goes on beside what others do; gives what waits for it."""
    if device.type != "cuda":
        yield lambda: None
        return
    # The device first and last: to leave a stream of another one is to begin with GPU 0.
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    with torch.cuda.device(device), torch.cuda.stream(stream):
        yield lambda: _wait_asleep(device)


def pin(memory: mmap.mmap, gpu: torch.device) -> bool:
    """Has a GPU copy from this memory without the processor, and says whether it will.

    From memory that it does not pin it copies as well, but not as fast.
    """
    whole = np.frombuffer(memory, np.uint8)
    runtime = torch.cuda.cudart()  # type: ignore[no-untyped-call]
    with torch.cuda.device(gpu):
        answer = runtime.cudaHostRegister(whole.ctypes.data, whole.nbytes, 0)
        if int(answer) == 0:
            return True
        with suppress(RuntimeError):
            torch.ones(1, device=gpu)  # would else be told of it by the next work, as its own error
    _refused(gpu, runtime.cudaGetErrorString(answer))
    return False


@cache
def _refused(gpu: torch.device, why: str) -> None:
    """Says so, once and not for each decoder."""
    note(f"{gpu} does not pin memory ({why}): copies take longer")


def unpin(memory: mmap.mmap, gpu: torch.device) -> None:
    """The memory is the host's own again."""
    runtime = torch.cuda.cudart()  # type: ignore[no-untyped-call]
    with torch.cuda.device(gpu):
        runtime.cudaHostUnregister(np.frombuffer(memory, np.uint8).ctypes.data)


def _wait_asleep(device: torch.device) -> None:
    """Until this thread's work is done; CUDA's own waits keep a core busy that could decode."""
    done = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
    done.record(torch.cuda.current_stream(device))
    done.synchronize()
