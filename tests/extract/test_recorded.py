"""The backbone that a provenance records, found again or refused."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from attnact.errors import UnsupportedError, WeightsError
from attnact.extract import recorded
from attnact.extract.choosing import random_weights_path
from attnact.extract.frames import video
from attnact.extract.frames.decoder import BLOCK, Ended, Failed
from attnact.extract.recorded import read_videos, recorded_backbone

PROVENANCE = {
    "backbone": "googlenet",
    "weights": "mine.pth",
    "weights_digest": "0123",
    "weights_are_random": "false",
}

HOW = ("torch", "float32")  # as in caches from before there was a choice


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[tuple]:
    """What `load_backbone` is asked for; it gives weights of the digest 0123."""
    calls: list[tuple] = []

    def load(*arguments: object) -> SimpleNamespace:
        calls.append(arguments)
        return SimpleNamespace(digest="0123", weights="mine.pth")

    monkeypatch.setattr(recorded, "load_backbone", load)
    return calls


def test_weights_lie_where_they_lay(loaded, tmp_path: Path) -> None:
    file = tmp_path / "mine.pth"
    cache = tmp_path / "small.h5"
    provenance = {**PROVENANCE, "weights_file": str(file)}
    with pytest.raises(WeightsError, match=r"mine\.pth: .* are gone; say .* --weights FILE"):
        recorded_backbone(provenance, cache, None, "cpu")
    file.touch()
    recorded_backbone(provenance, cache, None, "cpu")
    recorded_backbone(provenance, cache, Path("elsewhere.pth"), "cpu")
    assert loaded == [
        ("googlenet", file, "cpu", *HOW),
        ("googlenet", Path("elsewhere.pth"), "cpu", *HOW),
    ]


def test_random_weights_lie_beside_the_cache(loaded, tmp_path: Path) -> None:
    cache = tmp_path / "small.h5"
    provenance = {**PROVENANCE, "weights_are_random": "true", "weights_file": ""}
    with pytest.raises(WeightsError, match=r"weights\.safetensors: .* are gone"):
        recorded_backbone(provenance, cache, None, "cpu")
    random_weights_path(cache).parent.mkdir()
    random_weights_path(cache).touch()
    recorded_backbone(provenance, cache, None, "cpu")
    assert loaded == [("googlenet", random_weights_path(cache), "cpu", *HOW)]


def test_published_weights_are_fetched(loaded, tmp_path: Path) -> None:
    recorded_backbone({**PROVENANCE, "weights": "IMAGENET1K_V1"}, tmp_path / "a.h5", None, "cpu")
    assert loaded == [("googlenet", None, "cpu", *HOW)]


def test_the_network_runs_as_it_was_run(loaded, tmp_path: Path) -> None:
    made = {**PROVENANCE, "weights": "IMAGENET1K_V1"}
    made |= {"runtime": "openvino", "precision": "bfloat16"}
    recorded_backbone(made, tmp_path / "a.h5", None, "cuda")  # where OpenVINO is not
    assert loaded == [("googlenet", None, "cpu", "openvino", "bfloat16")]


def test_a_cpu_does_not_run_a_gpus_float16(loaded, tmp_path: Path) -> None:
    made = {**PROVENANCE, "weights": "IMAGENET1K_V1", "runtime": "torch", "precision": "float16"}
    for device in ("cuda:1", "cpu"):
        recorded_backbone(made, tmp_path / "a.h5", None, device)
    assert [call[-1] for call in loaded] == ["float16", "float32"]


def test_a_machine_that_cannot_run_it_so_says_so(tmp_path: Path, monkeypatch) -> None:
    def load(*arguments: object) -> None:
        raise UnsupportedError("OpenVINO is missing")

    monkeypatch.setattr(recorded, "load_backbone", load)
    made = {**PROVENANCE, "weights": "IMAGENET1K_V1"}
    made |= {"runtime": "openvino", "precision": "bfloat16"}
    with pytest.raises(UnsupportedError, match=r"made by openvino in bfloat16: .* is missing"):
        recorded_backbone(made, tmp_path / "a.h5", None, "cpu")


def test_what_is_not_recorded_or_not_the_same_is_refused(loaded, tmp_path: Path) -> None:
    cache = tmp_path / "small.h5"
    with pytest.raises(WeightsError, match=r"does not record where its weights \(mine\.pth\) lay"):
        recorded_backbone(PROVENANCE, cache, None, "cpu")
    elsewhere = dict.fromkeys(PROVENANCE, "unknown (released files)")
    with pytest.raises(WeightsError, match=r"made elsewhere \(backbone unknown"):
        recorded_backbone(elsewhere, cache, Path("mine.pth"), "cpu")
    other = {**PROVENANCE, "weights_digest": "4567"}
    with pytest.raises(WeightsError, match=r"other\.pth: not the weights .*digest 4567, here 0123"):
        recorded_backbone(other, cache, Path("other.pth"), "cpu")


def test_videos_one_after_the_other(make_clip, tmp_path: Path) -> None:
    """A broken one between two sound ones, of which the first is not read to its end."""
    paths = [tmp_path / name for name in ("a.avi", "broken.avi", "b.avi")]
    make_clip(paths[0], frames=2 * BLOCK)
    paths[1].write_text("no video")
    make_clip(paths[2], frames=BLOCK + 4)
    found = read_videos(paths, "pyav", "squash", 60, torch.device("cpu"))
    header, events = next(found)
    assert (header.frame_rate, header.declared_frames) == (25, 2 * BLOCK)
    assert isinstance(next(events), torch.Tensor)
    header, events = next(found)
    assert isinstance(header, Failed)
    assert [type(event) for event in events] == [Failed]
    header, events = next(found)
    *frames, last = events
    assert [len(event) for event in frames] == [BLOCK, 4]
    assert isinstance(last, Ended)
    assert next(found, None) is None


def test_a_decoder_that_is_not_installed(monkeypatch, tmp_path):
    monkeypatch.setattr(video, "find_spec", lambda name: None)
    with pytest.raises(UnsupportedError, match="decord is missing"):
        next(read_videos([tmp_path / "a.avi"], "decord", "squash", 60, torch.device("cpu")))


def test_published_weights_that_a_file_was_begun_with(loaded, tmp_path):
    """The cache was begun with a copy of them, and finished with what is published."""
    recorded_backbone({**PROVENANCE, "weights_file": ""}, tmp_path / "small.h5", None, "cpu")
    assert loaded[-1][1] is None
