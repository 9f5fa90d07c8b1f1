"""Several processes against one: the same curve, the same scores, one set of files, one end."""

import json
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.distributed import TCPStore

from attnact import cli
from attnact.cache.features import FeatureCache
from attnact.errors import RunError
from attnact.machine import files, ranks
from attnact.model.checkpoint import load_checkpoint
from attnact.train import lanes, loop
from attnact.train.config import TrainConfig
from attnact.train.feed import store
from attnact.train.feed.store import open_store, videos_in
from attnact.train.loop import score_test, train
from attnact.train.runs import Run, create_run, open_run
from attnact.train.scoring.predictions import read_attention, read_predictions
from tests.made_runs import SMALL

# 8 clips to choose the epoch by and 11 to train on: 5 + 3, and 5 + 5 + 1, of which one has none.
CHOICES: dict[str, Any] = {
    **SMALL,
    "batch_size": 5,
    "train_stride": 3,
    "test_stride": 3,
    "validation": 0.3,
    "attention_penalty": 1.0,
}
SHORT = {"epochs": 1, "validation": 0.0}
KINDS: dict[str, dict[str, Any]] = {
    "location": {},
    "context": {"attention": "context", **SHORT},
    "released": {
        **SHORT,
        "dropout_form": "released",
        "optimizer": "released",
        "batch_loss": "sum",
        "vote": "majority",
    },
    "average": {"model": "average", "attention_penalty": 0.0, **SHORT},
}


def start(folder: Path, cache: FeatureCache, **choices: Any) -> Run:
    return create_run(folder, TrainConfig(**{**CHOICES, **choices}), cache)


def go(run: Run) -> dict[str, Any]:
    """Trains a run; by all processes that have joined, if there are several."""
    with ranks.joined("cpu") as device:
        cache = run.open_cache()
        features = open_store(cache, videos_in(cache, ["1"]), "host", torch.device(device))
        return train(run, cache, features)


def go_until_saved(run: Run) -> None:
    """The same, but the first process fails after it has saved the first epoch."""

    def save_and_fail(*args: Any) -> None:
        save(*args)
        raise OSError("no disk")

    save, loop.save_state = loop.save_state, save_and_fail
    go(run)


def go_but_hang(run: Run) -> None:
    """The same, but the second process stands still where it should score."""
    ranks.PATIENCE = timedelta(seconds=1)
    if os.environ["RANK"] == "1":
        loop.score_videos = lambda *args: time.sleep(3)
    go(run)


def score(run: Run, to: Path) -> None:
    """Scores the test videos with the run's model; each process tells what it knows then.

    In four batches, of which one holds clips of two videos and one video has clips in two.
    """
    run = replace(run, config=replace(run.config, test_stride=1, batch_size=2))
    with ranks.joined("cpu"):
        cache = run.open_cache()
        features = open_store(cache, videos_in(cache, ["1"]), "host", torch.device("cpu"))
        scored = score_test(run, cache, features, load_checkpoint(run.model).model)
        parts = [scored.scores, np.array(scored.loss), scored.attention]
        (to / f"scored by {ranks.rank()}").write_bytes(b"".join(it.tobytes() for it in parts))


def type_in(folder: Path, *arguments: str) -> None:
    """Types a command in this folder; the second process cannot read from memory."""
    os.chdir(folder)
    if os.environ["RANK"] == "1":
        loop.score_videos = broken
    cli.main(arguments)


def broken(*args: Any) -> None:
    raise RunError("broken")


