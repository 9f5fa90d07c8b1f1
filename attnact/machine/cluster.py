"""Ray, a cluster that people already run: work for many machines, done again where it is lost.

A task may run twice: its worker died, or its node is cut off and goes on by itself. So what a task
leaves must be whole or absent, and come out the same however often it is done.
"""

import os
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from attnact import __version__
from attnact.errors import AttnactError, BusyError, ClusterError, UnsupportedError
from attnact.machine.progress import be_quiet

RETRIES = 10  # of a task whose worker or node died, which is no fault of the task
AT_ONCE = 1000  # tasks that Ray knows of: enough to place, few enough to watch
SECONDS_BETWEEN_LOOKS = 2.0  # at what another process has in hand
PATIENCE = 10.0  # seconds for a head node to answer
TO_END = 5.0  # seconds for tasks under way to leave no trace

# What a task may fail on, which is told in a line; anything else is a mistake of ours.
FAILURES = (AttnactError, MemoryError, OSError, RuntimeError, ValueError)

Item = TypeVar("Item", bound=tuple[Any, ...])


class Cluster:
    """A cluster that tasks are handed to. Use it with `with`."""

    def __init__(self, address: str | None, cpus: float, gpus: float | None) -> None:
        """Connects.

        Args:
            address: as Ray understands it: `auto`, a head node's `host:port`, `ray://host:port`;
                None is what RAY_ADDRESS says, or a cluster begun here, or this machine alone.
            cpus: that a task takes.
            gpus: the same; None is 1 where the cluster has any.

        Raises:
            ClusterError: there is no cluster at the address.
            UnsupportedError: Ray is not installed.
        """
        try:
            import ray
        except ImportError as error:
            raise UnsupportedError("Ray is missing; pip install 'attnact[ray]'") from error
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would report to its makers
        self._ray: Any = ray
        try:
            _reach(address or os.environ.get("RAY_ADDRESS", ""))
            self._ray.init(
                address,
                ignore_reinit_error=True,
                log_to_driver=False,  # the progress of each worker
                logging_level="warning",
            )
        except (OSError, RuntimeError, ValueError) as error:
            raise ClusterError(f"no Ray cluster at {address or 'hand'} ({_line(error)})") from error
        self._has = self._ray.cluster_resources()
        self._gpus = float(self._has.get("GPU", 0) > 0) if gpus is None else gpus
        self._cpus = cpus
        self._under_way: dict[Any, Any] = {}  # what stands for a task's outcome -> its item

    def __enter__(self) -> "Cluster":
        return self

    def __exit__(self, *of: object) -> None:
        """Stops the tasks that are under way, as Ctrl-C stops them here, and leaves the cluster."""
        left = list(self._under_way)
        for reference in left:
            self._ray.cancel(reference)
        self._ray.wait(left, num_returns=max(1, len(left)), timeout=TO_END)
        self._ray.shutdown()

    def describe(self) -> str:
        """What the cluster has, and what a task takes of it, in a line."""
        nodes = sum(node["Alive"] for node in self._ray.nodes())
        cpus, gpus = self._has.get("CPU", 0), self._has.get("GPU", 0)
        line = (
            f"Ray: {nodes} node(s), {cpus:g} CPUs, {gpus:g} GPUs; "
            f"a task takes {self._cpus:g} CPUs and {self._gpus:g} GPUs"
        )
        if self._cpus > cpus or self._gpus > gpus:
            line += ", so they wait for another node"
        return line

    def do(self, work: Callable[..., Any], *item: Any) -> Any:
        """One task, and what it gives.

        Raises:
            AttnactError: and whatever else the work may fail on.
        """
        ((_, outcome),) = self.outcomes(work, [item])
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def outcomes(
        self, work: Callable[..., Any], items: Iterable[Item]
    ) -> Iterator[tuple[Item, Any]]:
        """A task for each item; (item, what `work(*item)` gave or failed on) as they end.

        What fails with BusyError is done again a little later.

        work: a function of a module, or a `partial` of one.
        """
        ray = self._ray
        task = ray.remote(_do).options(
            num_cpus=self._cpus, num_gpus=self._gpus, max_retries=RETRIES, name=_name(work)
        )
        waiting = deque((0.0, item) for item in items)  # (not before, item), in the order of time
        under_way = self._under_way
        while waiting or under_way:
            while waiting and len(under_way) < AT_ONCE and waiting[0][0] <= time.monotonic():
                _, item = waiting.popleft()
                under_way[task.remote(__version__, sys.argv, work, item)] = item
            if not under_way:
                time.sleep(max(0.0, waiting[0][0] - time.monotonic()))
                continue
            done, _ = ray.wait(list(under_way), timeout=SECONDS_BETWEEN_LOOKS)
            for reference in done:
                item, outcome = under_way.pop(reference), self._outcome(reference)
                if isinstance(outcome, BusyError):
                    waiting.append((time.monotonic() + SECONDS_BETWEEN_LOOKS, item))
                else:
                    yield item, outcome

    def _outcome(self, reference: Any) -> Any:
        try:
            return self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            lost = ClusterError(f"a task failed on Ray: {_line(error)}")
            lost.__cause__ = error
            return lost


def device_of_task() -> str:
    """Where the network of the task goes that asks: to the GPU that Ray gave it, or the CPU."""
    import ray

    ids = ray.get_gpu_ids()
    if not ids:
        return "cpu"
    # Ray lets a process see the GPU of its task alone. But CUDA looks only once, and the process,
    # which keeps its networks, may be given another GPU for its next task: it must see all.
    os.environ.pop("CUDA_VISIBLE_DEVICES", None)
    return f"cuda:{ids[0]}"


def _reach(address: str) -> None:
    """Raises OSError where nobody listens. Ray would try for a minute, then end this process."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), PATIENCE).close()


def _do(version: str, arguments: list[str], work: Callable[..., Any], item: Item) -> Any:
    """The task: gives what the work gives or fails on."""
    if version != __version__:
        return ClusterError(f"attnact {__version__} on a worker, {version} here; install the same")
    sys.argv = arguments  # the command that files name as their origin is the one that was typed
    be_quiet(True)
    try:
        return work(*item)
    except FAILURES as error:
        return error


def _name(work: Any) -> str:
    return str(getattr(work, "func", work).__name__)  # as Ray's own tools show it


def _line(error: Exception) -> str:
    """The last line, which of a traceback is what went wrong."""
    return str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
