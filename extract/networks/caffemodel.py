"""Caffe's `.caffemodel` files, read without Caffe and without protobuf.

Such a file is one message `NetParameter` of src/caffe/proto/caffe.proto (BVLC/caffe) in protobuf's
wire format, of which a handful of fields matter here. A message is a run of fields; a field is a
key, which says its number and how its value is stored, and the value: an integer, or bytes that
may be a message in turn.
"""

import math
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

from attnact.errors import WeightsError

Value: TypeAlias = int | memoryview


class LayerStyle(NamedTuple):
    """The number of NetParameter's field of layers, and of two fields of such a layer."""

    layers: int
    name: int
    blobs: int


STYLES = (
    LayerStyle(layers=100, name=1, blobs=7),  # NetParameter.layer, LayerParameter
    LayerStyle(layers=2, name=4, blobs=6),  # NetParameter.layers, V1LayerParameter: before 2015
)
ROLES = ("weight", "bias")  # of the blobs of a layer, in order

# Fields of BlobProto; num, channels, height, width are its shape in files that lack `shape`.
NUM_CHANNELS_HEIGHT_WIDTH, DATA, SHAPE, DOUBLE_DATA = (1, 2, 3, 4), 5, 7, 8
DIM = 1  # of BlobShape

VARINT, EIGHT_BYTES, BYTES, FOUR_BYTES = 0, 1, 2, 5  # protobuf's wire types


def read_caffemodel(path: Path) -> dict[str, Tensor]:
    """Read the weights in a `.caffemodel`, of the new style (`layer`) or the old (`layers`).

    Returns float32 tensors by layer and role: `inception_3a/3x3_reduce.weight` in the shape that
    the file gives it, `inception_3a/3x3_reduce.bias` flat. Should a layer have more blobs than two,
    the third is its `blob2`, and so on. Raises WeightsError where the file is missing, broken, or
    something else.
    """
    try:
        net = _message(memoryview(path.read_bytes()))
        weights = _weights(net)
    except OSError as error:
        raise WeightsError(f"cannot read {path} ({error.strerror}): check the path") from error
    except (ValueError, OverflowError) as error:
        raise WeightsError(f"{path} is no whole .caffemodel ({error}): fetch it again") from error
    if not weights:
        raise WeightsError(f"{path} holds no weights: give the .caffemodel of a trained network")
    return weights


def _weights(net: dict[int, list[Value]]) -> dict[str, Tensor]:
    weights = {}
    for style in STYLES:
        for value in net.get(style.layers, []):
            layer = _message(_bytes(value))
            name = str(_bytes(layer.get(style.name, [memoryview(b"")])[-1]), "utf-8")
            for index, blob in enumerate(layer.get(style.blobs, [])):
                tensor = _tensor(_message(_bytes(blob)))
                role = ROLES[index] if index < len(ROLES) else f"blob{index}"
                # The old style gives every blob four dimensions, a bias (1, 1, 1, outputs).
                weights[f"{name}.{role}"] = tensor.flatten() if role == "bias" else tensor
    return weights


def _tensor(blob: dict[int, list[Value]]) -> Tensor:
    # A packed field holds all its numbers as one value, an unpacked one each as a value of its own.
    # Joined, they are the same bytes.
    field, kind = (DOUBLE_DATA, "<f8") if DOUBLE_DATA in blob else (DATA, "<f4")
    numbers = np.frombuffer(b"".join(map(_bytes, blob.get(field, []))), kind)
    shape = _shape(blob)
    if math.prod(shape) != len(numbers):
        raise ValueError(f"{len(numbers)} numbers for a blob of shape {shape}")
    return torch.from_numpy(numbers.astype(np.float32).reshape(shape))


def _shape(blob: dict[int, list[Value]]) -> tuple[int, ...]:
    if SHAPE not in blob:
        return tuple(_integer(blob.get(field, [0])[-1]) for field in NUM_CHANNELS_HEIGHT_WIDTH)
    shape: list[int] = []
    for dim in _message(_bytes(blob[SHAPE][-1])).get(DIM, []):
        shape += [dim] if isinstance(dim, int) else _varints(dim)
    return tuple(shape)


def _message(data: memoryview) -> dict[int, list[Value]]:
    """Take a message apart: the values of each of its fields, by number, in order."""
    fields: dict[int, list[Value]] = {}
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, wire_type = key >> 3, key & 7
        value: Value
        if wire_type == VARINT:
            value, at = _varint(data, at)
        else:
            if wire_type == BYTES:
                size, at = _varint(data, at)
            elif wire_type in (FOUR_BYTES, EIGHT_BYTES):
                size = 4 if wire_type == FOUR_BYTES else 8
            else:
                raise ValueError(f"field {number} is of no known kind")
            if at + size > len(data):
                raise ValueError(f"field {number} is cut off")
            value, at = data[at : at + size], at + size
        fields.setdefault(number, []).append(value)
    return fields


def _varints(data: memoryview) -> list[int]:
    numbers, at = [], 0
    while at < len(data):
        number, at = _varint(data, at)
        numbers.append(number)
    return numbers


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    """Read the integer at a place: seven bits a byte, low ones first; and the place after it."""
    number = 0
    for shift in range(0, 70, 7):  # 64 bits take ten bytes at most
        if at == len(data):
            raise ValueError("a number is cut off")
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
    raise ValueError("a number is longer than 64 bits")


def _bytes(value: Value) -> memoryview:
    if isinstance(value, int):
        raise ValueError("an integer where bytes are due")
    return value


def _integer(value: Value) -> int:
    if not isinstance(value, int):
        raise ValueError("bytes where an integer is due")
    return value