def _child(
    number: int, of: int, port: int, threads: int, said: Path, work: Any, *args: Any
) -> None:
    """As torchrun sets it up, whose agent keeps the store too."""
    for name, value in {"RANK": number, "WORLD_SIZE": of, "LOCAL_RANK": number}.items():
        os.environ[name] = str(value)
    os.environ.update(LOCAL_WORLD_SIZE=str(of), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    os.environ["TORCHELASTIC_USE_AGENT_STORE"] = "True"
    torch.set_num_threads(threads)
    if number:
        files._part = broken  # the first alone may write
    with said.open("ab", buffering=0) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    work(*args)


@pytest.fixture
def together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[list[int | None], str]]:
    """Does something in two processes; gives their exit codes, and all that they said."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["test_ranks", "torch._dynamo"]
    )  # once for all, since it takes seconds
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))

    def do(work: Any, *args: Any) -> tuple[list[int | None], str]:
        said = tmp_path / "said.txt"
        said.write_text("")
        agent = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        rest = (2, agent.port, torch.get_num_threads(), said, work, *args)
        children = [context.Process(target=_child, args=(n, *rest)) for n in range(2)]
        for child in children:
            child.start()
        for child in children:
            child.join(60)
            child.kill()  # which it must not need: its exit code is then none of those expected
            child.join()
        return [child.exitcode for child in children], said.read_text()

    return do


def lines(run: Run) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    return [{key: line[key] for key in line if key != "seconds"} for line in found]


def assert_same(run: Run, other: Run, cache: FeatureCache, of_weights: float = 1e-3) -> None:
    """All that two runs leave but for times is the same but for rounding."""
    names = {file.name for file in run.folder.iterdir()}
    assert names == {file.name for file in other.folder.iterdir()}
    for ours, theirs in zip(lines(run), lines(other), strict=True):
        assert ours.pop("phase") == theirs.pop("phase")
        for line in (ours, theirs):
            line.pop("processes", None)
        assert ours == pytest.approx(theirs, rel=1e-4)
    weights, expected = (load_checkpoint(it.model).model.state_dict() for it in (run, other))
    for name, weight in expected.items():
        assert (weights[name] - weight).norm() <= of_weights * weight.norm(), name
    for read, name in ((read_predictions, "predictions"), (read_attention, "attention")):
        if getattr(run, name).exists():
            ours, theirs = (read(getattr(it, name), cache) for it in (run, other))
            np.testing.assert_array_equal(ours[0], theirs[0])
            np.testing.assert_allclose(ours[1], theirs[1], rtol=1e-4)
    found, due = run.summary(), other.summary()
    assert found.keys() == due.keys()
    assert [found[it] for it in ("value", "videos", "epochs")] == [
        due[it] for it in ("value", "videos", "epochs")
    ]


@pytest.fixture(scope="module")
def alone(cache: FeatureCache, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of one process."""
    run = start(tmp_path_factory.mktemp("runs") / "alone", cache)
    go(run)
    return run


@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_train_as_one(
    kind: str, together: Any, alone: Run, cache: FeatureCache, tmp_path: Path
) -> None:
    run = start(tmp_path / "two", cache, **KINDS[kind])
    assert together(go, run) == ([0, 0], "")
    other = alone
    if kind != "location":
        other = start(tmp_path / "one", cache, **KINDS[kind])
        go(other)
    # Of the weights on the features next to nothing but rounding decides in context attention, and
    # Adam makes a step of full length of that too.
    assert_same(run, other, cache, of_weights=0.15 if kind == "context" else 1e-3)
    assert {line["processes"] for line in lines(run)} == {2}
    assert "processes" not in lines(other)[0]


