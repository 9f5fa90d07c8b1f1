import hashlib
import pickle
from collections.abc import Iterator

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from attnact.errors import WeightsError
from attnact.extract.networks import weights
from attnact.extract.networks.googlenet import import_torchvision
from attnact.extract.networks.weights import (
    PUBLISHED,
    Published,
    digest,
    fetch_published,
    fit,
    published_file,
    read_weights,
)
from tests.servers import Web, http_server

CONTENT = b"weights " * 1000
SHA1 = hashlib.sha1(CONTENT).hexdigest()


@pytest.fixture
def web(monkeypatch, tmp_path) -> Iterator[Web]:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with http_server(CONTENT) as web:
        yield web


def publish(monkeypatch, url, digest=SHA1):
    monkeypatch.setitem(PUBLISHED, "googlenet", Published("V1", url, "sha1", digest))


def one_line(caught) -> str:
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_publishes_what_torchvision_does():
    published = import_torchvision().models.GoogLeNet_Weights.IMAGENET1K_V1
    assert PUBLISHED["googlenet"].label == published.name
    assert PUBLISHED["googlenet"].url == published.url
    assert PUBLISHED["googlenet"].digest in published.url


def test_fetches_once_into_torch_hubs_folder(web, monkeypatch, tmp_path):
    publish(monkeypatch, web.url)
    path = fetch_published("googlenet")
    assert path == published_file("googlenet") == tmp_path / "torch/hub/checkpoints/file"
    assert path.read_bytes() == CONTENT
    assert fetch_published("googlenet") == path
    assert len(web.asked) == 1


@pytest.mark.parametrize(
    ("how", "digest", "why"),
    [
        ({"status": 404}, "", "Not Found"),
        ({"cut": 10}, SHA1, "sha1"),
        ({}, "abcdef", "the sha1 of what came is not abcdef"),
    ],
)
def test_a_failed_fetch_leaves_nothing_and_says_what_to_do(web, monkeypatch, how, digest, why):
    vars(web).update(how)
    publish(monkeypatch, web.url, digest)
    with pytest.raises(WeightsError, match=why) as caught:
        fetch_published("googlenet")
    place = published_file("googlenet")
    message = one_line(caught)
    assert PUBLISHED["googlenet"].url in message
    assert f"put that file at {place}" in message
    assert "--weights FILE" in message
    assert list(place.parent.iterdir()) == []


def test_an_unreachable_server_is_a_weights_error(web, monkeypatch):
    with http_server() as gone:
        publish(monkeypatch, gone.url)
    with pytest.raises(WeightsError, match="refused"):
        fetch_published("googlenet")


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".pt"])
def test_reads_tensors_by_name(tmp_path, suffix):
    path = tmp_path / f"weights{suffix}"
    tensors = {"a": torch.arange(3.0), "b": torch.ones(2, 2)}
    (save_file if suffix == ".safetensors" else torch.save)(tensors, path)
    found = read_weights(path)
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".pt", ".caffemodel"])
@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", b"PK\x03\x04 cut off"])
def test_broken_files_are_weights_errors(tmp_path, suffix, content):
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    with pytest.raises(WeightsError) as caught:
        read_weights(path)
    assert str(path) in one_line(caught)


def test_never_runs_what_a_file_says(tmp_path):
    class Trap:
        def __reduce__(self):
            return (weights.Path.touch, (tmp_path / "sprung",))

    path = tmp_path / "weights.pth"
    torch.save({"a": Trap()}, path)
    with pytest.raises(WeightsError, match="cannot read"):
        read_weights(path)
    path.write_bytes(pickle.dumps(Trap()))
    with pytest.raises(WeightsError, match="cannot read"):
        read_weights(path)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("content", [[torch.ones(1)], {"epoch": 3}, {"state_dict": {}}])
def test_other_things_than_a_dict_of_tensors_are_weights_errors(tmp_path, content):
    torch.save(content, tmp_path / "weights.pth")
    with pytest.raises(WeightsError, match="no dict of tensors"):
        read_weights(tmp_path / "weights.pth")


def test_a_missing_file_and_an_unknown_kind_are_weights_errors(tmp_path):
    for name in ("none.pth", "none"):
        with pytest.raises(WeightsError, match=f"no weights at .*{name}:"):
            read_weights(tmp_path / name)
    (tmp_path / "weights.onnx").touch()
    with pytest.raises(WeightsError, match=r"cannot tell what .*\.safetensors, \.pth, \.pt"):
        read_weights(tmp_path / "weights.onnx")


NETWORK = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))
SPARE = ("fc.", "aux1.")


def state(**changes) -> dict[str, torch.Tensor]:
    tensors = {name: tensor.clone() for name, tensor in NETWORK.state_dict().items()}
    return {**tensors, **{name.replace("_dot_", "."): t for name, t in changes.items()}}


def test_fit_lets_spare_parts_and_counters_go(tmp_path):
    tensors = state(fc_dot_weight=torch.ones(3), aux1_dot_bias=torch.ones(3))
    wanted = {"0.weight", "0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var"}
    assert fit(tensors, NETWORK, SPARE, tmp_path).keys() == wanted
    del tensors["1.num_batches_tracked"]
    assert fit(tensors, NETWORK, SPARE, tmp_path).keys() == wanted


def test_fit_makes_float32_of_half_precision(tmp_path):
    half = {name: tensor.half() for name, tensor in state().items()}
    found = fit(half, NETWORK, SPARE, tmp_path)
    assert all(tensor.dtype == torch.float32 for tensor in found.values())
    assert torch.equal(found["0.weight"], half["0.weight"].float())


@pytest.mark.parametrize(
    ("name", "tensor", "why"),
    [
        ("0.bias", None, "lacks 0.bias: "),
        ("2.bias", torch.ones(1), "holds 2.bias, which the network has no place for: "),
        ("0.bias", torch.ones(3), r"holds 0.bias of shape \(3,\), not \(2,\): "),
        ("1.running_var", torch.tensor([1, torch.nan]), "NaN or infinity in 1.running_var: "),
        ("0.weight", torch.full((2, 1, 1, 1), -torch.inf), "NaN or infinity in 0.weight: "),
    ],
)
def test_fit_refuses_other_networks_and_broken_numbers(tmp_path, name, tensor, why):
    tensors = state()
    if tensor is None:
        del tensors[name]
    else:
        tensors[name] = tensor
    with pytest.raises(WeightsError, match=why) as caught:
        fit(tensors, NETWORK, SPARE, tmp_path / "x.pth")
    assert str(tmp_path / "x.pth") in one_line(caught)


def test_digest_is_of_names_shapes_and_bytes():
    tensors = {"a": torch.tensor([1.0, 2.0]), "b": torch.zeros(2, 3)}
    expected = hashlib.sha256(
        b"a (2,)\n" + bytes.fromhex("0000803f 00000040") + b"b (2, 3)\n" + bytes(24)
    )
    assert digest(tensors) == expected.hexdigest()
    assert digest(dict(reversed(tensors.items()))) == expected.hexdigest()
    others = [
        {**tensors, "a": torch.tensor([1.0, 2.0000002])},
        {**tensors, "b": torch.zeros(3, 2)},
        {"a": tensors["a"], "c": tensors["b"]},
    ]
    assert len({digest(tensors), *map(digest, others)}) == 4
