import contextlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from attnact.errors import WeightsError
from attnact.extract.networks.backbone import load_backbone
from attnact.extract.networks.caffemodel import read_caffemodel

Layers = dict[str, list[np.ndarray]]

# Field numbers of caffe.proto: (NetParameter's layers, the layer's name, its blobs)
NEW, OLD = (100, 1, 7), (2, 4, 6)


def varint(number: int) -> bytes:
    low, rest = number & 0x7F, number >> 7
    return bytes([low | 0x80]) + varint(rest) if rest else bytes([low])


def integer(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def chunk(field: int, content: bytes) -> bytes:
    return varint(field << 3 | 2) + varint(len(content)) + content


def packed_blob(array: np.ndarray) -> bytes:
    shape = chunk(1, b"".join(map(varint, array.shape)))
    return chunk(7, shape) + chunk(5, array.astype("<f4").tobytes())


def unpacked_blob(array: np.ndarray) -> bytes:
    shape = b"".join(integer(1, dim) for dim in array.shape)
    numbers = (varint(5 << 3 | 5) + number.tobytes() for number in array.astype("<f4").flat)
    return b"".join(numbers) + chunk(7, shape)


def double_blob(array: np.ndarray) -> bytes:
    return chunk(7, chunk(1, b"".join(map(varint, array.shape)))) + chunk(8, array.tobytes())


def legacy_blob(array: np.ndarray) -> bytes:
    shape = (1,) * (4 - array.ndim) + array.shape
    dims = b"".join(integer(field, dim) for field, dim in enumerate(shape, start=1))
    return dims + chunk(5, array.astype("<f4").tobytes())


def caffemodel(layers: Layers, style=NEW, blob=packed_blob) -> bytes:
    field, name_field, blobs_field = style
    net = chunk(1, b"GoogleNet")
    for name, blobs in {"data": [], **layers}.items():
        content = chunk(name_field, name.encode()) + b"".join(
            chunk(blobs_field, blob(array.astype(float))) for array in blobs
        )
        # Other fields of every kind stand around those that matter: a float, a double, an integer.
        content += varint(90 << 3 | 5) + b"\0\0\x80\x3f" + varint(91 << 3 | 1) + bytes(8)
        net += chunk(field, content + integer(10, 1 << 63))
    return net


LAYERS: Layers = {
    "conv1/7x7_s2": [np.arange(24).reshape(4, 2, 3, 1) / 7, np.array([1.5, -2, 0, 1e30])],
    "inception_3a/3x3_reduce": [np.full((2, 3, 1, 1), -0.25), np.array([3.0, 4.0])],
}


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("caffe") / "net.caffemodel"


@pytest.mark.parametrize("style", [NEW, OLD])
@pytest.mark.parametrize("blob", [packed_blob, unpacked_blob, double_blob, legacy_blob])
def test_reads_every_way_to_write_it(path, style, blob):
    path.write_bytes(caffemodel(LAYERS, style, blob))
    weights = read_caffemodel(path)
    assert list(weights) == [
        "conv1/7x7_s2.weight",
        "conv1/7x7_s2.bias",
        "inception_3a/3x3_reduce.weight",
        "inception_3a/3x3_reduce.bias",
    ]
    for name, blobs in LAYERS.items():
        for role, array in zip(("weight", "bias"), blobs, strict=True):
            expected = torch.from_numpy(array.astype(np.float32))
            assert torch.equal(weights[f"{name}.{role}"], expected)


def test_reads_the_whole_network(path, shared):
    safetensors = shared / "weights" / "bvlc_googlenet.safetensors"
    layers: Layers = {}
    for name, tensor in sorted(load_file(safetensors).items(), reverse=True):  # weight, then bias
        layers.setdefault(name.rsplit(".", 1)[0], []).append(tensor.numpy())
    path.write_bytes(caffemodel(layers, OLD, legacy_blob))
    backbone = load_backbone("bvlc_googlenet", path)
    assert backbone.digest == load_backbone("bvlc_googlenet", safetensors).digest
    assert backbone.weights == "net.caffemodel"


def test_names_further_blobs_by_number(path):
    path.write_bytes(caffemodel({"bn": [np.ones(2), np.ones(2), np.ones(1)]}))
    assert list(read_caffemodel(path)) == ["bn.weight", "bn.bias", "bn.blob2"]


arrays = st.lists(st.integers(0, 4), max_size=4).map(lambda shape: np.random.rand(*shape, 1))
networks = st.dictionaries(st.text(min_size=1), st.lists(arrays, max_size=2), max_size=4)


@given(networks, st.sampled_from([NEW, OLD]), st.sampled_from([packed_blob, unpacked_blob]))
@settings(max_examples=50)
def test_reads_back_what_was_written(path, layers, style, blob):
    layers["last"] = [np.ones(1)]
    path.write_bytes(caffemodel(layers, style, blob))
    weights = read_caffemodel(path)
    written = {
        f"{name}.{role}": array
        for name, blobs in layers.items()
        for role, array in zip(("weight", "bias"), blobs, strict=False)
    }
    assert weights.keys() == written.keys()
    for name, array in written.items():
        array = array.flatten() if name.endswith(".bias") else array
        assert torch.equal(weights[name], torch.from_numpy(array).float())


@given(st.data(), st.sampled_from([NEW, OLD]))
@settings(max_examples=200)
def test_a_cut_file_is_refused_or_holds_whole_layers(path, data, style):
    content = caffemodel(LAYERS, style)
    path.write_bytes(content)
    whole = read_caffemodel(path)
    path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    with contextlib.suppress(WeightsError):
        cut = read_caffemodel(path)
        assert all(torch.equal(cut[name], whole[name]) for name in cut)


@given(st.binary(max_size=200), st.integers(0, 400))
@settings(max_examples=300)
def test_foreign_bytes_raise_nothing_but_weights_errors(path, junk, at):
    content = caffemodel(LAYERS)
    for foreign in (junk, content[:at] + junk + content[at + len(junk) :]):
        path.write_bytes(foreign)
        with contextlib.suppress(WeightsError):
            read_caffemodel(path)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "holds no weights"),
        (caffemodel({}), "holds no weights"),
        (caffemodel(LAYERS)[:-1], "field 100 is cut off"),
        (b"\x80", "a number is cut off"),
        (b"\x08" + b"\xff" * 10, "longer than 64 bits"),
        (b"<html><body>Not Found</body></html>", "no known kind"),
        (integer(100, 5), "an integer where bytes are due"),
        (chunk(100, chunk(7, integer(1, 3) + chunk(5, bytes(8)))), "2 numbers for a blob"),
        (chunk(100, chunk(7, chunk(1, b"") + chunk(5, bytes(8)))), "bytes where an integer is"),
        (chunk(100, chunk(7, chunk(5, bytes(7)))), "multiple of element size"),
    ],
)
def test_says_what_is_wrong(path, content, why):
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=why) as caught:
        read_caffemodel(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_a_weights_error(tmp_path):
    with pytest.raises(WeightsError, match="No such file"):
        read_caffemodel(tmp_path / "none.caffemodel")
