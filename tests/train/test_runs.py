"""Run folders: begun once, found again, and refused when something in them is wrong."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from attnact.cache.features import FeatureCache
from attnact.errors import CacheError, RunBusyError, RunError
from attnact.train.config import TrainConfig
from attnact.train.runs import Run, create_run, free_name, only_here, open_run

CONFIG = TrainConfig(fold="2", seed=7, attention_penalty=0.1, recipe="released")


@pytest.fixture
def run(tmp_path: Path, cache: FeatureCache) -> Run:
    return create_run(tmp_path / "runs/small/x", CONFIG, cache)


def one_line(caught: Any, path: Path) -> None:
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message


def test_round_trip(run: Run) -> None:
    assert open_run(run.folder) == run
    assert run.config == CONFIG
    assert not run.finished
    assert [file.name for file in run.folder.iterdir()] == ["config.json"]


def test_the_cache_is_found_from_anywhere(
    make_cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_cache(tmp_path / "small.h5", videos=3)
    monkeypatch.chdir(tmp_path)
    create_run(Path("x"), CONFIG, FeatureCache(Path("small.h5")))
    monkeypatch.chdir("/")
    assert open_run(tmp_path / "x").open_cache().path == tmp_path / "small.h5"


def test_never_overwritten(run: Run, cache: FeatureCache) -> None:
    before = (run.folder / "config.json").read_bytes()
    with pytest.raises(RunError, match="holds a run; --resume it, or choose another --name"):
        create_run(run.folder, replace(CONFIG, seed=8), cache)
    assert (run.folder / "config.json").read_bytes() == before


def test_summary(run: Run) -> None:
    with pytest.raises(RunError, match="no such file; has the run finished"):
        run.summary()
    run.finish({"value": 1 / 3, "metric": "mAP"})
    assert run.finished
    assert open_run(run.folder).summary() == {"value": 1 / 3, "metric": "mAP"}


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"3", b"\xff\xfe\x00", b'{"train":'])
@pytest.mark.parametrize("name", ["config.json", "summary.json"])
def test_damaged_json(run: Run, name: str, content: bytes) -> None:
    path = run.folder / name
    path.write_bytes(content)
    with pytest.raises(RunError, match="damaged") as caught:
        open_run(run.folder).summary()
    one_line(caught, path)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"train": None}, "damaged"),
        ({"train": [1]}, "damaged"),
        ({"train": {"momentum": 0.9}}, "unexpected keyword argument 'momentum'"),
        ({"train": {"lstm_layers": 9}}, "lstm_layers must be 1 to 5"),
        ({"train": {"epochs": "3"}}, "epochs must be of the kind int"),
        ({"train": {"hidden_size": True}}, "hidden_size must be of the kind int"),
        ({"cache": 3}, "damaged"),
        ({"cache": None}, "damaged"),
        ({"cache_digest": None}, "damaged"),
    ],
)
def test_wrong_config(run: Run, changes: dict[str, Any], why: str) -> None:
    """None takes a key away; so older files have no digest."""
    path = run.folder / "config.json"
    content = json.loads(path.read_text()) | changes | {"digest": None}
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))
    with pytest.raises(RunError, match=f"damaged.*{why}" if why != "damaged" else why) as caught:
        open_run(run.folder)
    one_line(caught, path)


@pytest.mark.parametrize("key", ["dataset", "cache_digest", "train"])
def test_a_config_that_changed_is_refused(run: Run, key: str) -> None:
    path = run.folder / "config.json"
    content = json.loads(path.read_text())
    content[key] = content[key] | {"seed": 8} if key == "train" else content[key] + "x"
    path.write_text(json.dumps(content))
    with pytest.raises(RunError, match=r"damaged .its digest is that of other content") as caught:
        open_run(run.folder)
    one_line(caught, path)


def test_a_cache_that_moved_may_be_named_anew(run: Run) -> None:
    path = run.folder / "config.json"
    path.write_text(path.read_text().replace(str(run.cache), "/elsewhere/small.h5"))
    assert open_run(run.folder) == replace(run, cache=Path("/elsewhere/small.h5"))


def test_of_two_that_begin_a_run_at_once_one_does(
    run: Run, cache: FeatureCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (run.folder / "config.json").read_bytes()
    monkeypatch.setattr(Path, "exists", lambda path: False)  # as it was a moment ago
    with pytest.raises(RunError, match="holds a run; --resume it, or choose another --name"):
        create_run(run.folder, replace(CONFIG, seed=8), cache)
    assert (run.folder / "config.json").read_bytes() == before
    assert [file.name for file in run.folder.iterdir()] == ["config.json"]


def test_a_run_is_trained_by_one_process_at_a_time(run: Run) -> None:
    with only_here(run):
        with pytest.raises(RunBusyError, match="another process trains this run"), only_here(run):
            pass
        assert len(list(run.folder.glob("*.lock"))) == 1
    with only_here(run):  # again, and nothing stays
        pass
    assert [file.name for file in run.folder.iterdir()] == ["config.json"]


def test_no_run(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no such file; is this the folder of a") as caught:
        open_run(tmp_path)
    one_line(caught, tmp_path / "config.json")


def test_a_cache_made_anew(make_cache, tmp_path: Path) -> None:
    path = tmp_path / "small.h5"
    run = create_run(tmp_path / "x", CONFIG, make_cache(path, videos=3))
    path.unlink()
    with pytest.raises(CacheError, match="no such file"):
        run.open_cache()
    for file in path.with_suffix(".shards").iterdir():
        file.unlink()
    path.with_suffix(".shards").rmdir()
    make_cache(path, videos=6)
    with pytest.raises(RunError, match="was made anew since this run began") as caught:
        run.open_cache()
    one_line(caught, run.folder)


def test_a_run_that_moved_with_its_cache_finds_it(make_cache, tmp_path: Path) -> None:
    path = tmp_path / "here/features/small.h5"
    cache = make_cache(path, videos=3)
    for folder in ("runs/small/x", "runs/small/sweep/y"):
        create_run(tmp_path / "here" / folder, CONFIG, cache)
    (tmp_path / "here").rename(tmp_path / "there")
    for folder in ("runs/small/x", "runs/small/sweep/y"):
        run = open_run(tmp_path / "there" / folder)
        assert run.open_cache().path == tmp_path / "there/features/small.h5"
    shutil.rmtree(tmp_path / "there/features")
    make_cache(tmp_path / "there/features/small.h5", videos=6)  # another of that name
    run = open_run(tmp_path / "there/runs/small/x")
    told = f"{path}: no such file; if it was moved, say so in {run.folder}/config.json"
    with pytest.raises(CacheError, match=re.escape(told)):
        run.open_cache()


def test_free_name(tmp_path: Path, cache: FeatureCache) -> None:
    names = []
    for _ in range(3):
        path = free_name(tmp_path, CONFIG)
        create_run(path, CONFIG, cache)
        names.append(path.name)
    name = "released-fold2-seed7"
    assert names == [name, f"{name}-2", f"{name}-3"]
