"""What `auto` stands for, and random weights: chosen once, and kept."""

import os
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from torch import Tensor

from attnact.cache.shards import shard_path
from attnact.errors import CacheError, DatasetError
from attnact.extract import choosing
from attnact.extract.config import ExtractConfig
from attnact.extract.datasets.base import Dataset
from attnact.extract.frames.resize import resize
from attnact.extract.frames.video import read_frames
from attnact.extract.making import take_up
from attnact.extract.networks.backbone import load_backbone
from attnact.extract.pipeline import describe, extract
from attnact.extract.plan import keep_plan, plan_path
from tests.made_extraction import (
    StandIn,
    begin,
    ignore,
    interrupt,
    make_dataset,
    stop_after,
)

pytestmark = pytest.mark.usefixtures("surroundings")


@pytest.fixture(scope="module")
def root(make_clip, tmp_path_factory) -> Path:
    """Two clips, and a file that is none."""
    folder = tmp_path_factory.mktemp("videos")
    for seed, path in enumerate(("dive/a.avi", "run/c.mp4")):
        (folder / path).parent.mkdir()
        make_clip(folder / path, frames=5 - 4 * seed, seed=seed)
    (folder / "dive/text.avi").write_text("no video\n" * 50)
    return folder


@pytest.fixture
def dataset(root: Path) -> Dataset:
    return make_dataset(root, ["dive/a.avi", "run/c.mp4"])


def record_loads(monkeypatch: pytest.MonkeyPatch, off: float = 0) -> list[tuple]:
    """What is loaded, as (runtime, precision); bfloat16 is so far off what it should be."""
    loads: list[tuple] = []

    class Rounded(StandIn):
        def __init__(self, runtime: str, precision: str) -> None:
            self.runtime = "openvino" if runtime == "auto" else runtime
            self.precision = "bfloat16" if precision == "auto" else precision

        def __call__(self, frames: Tensor) -> Tensor:
            cubes = super().__call__(frames)
            cubes[..., 3] += off * cubes.norm() if self.precision == "bfloat16" else 0
            return cubes

    def load(*arguments: object) -> Rounded:
        loads.append(arguments[3:5])
        return Rounded(*arguments[3:5])

    monkeypatch.setattr(choosing, "load_backbone", load)
    return loads


def test_auto_keeps_a_precision_that_keeps_the_features_right(dataset, tmp_path, monkeypatch):
    loads = record_loads(monkeypatch)
    extraction = begin(dataset, tmp_path / "small.h5")
    assert loads == [("auto", "auto"), ("torch", "float32")]
    assert "by openvino in bfloat16 on cpu" in describe(extraction)
    made = extract(extraction, ignore).provenance
    assert (made["runtime"], made["precision"]) == ("openvino", "bfloat16")


@pytest.mark.parametrize("off", [1, float("nan")])
def test_auto_falls_back_on_float32_and_an_asked_for_precision_stays(
    dataset, tmp_path, monkeypatch, off
):
    record_loads(monkeypatch, off)
    fallen = begin(dataset, tmp_path / "a.h5").backbone
    assert (fallen.runtime, fallen.precision) == ("openvino", "float32")
    asked = begin(dataset, tmp_path / "b.h5", precision="bfloat16")
    assert asked.backbone.precision == "bfloat16"


def test_a_cache_goes_on_with_what_auto_stood_for(dataset, tmp_path, monkeypatch):
    cache = tmp_path / "small.h5"
    with pytest.raises(KeyboardInterrupt):  # the stand-in runs with torch in float32
        extract(begin(dataset, cache), stop_after(1, interrupt))
    loads = record_loads(monkeypatch)
    begin(dataset, cache)
    assert loads == [("torch", "float32")]
    with pytest.raises(CacheError, match="begun with runtime torch, now asked for openvino"):
        begin(dataset, cache, runtime="openvino")


def test_random_weights_are_kept_and_marked(root, tmp_path, monkeypatch):
    monkeypatch.setattr(choosing, "load_backbone", load_backbone)
    dataset = make_dataset(root, ["dive/a.avi", "dive/text.avi", "run/c.mp4"])
    path = tmp_path / "small.h5"
    extraction = begin(dataset, path, weights="random")
    cache = extract(extraction, ignore)
    assert cache.provenance["weights_are_random"] == "true"
    # The first frame of each clip: neither has a ninth.
    text = "random (seed 0), batch norms calibrated on 2 frames"
    assert cache.provenance["weights"] == text
    with h5py.File(shard_path(path, 0)) as file:
        assert file["features"][()].any()
    monkeypatch.setattr(choosing, "_some_frames", None)  # not again
    again = begin(dataset, path, weights="random").backbone
    assert again.digest == extraction.backbone.digest
    assert (again.weights, again.is_random) == (text, True)
    helper, _ = take_up(path, root, extraction.config)  # another process, that has no videos yet
    assert (helper.digest, helper.weights) == (again.digest, text)
    with pytest.raises(CacheError, match=r"plan.json: no such file; do all machines share"):
        take_up(tmp_path / "other.h5", root, extraction.config)


def test_calibration_needs_a_video_that_decodes(root, tmp_path):
    with pytest.raises(DatasetError, match="none of the first videos decodes"):
        begin(make_dataset(root, ["dive/text.avi"]), tmp_path / "small.h5", weights="random")
    assert not plan_path(tmp_path / "small.h5").exists()


def test_what_openvino_began_goes_on_where_there_is_a_gpu(dataset, tmp_path, monkeypatch):
    record_loads(monkeypatch)
    extraction = begin(dataset, tmp_path / "small.h5")
    keep_plan(tmp_path / "small.h5", extraction.job.plan)
    devices = []
    load = choosing.load_backbone
    monkeypatch.setattr(
        choosing, "load_backbone", lambda *how: devices.append(str(how[2])) or load(*how)
    )
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    begin(dataset, tmp_path / "small.h5")
    take_up(tmp_path / "small.h5", dataset.root, extraction.config)
    begin(dataset, tmp_path / "new.h5")
    assert devices[:2] == ["cpu", "cpu"]
    assert set(devices[2:]) == {"cuda"}


def test_a_file_that_hangs_holds_up_no_choice(root, tmp_path):
    """The frames that are looked at are decoded under the same protection as all others."""
    (tmp_path / "dive").mkdir()
    shutil.copy(root / "dive/a.avi", tmp_path / "dive")
    os.mkfifo(tmp_path / "dive/hangs.avi")
    dataset = make_dataset(tmp_path, ["dive/hangs.avi", "dive/a.avi"])
    frames = choosing._some_frames(dataset, ExtractConfig(time_limit=2.0), 8)
    expected = resize(np.stack(list(read_frames(root / "dive/a.avi"))), "squash")
    np.testing.assert_array_equal(frames.numpy(), expected[::8])


def test_two_frames_of_each_video_are_looked_at(make_clip, tmp_path):
    """The first and the ninth, also of frames that come one by one, for they are large."""
    for name, size in (("a.avi", (176, 144)), ("b.avi", (1920, 1088))):
        make_clip(tmp_path / name, frames=20, size=size)
    dataset = make_dataset(tmp_path, ["a.avi", "b.avi"])
    frames = choosing._some_frames(dataset, ExtractConfig(), 8)
    each = [list(read_frames(tmp_path / name)) for name in ("a.avi", "b.avi")]
    expected = [resize(own[i][None], "squash")[0] for own in each for i in (0, 8)]
    np.testing.assert_array_equal(frames.numpy(), np.stack(expected))
