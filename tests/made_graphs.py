"""A stand-in for CUDA graphs: records operations on the CPU, and does them again where they wrote.

As on a GPU, what is recorded is not done until it is replayed, what it made before that is of no
use, it reads and writes the same memory each time, and it may not wait to look at a number.
"""

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

# What waits for a number, or brings one from Python by memory that a GPU cannot read meanwhile.
WAITS = {
    torch.ops.aten._local_scalar_dense.default,
    torch.ops.aten.nonzero.default,
    torch.ops.aten.lift_fresh.default,
}


class Graph:
    """For `torch.cuda.CUDAGraph`."""

    replays = 0  # of all graphs

    def __init__(self) -> None:
        self.operations: list[tuple[Any, Any, Any, Any]] = []

    def replay(self) -> None:
        Graph.replays += 1
        with torch.no_grad():
            for function, args, kwargs, made in self.operations:
                for place, value in zip(
                    tensors(made), tensors(function(*args, **kwargs)), strict=True
                ):
                    if place.data_ptr() != value.data_ptr():
                        place.copy_(value)


class Recording(TorchDispatchMode):
    """For `torch.cuda.graph`."""

    def __init__(self, graph: Graph, stream: object, capture_error_mode: str) -> None:
        super().__init__()
        assert capture_error_mode == "thread_local"
        self.graph = graph

    def __enter__(self) -> "Recording":
        self.random = torch.get_rng_state()
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        torch.set_rng_state(self.random)
        if error[0] is not None:
            raise RuntimeError("operation failed due to a previous error during capture")
        for _, args, kwargs, made in self.graph.operations:
            known = {it.untyped_storage().data_ptr() for it in tensors((args, kwargs))}
            for place in tensors(made):
                if place.is_floating_point() and place.untyped_storage().data_ptr() not in known:
                    place.detach().fill_(torch.nan)

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None):
        if function in WAITS:
            raise RuntimeError("operation not permitted when stream is capturing\nand more")
        made = function(*args, **(kwargs or {}))
        self.graph.operations.append((function, args, kwargs or {}, made))
        return made


class Stream:
    """For `torch.cuda.Stream`."""

    def __init__(self, device: object = None, priority: int = 0) -> None:
        pass

    def wait_stream(self, other: "Stream") -> None:
        assert isinstance(other, Stream)


def tensors(values: Any) -> list[Tensor]:
    """All tensors in it."""
    if isinstance(values, Tensor):
        return [values]
    if isinstance(values, dict):
        values = values.values()
    return [it for value in values for it in tensors(value)] if _holds(values) else []


def _holds(values: Any) -> bool:
    return isinstance(values, list | tuple) or type(values).__name__ == "dict_values"


def stand_in(monkeypatch: pytest.MonkeyPatch) -> type[Graph]:
    """Has it stand in for those of torch; gives the graphs' class, which counts replays."""
    for name, thing in {
        "CUDAGraph": Graph,
        "graph": Recording,
        "Stream": Stream,
        "current_stream": Stream,
        "stream": lambda stream: nullcontext(),
        "device": lambda device: nullcontext(),
    }.items():
        monkeypatch.setattr(torch.cuda, name, thing)
    # As on a GPU, which does not multiply by oneDNN.
    monkeypatch.setattr("attnact.model.products._packs", lambda device, dtype: False)
    Graph.replays = 0
    return Graph
