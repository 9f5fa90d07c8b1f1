"""On Ray: the same bytes as here, though workers and a whole node die in the middle."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result

from attnact.cli import main
from attnact.errors import BusyError, CacheError, ClusterError
from attnact.extract import choosing, on_cluster
from attnact.extract import plan as plan_module
from attnact.machine import cluster as module
from attnact.machine.cluster import Cluster, device_of_task
from attnact.train import loop
from attnact.train.experiments import on_cluster as runs_on_cluster
from tests.made_extraction import StandIn

ray = pytest.importorskip("ray", reason="Ray is not installed")

VIDEOS = 4  # a shard each
SMALL = ["--hidden-size", "4", "--lstm-layers", "1", "--epochs", "3", "--train-stride", "9"]
SMALL += ["--test-stride", "9", "--validation", "0", "--lambdas", "0,1", "--folds", "1,2"]
SMALL += ["--device", "cpu"]


class Nodes:
    """A cluster of a head that takes no tasks, and two nodes that each take one at a time."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster as Simulated

        quick = {"health_check_period_ms": 500, "health_check_failure_threshold": 3}
        self._all = Simulated(
            initialize_head=True,
            head_node_args={"num_cpus": 0, "num_gpus": 0, "_system_config": quick},
        )
        self.address = self._all.address
        self.nodes: list[Any] = []

    def make_whole(self) -> None:
        while len(self.nodes) < 2:
            self.nodes.append(self._all.add_node(num_cpus=1, num_gpus=2))

    def lose(self, node_id: str) -> None:
        """A node, with all that runs on it, at once."""
        (node,) = [it for it in self.nodes if it.node_id == node_id]
        self._all.remove_node(node, allow_graceful=False)
        self.nodes.remove(node)

    def close(self) -> None:
        self._all.shutdown()


@pytest.fixture(scope="module")
def all_nodes() -> Iterator[Nodes]:
    with pytest.MonkeyPatch.context() as patch:
        # The nodes' workers have the environment that they began with.
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        patch.setenv("SOURCE_DATE_EPOCH", "1577836800")
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        before = signal.getsignal(signal.SIGTERM)  # Ray takes it, and keeps it
        found = Nodes()
        try:
            yield found
        finally:
            ray.shutdown()
            found.close()
            signal.signal(signal.SIGTERM, before)