@pytest.mark.parametrize("before", [1, 2])
def test_resumed_by_another_number(
    before: int,
    together: Any,
    alone: Run,
    cache: FeatureCache,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = start(tmp_path / "run", cache)
    if before == 1:
        monkeypatch.setattr(loop, "save_state", loop.save_state)  # as it is, afterwards
        with pytest.raises(OSError, match="no disk"):
            go_until_saved(run)
        monkeypatch.undo()
        assert together(go, open_run(run.folder))[0] == [0, 0]
    else:
        codes, said = together(go_until_saved, run)
        assert codes == [1, 1]
        assert "RunError: one of the 2 processes failed or ended" in said
        go(open_run(run.folder))
    assert [line.get("processes", 1) for line in lines(run)][:2] == [before, 3 - before]
    assert_same(run, alone, cache)


def test_one_that_stands_still_is_not_waited_for_for_ever(
    together: Any, cache: FeatureCache, tmp_path: Path
) -> None:
    codes, said = together(go_but_hang, start(tmp_path / "run", cache))
    assert codes == [1, 1]
    assert "RunError: one of the 2 processes failed or ended" in said


def test_scores_are_the_same_to_the_byte(together: Any, alone: Run, tmp_path: Path) -> None:
    first, second = tmp_path / "scored by 0", tmp_path / "scored by 1"
    score(alone, tmp_path)
    due = first.read_bytes()
    first.unlink()
    assert together(score, alone, tmp_path) == ([0, 0], "")
    assert first.read_bytes() == second.read_bytes() == due


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("train", "--resume", "run"), 1, "attnact: error: broken"),  # by the second alone
        (("train", "--resume", "none"), 1, "attnact: error: none/config.json: no such file"),
        (("train", "--resume", "run", "--device", "meta"), 2, "on meta here"),
        (("train", "--epochs", "x"), 2, "Invalid value for '--epochs'"),
        (("sweep-lambda", "--lambdas", "0"), 2, "start `sweep-lambda` without it"),
    ],
)
def test_what_fails_ends_all_and_is_told_once(
    arguments: tuple[str, ...],
    code: int,
    told: str,
    together: Any,
    cache: FeatureCache,
    tmp_path: Path,
) -> None:
    run = start(tmp_path / "run", cache)
    codes, said = together(type_in, tmp_path, *arguments)
    assert codes == [code, code]
    assert said.count(told) == said.count("rror: ") == 1
    assert "Traceback" not in said
    assert not run.finished


def test_torchrun(make_cache: Any, tmp_path: Path) -> None:
    """As people type it: results and files once, progress by the first alone."""
    cache = make_cache(tmp_path / "features" / "x.h5", videos=6)
    choices = [f"--{name.replace('_', '-')}={value}" for name, value in CHOICES.items()]
    choices = [it.replace("--attention-penalty", "--lambda") for it in choices]
    program = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "-m", "attnact"]
    done = subprocess.run(
        [*program, "train", "--device=cpu", "--name=two", *choices, "--validation=0"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{Path('runs/x/two')}: accuracy ")
    assert done.stdout.count("\n") == done.stderr.count("; the model on cpu, 2 processes\n") == 1
    run = open_run(tmp_path / "runs" / "x" / "two")
    assert run.summary()["videos"] == len(read_predictions(run.predictions, cache)[0])
    assert {file.suffix for file in run.folder.iterdir()} == {
        *(".json", ".jsonl", ".ckpt", ".safetensors", ".csv")
    }


def test_every_clip_is_worked_on_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for count, size, clips in [(2, 5, 11), (3, 128, 300), (4, 3, 7), (3, 1, 4), (1, 4, 9)]:
        monkeypatch.setattr(ranks, "count", lambda count=count: count)
        order = np.random.default_rng(0).permutation(clips)
        seen = []
        for rank in range(count):
            monkeypatch.setattr(ranks, "rank", lambda rank=rank: rank)
            own, shares = lanes._share_out(order, size)
            assert {len(part) for part in own[:-1]} <= {len(own[0])}
            assert 1 <= len(own[-1]) <= len(own[0])  # as `batches` cuts them
            for i, (part, share) in enumerate(zip(own, shares, strict=True)):
                batch = order[i * size : (i + 1) * size]
                assert share.clips == len(batch)
                np.testing.assert_array_equal(part, batch[share.rows])
                seen += part.tolist() if share.weight else []
        assert sorted(seen) == list(range(clips))


def test_memory_is_for_all_processes(cache: FeatureCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "free_memory", lambda: 1000)
    assert store._choose(600, torch.device("cpu")) == "host"
    monkeypatch.setattr(ranks, "on_this_machine", lambda: 2)
    assert store._choose(600, torch.device("cpu")) == "disk"


def test_each_process_has_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    assert ranks._own_device(None) == ranks._own_device("cuda") == "cuda:1"
    assert ranks._own_device("cpu") == "cpu"
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(RunError, match="3 processes for 2 GPUs on this machine"):
        ranks._own_device(None)
