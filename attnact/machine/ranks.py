"""Several processes that train one run together, as torchrun starts them.

Each has the whole model and works on its share of every batch. A process that was started alone is
the first and the only one; then nothing here costs it anything.
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from attnact.errors import RunError
from attnact.machine.progress import be_quiet, is_quiet

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

Made = TypeVar("Made")

PATIENCE = timedelta(minutes=10)  # with a process that neither goes on nor ends

_joined: Any = None  # torch.distributed, once this process has joined the others


def started() -> int:
    """How many processes torchrun started; 1 without it."""
    return int(os.environ["WORLD_SIZE"]) if "LOCAL_WORLD_SIZE" in os.environ else 1


def count() -> int:
    """How many processes work together."""
    return int(_joined.get_world_size()) if _joined else 1


def rank() -> int:
    """Which of them this one is, from 0 on."""
    return int(_joined.get_rank()) if _joined else 0


def on_this_machine() -> int:
    """How many of them share the memory of this machine."""
    return int(os.environ["LOCAL_WORLD_SIZE"]) if _joined else 1


@contextmanager
def joined(device: str | None) -> Iterator[str | None]:
    """Joins the processes that torchrun started, if it did; gives the device of this one.

    If one of them fails or ends, the others fail at their next exchange.

    Raises:
        RunError: another one ended, or there are more of them than GPUs.
        ValueError: a device that they cannot share out.
    """
    global _joined
    if started() == 1:
        yield device
        return
    from torch import cuda, distributed, zeros

    own, backend = _own_device(device), "gloo"
    if own != "cpu":
        cuda.set_device(own)
        backend = "cpu:gloo,cuda:nccl"
    at = int(os.environ["RANK"])
    try:
        distributed.init_process_group(
            backend, timeout=PATIENCE, store=_store(), rank=at, world_size=started()
        )
        _joined = distributed
        be_quiet(is_quiet() or rank() > 0)
        yield own
        sum_up(zeros(()))  # who leaves first would cut the others off
        distributed.destroy_process_group()
    except RuntimeError as error:
        why = " ".join(str(error).split())
        raise RunError(f"one of the {started()} processes failed or ended ({why})") from error
    finally:
        _joined = None


def from_first(make: Callable[[], Made]) -> Made:
    """What the first process makes, which the others wait for."""
    if not _joined:
        return make()
    made = [make() if rank() == 0 else None]
    _joined.broadcast_object_list(made)
    return made[0]  # type: ignore[return-value]


def in_turn(mine: Iterator[Made]) -> Iterator[Made]:
    """What all make, to each of them: one thing of the first, one of the second, and around."""
    if not _joined:
        yield from mine
        return
    made: list[Made | None] = [None] * count()
    while True:
        _joined.all_gather_object(made, next(mine, None))
        if made[0] is None:  # who begins is the last to run out
            return
        yield from (it for it in made if it is not None)


def parallel(model: "Module") -> "Module":
    """The model as it is trained: its gradients are then the mean over all processes."""
    if not _joined:
        return model
    from torch.nn.parallel import DistributedDataParallel

    return DistributedDataParallel(model)


def sum_up(values: "Tensor") -> "Tensor":
    """The sum over all processes, in place."""
    if _joined:
        _joined.all_reduce(values)
    return values


def speaks() -> bool:
    """Whether this is the first process to say why all must end; the others then need not."""
    if started() == 1:
        return True
    try:
        return bool(_store().add("attnact said why", 1) == 1)
    except RuntimeError:  # the one that held the store is gone: better twice than not at all
        return True


def leave(code: int | str | None) -> None:
    """Ends one of several processes at once; does nothing to one that is alone.

    gloo's threads outlive DistributedDataParallel and may hold tensors still: they would abort a
    process that Python takes down. And after a failure NCCL may wait for those that are gone.
    """
    if started() > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(int(code or 0))


@cache
def _store() -> Any:
    """Where torchrun's processes leave each other word."""
    from torch.distributed.rendezvous import rendezvous

    store, _, _ = next(rendezvous("env://", timeout=PATIENCE))
    return store


def _own_device(device: str | None) -> str:
    from torch import cuda

    gpus, place = cuda.device_count(), int(os.environ["LOCAL_RANK"])
    on_here = os.environ["LOCAL_WORLD_SIZE"]
    kind = device or ("cuda" if gpus else "cpu")
    if kind == "cpu":
        return kind
    if kind != "cuda":
        raise ValueError(f"torchrun's processes take a GPU each: --device cuda or cpu, not {kind}")
    if place >= gpus:
        raise RunError(f"{on_here} processes for {gpus} GPUs on this machine; or --device cpu")
    return f"cuda:{place}"