@pytest.fixture
def nodes(all_nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> Nodes:
    all_nodes.make_whole()
    monkeypatch.setattr(module, "SECONDS_BETWEEN_LOOKS", 0.2)
    return all_nodes


@pytest.fixture
def on_ray(nodes: Nodes) -> list[str]:
    return ["--engine", "ray", "--address", nodes.address]


def attnact(*arguments: str) -> Result:
    result = CliRunner().invoke(main, arguments)
    assert "Traceback" not in result.stderr
    return result


def files(folder: Path) -> dict[str, bytes]:
    """What is made; the times in it are nobody's."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*.*")
        if path.is_file() and path.suffix not in (".jsonl", ".ckpt", ".lock")
    }


def stay(folder: Path, name: str, deaths: int) -> None:
    """In a worker: waits to be killed, so many times; each leaves a file that says where it is."""
    number = len(list(folder.glob(f"{name}-*")))
    if number < deaths:
        where = f"{os.getpid()} {ray.get_runtime_context().get_node_id()}"
        part = folder / f"part-{name}-{number}"
        part.write_text(where)
        part.rename(folder / f"{name}-{number}")
        time.sleep(600)


def killer(folder: Path, *deaths: tuple[str, Callable[[int, str], None]]) -> threading.Thread:
    """Kills what stays, in this order: the name of its file, and how, of its process and node."""

    def work() -> None:
        for name, how in deaths:
            while not (folder / name).exists():
                time.sleep(0.02)
            process, node = (folder / name).read_text().split()
            how(int(process), node)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def kill_process(process: int, node: str) -> None:
    os.kill(process, signal.SIGKILL)


def stand_in(folder: Path, task: str, *item: Any) -> Any:
    """In a worker: a task of the extraction without a network; shard 1 dies twice, half written."""

    class Slow(StandIn):
        doing: Any = None  # the network stays from task to task

        def start(self, frames: Any) -> Any:
            if self.doing == ("_make", 1):
                stay(folder, "shard", 2)
            return super().start(frames)

    made = NETWORK.setdefault("it", Slow())
    type(made).doing = task, item[-1]
    choosing.load_backbone = lambda *arguments: made
    plan_module.SHARD_FRAMES = 50
    return ORIGINAL[task](*item)


NETWORK: dict[str, Any] = {}
ORIGINAL = {name: getattr(on_cluster, name) for name in ("_begin", "_make", "_end")}


def test_a_worker_and_a_node_die_in_the_middle_of_an_extraction(
    make_clip, nodes, on_ray, tmp_path, monkeypatch
):
    for seed in range(VIDEOS):
        path = tmp_path / "videos" / ("dive", "run")[seed % 2] / f"{seed}.avi"
        path.parent.mkdir(parents=True, exist_ok=True)
        make_clip(path, frames=40, seed=seed)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1577836800")
    monkeypatch.setattr(choosing, "load_backbone", lambda *arguments: StandIn())
    monkeypatch.setattr(plan_module, "SHARD_FRAMES", 50)
    monkeypatch.setattr(sys, "argv", ["attnact", "features"])
    features = ["features", "folder", "--videos", "videos", "--folds", "2", "--device", "cpu"]
    assert attnact(*features, "--out", "local/small.h5").exit_code == 0

    for name in ORIGINAL:
        monkeypatch.setattr(on_cluster, name, partial(stand_in, tmp_path, name))
    deaths = ("shard-0", kill_process), ("shard-1", lambda process, node: nodes.lose(node))
    thread = killer(tmp_path, *deaths)
    result = attnact(*features, "--out", "ray/small.h5", *on_ray)
    assert result.exit_code == 0, result.stderr
    assert "Ray: 3 node(s), 2 CPUs" in result.stderr
    assert "4 of 4 shards, about 160 frames" in result.stderr
    assert "4 videos, 160 frames" in result.stdout
    thread.join(60)
    assert (tmp_path / "shard-1").exists()
    assert files(tmp_path / "ray") == files(tmp_path / "local")


def dies_twice(folder: Path, *item: Any) -> Any:
    """In a worker: the first run is stopped after its first epoch, and after its second."""
    save = loop.save_state

    def save_state(*of: Any) -> None:
        save(*of)
        stay(folder, "run", 2)

    loop.save_state = save_state if item[-2] == ("lambda0", 0, "1") else save  # type: ignore[assignment]
    try:
        return TRAIN(*item)
    finally:
        loop.save_state = save


TRAIN = runs_on_cluster._train


def test_a_worker_and_a_node_die_in_the_middle_of_a_sweep(
    make_cache, nodes, on_ray, tmp_path, monkeypatch
):
    make_cache(tmp_path / "features" / "small.h5", videos=6)
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as Ray has it; of more, the last bits might be others
    assert attnact("sweep-lambda", "--name", "local", *SMALL).exit_code == 0
    torch.set_num_threads(threads)
    monkeypatch.setattr(runs_on_cluster, "_train", partial(dies_twice, tmp_path))
    deaths = ("run-0", kill_process), ("run-1", lambda process, node: nodes.lose(node))
    thread = killer(tmp_path, *deaths)
    result = attnact("sweep-lambda", "--name", "ray", *SMALL, *on_ray)
    assert result.exit_code == 0, result.stderr
    assert sum("accuracy" in line for line in result.stderr.splitlines()) == 4
    thread.join(60)
    assert (tmp_path / "run-1").exists()
    runs = tmp_path / "runs" / "small"
    assert files(runs / "ray") == files(runs / "local")


def two_kinds(folder: Path, number: int) -> Any:
    if number == 0:
        raise CacheError("a.h5: broken")
    if number == 1 and not (folder / "looked").exists():
        (folder / "looked").touch()
        raise BusyError("another process makes it")
    if number == 2:
        raise KeyError("a mistake")
    return device_of_task(), os.environ.get("CUDA_VISIBLE_DEVICES")


def test_what_tasks_give_and_fail_on(nodes, tmp_path):
    items = [(number,) for number in range(5)]
    with Cluster(nodes.address, 1, None) as cluster:  # a GPU for each, for there are some
        assert "4 GPUs; a task takes 1 CPUs and 1 GPUs" in cluster.describe()
        got = {
            n: outcome for (n,), outcome in cluster.outcomes(partial(two_kinds, tmp_path), items)
        }
        with pytest.raises(CacheError, match="broken"):
            cluster.do(two_kinds, tmp_path, 0)
    assert isinstance(got[0], CacheError)
    assert isinstance(got[2], ClusterError)
    assert str(got[2]) == "a task failed on Ray: KeyError: 'a mistake'"
    assert all(got[n][0] in ("cuda:0", "cuda:1") and got[n][1] is None for n in (1, 3, 4))
    with Cluster(nodes.address, 1, 8) as cluster:
        assert cluster.describe().endswith("8 GPUs, so they wait for another node")


def until_stopped(folder: Path, number: int) -> str:
    if number == 0:
        while not (folder / "begun").exists():
            time.sleep(0.02)
        return device_of_task()
    (folder / "begun").touch()
    try:
        while True:
            time.sleep(0.1)
    except KeyboardInterrupt:
        (folder / "stopped").touch()
        raise


def test_what_is_under_way_is_stopped_with_the_command(nodes, tmp_path):
    def until_the_first() -> None:
        with Cluster(nodes.address, 1, 0) as cluster:
            for _, device in cluster.outcomes(partial(until_stopped, tmp_path), [(0,), (1,)]):
                assert device == "cpu"  # of a task that takes no GPU, though there are some
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        until_the_first()
    assert (tmp_path / "stopped").exists()


def test_another_version_is_refused():
    outcome = module._do("0.0.0", [], len, ((),))
    assert isinstance(outcome, ClusterError)
    assert "0.0.0 here; install the same" in str(outcome)


def test_what_cannot_be_is_told_in_a_line(make_cache, tmp_path, monkeypatch):
    make_cache(tmp_path / "features" / "small.h5", videos=6)
    monkeypatch.chdir(tmp_path)
    for arguments, code, message in (
        (
            ["--engine", "ray", "--address", "127.0.0.1:1"],
            1,
            "error: no Ray cluster at 127.0.0.1:1",
        ),
        (["--engine", "ray", "--device", "cuda:1"], 2, "Ray chooses the devices"),
        (["--task-gpus", "1"], 2, "--task-gpus are for --engine ray"),
    ):
        result = attnact("sweep-lambda", *arguments)
        assert (result.exit_code, message in result.stderr) == (code, True), result.stderr
    monkeypatch.setitem(sys.modules, "ray", None)
    result = attnact("table1", "--engine", "ray")
    assert result.exit_code == 1
    assert result.stderr == "attnact: error: Ray is missing; pip install 'attnact[ray]'\n"
