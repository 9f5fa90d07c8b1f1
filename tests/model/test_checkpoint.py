"""Weights and training states: exact round trips, and files that are refused without running."""

import json
import pickle
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from attnact.errors import RunError
from attnact.model.checkpoint import (
    Checkpoint,
    load_checkpoint,
    load_state,
    save_checkpoint,
    save_state,
)
from attnact.model.models import AttentionLSTM, ModelConfig

CONFIG = ModelConfig(
    classes=3,
    attention="context",
    attention_layers=2,
    lstm_layers=2,
    hidden_size=4,
    dropout=0.25,
    dropout_form="released",
    locations=6,
    channels=5,
)
FEATURES = {"backbone": "googlenet", "weights": 'a, "b"\nλ'}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    path = tmp_path / "model.safetensors"
    save_checkpoint(path, Checkpoint(AttentionLSTM(CONFIG), ["a", "b|c", "é"], True, FEATURES))
    return path


def refuses(path: Path) -> str:
    with pytest.raises(RunError) as caught:
        load_checkpoint(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message


def test_round_trip(saved: Path) -> None:
    torch.manual_seed(0)
    model = AttentionLSTM(CONFIG)
    found = load_checkpoint(saved)
    assert found.model.config == CONFIG
    assert found.model.state_dict().keys() == model.state_dict().keys()
    for name, tensor in model.state_dict().items():
        assert torch.equal(found.model.state_dict()[name], tensor)
    assert (found.classes, found.multi_label, found.features) == (["a", "b|c", "é"], True, FEATURES)
    assert not found.model.training
    assert [file.name for file in saved.parent.iterdir()] == ["model.safetensors"]


def test_missing(tmp_path: Path) -> None:
    assert "no such file; has the run finished?" in refuses(tmp_path / "model.safetensors")


@pytest.mark.parametrize("content", [b"", b"<html>", b"\xff" * 64, b"PK\x03\x04"])
def test_other_kinds_of_files(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    assert "not a model of attnact, or damaged" in refuses(path)


def test_cut_off(saved: Path) -> None:
    saved.write_bytes(saved.read_bytes()[:-1])
    refuses(saved)


def edit(path: Path, tensors: dict[str, Any], **changes: Any) -> None:
    """Writes the file anew with other tensors, or another description; None takes a part away."""
    with safe_open(path, "pt") as file:
        description = json.loads(file.metadata()["attnact"]) | changes
    description = {name: value for name, value in description.items() if value is not None}
    kept = {name: t for name, t in (load_file(path) | tensors).items() if t is not None}
    save_file(kept, path, {"attnact": json.dumps(description)})


@pytest.mark.parametrize(
    ("tensors", "changes"),
    [
        ({"head.classes.bias": None}, {}),
        ({"head.classes.bias": torch.zeros(7)}, {}),
        ({"fc.bias": torch.zeros(7)}, {}),
        ({}, {"model": {"hidden_size": 4}}),
        ({}, {"model": [1]}),
        ({}, {"model": None}),
        ({}, {"classes": None}),
        ({}, {"multi_label": None}),
        ({}, {"features": None}),
    ],
)
def test_safetensors_that_do_not_fit(saved: Path, tensors: Any, changes: Any) -> None:
    edit(saved, tensors, **changes)
    refuses(saved)


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}, {"attnact": "{"}, {"attnact": "[]"}])
def test_safetensors_of_other_programs(saved: Path, metadata: dict[str, str] | None) -> None:
    save_file(load_file(saved), saved, metadata)
    refuses(saved)


def test_state_round_trip(tmp_path: Path) -> None:
    model = AttentionLSTM(CONFIG)
    optimizer = torch.optim.Adam(model.parameters())
    scores, _ = model(torch.randn(2, 3, 6, 5), torch.ones(2, 3))
    scores.sum().backward()
    optimizer.step()
    path = tmp_path / "last.ckpt"
    assert load_state(path) is None
    wanted = {"epoch": 3, "model": model.state_dict(), "optimizer": optimizer.state_dict()}
    save_state(path, wanted)
    found = load_state(path)
    assert found is not None
    assert found["epoch"] == 3
    torch.testing.assert_close(found["model"], dict(wanted["model"]), rtol=0, atol=0)
    torch.testing.assert_close(
        found["optimizer"]["state"], wanted["optimizer"]["state"], rtol=0, atol=0
    )
    assert found["optimizer"]["param_groups"] == wanted["optimizer"]["param_groups"]
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]


@pytest.mark.parametrize("damage", ["empty", "cut", "text", "flip"])
def test_damaged_state(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "last.ckpt"
    save_state(path, {"model": {"w": torch.arange(5000.0)}})
    content = bytearray(path.read_bytes())
    if damage == "flip":  # in the middle of the pickled description
        at = content.index(b"data.pkl") + 80
        content[at : at + 8] = random.Random(0).randbytes(8)
    parts = {"empty": b"", "cut": content[:-300], "text": b"no zip", "flip": content}
    path.write_bytes(parts[damage])
    with pytest.raises(RunError, match=r"last\.ckpt: damaged; delete it and --resume starts anew"):
        load_state(path)


@pytest.mark.parametrize("how", ["torch.save", "legacy torch.save", "pickle"])
def test_never_runs_what_a_state_says(tmp_path: Path, how: str) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "sprung",))

    path = tmp_path / "last.ckpt"
    if how == "pickle":
        path.write_bytes(pickle.dumps({"model": Trap()}))
    else:
        torch.save({"model": Trap()}, path, _use_new_zipfile_serialization=how == "torch.save")
    with pytest.raises(RunError, match="damaged"):
        load_state(path)
    path.rename(tmp_path / "model.safetensors")
    refuses(tmp_path / "model.safetensors")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("place", [-1, -500, 0.3])
def test_a_byte_of_the_weights_that_changed(saved: Path, place: float) -> None:
    content = bytearray(saved.read_bytes())
    content[int(place * len(content)) if place > 0 else int(place)] ^= 16
    saved.write_bytes(content)
    refuses(saved)


def test_a_description_that_changed(saved: Path) -> None:
    content = saved.read_bytes()
    assert content.count(b"b|c") == 1
    saved.write_bytes(content.replace(b"b|c", b"b|d"))
    assert "its digest is that of other weights" in refuses(saved)


def test_a_model_from_before_there_were_digests(saved: Path) -> None:
    edit(saved, {}, digest=None)
    assert load_checkpoint(saved).classes == ["a", "b|c", "é"]


def test_the_same_model_makes_the_same_bytes(saved: Path) -> None:
    again = saved.with_name("again.safetensors")
    save_checkpoint(again, load_checkpoint(saved))
    assert again.read_bytes() == saved.read_bytes()


def test_a_byte_of_a_state_that_changed(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    save_state(path, {"model": {"w": torch.arange(5000.0)}})
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1  # of a weight: torch itself does not notice
    path.write_bytes(content)
    assert torch.load(path, weights_only=True)["model"]["w"].shape == (5000,)
    with pytest.raises(RunError, match=r"last\.ckpt: damaged"):
        load_state(path)
