"""Features as uint8: what stays as it is, and how far the rest may move."""

from itertools import islice

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from attnact.cache.compact import Cubes, to_float, to_uint8
from attnact.cache.feature_writer import ShardWriter
from attnact.extract.frames.resize import resize
from attnact.extract.frames.video import read_frames
from attnact.extract.networks.backbone import load_backbone
from attnact.train.feed.widen import Stored, widen

SHAPE = (2, 7, 7, 8)  # a channel more or less is all one
LARGEST = 65504.0  # of float16
CLIPS = ("Biking_g05_c02", "BenchPress_g01_c01", "Diving_g01_c01")


def features(dtype: type, largest: float) -> st.SearchStrategy[Cubes]:
    """Any features that are finite and not negative, with a good share of zeros."""
    width = np.dtype(dtype).itemsize * 8
    numbers = st.floats(0, largest, width=width)  # type: ignore[arg-type]
    return arrays.arrays(dtype, SHAPE, elements=st.one_of(st.just(0.0), numbers))


def hold(x: Cubes) -> None:
    stored = to_uint8(x)
    assert (stored.cubes.dtype, stored.cubes.shape) == (np.uint8, x.shape)
    back = to_float(stored)
    assert back.dtype == np.float32
    assert (back[x == 0] == 0).all()
    largest = x.max(-1).astype(np.float64)
    np.testing.assert_array_equal(back.max(-1), largest)
    np.testing.assert_array_equal(
        np.take_along_axis(back, x.argmax(-1)[..., None], -1)[..., 0], largest
    )
    off = np.abs(np.sqrt(x.astype(np.float64)) - np.sqrt(back.astype(np.float64)))
    tiny = 1e-22  # below which float32 has ever fewer digits, in roots
    assert (off <= np.sqrt(largest)[..., None] * (1 / 510 + 1e-5) + tiny).all()


@given(features(np.float16, LARGEST))
def test_any_float16_features_there_and_back(x):
    hold(x)


@given(features(np.float32, 2.0**100))
def test_any_float32_features_there_and_back(x):
    hold(x)


def test_a_frame_of_zeros():
    stored = to_uint8(np.zeros(SHAPE, np.float16))
    assert not stored.scales.any()
    assert not to_float(stored).any()


def relative_errors(x: Cubes) -> np.ndarray:
    """‖x' − x‖ / ‖x‖ of each frame, where x' is what comes back."""
    flat = x.reshape(len(x), -1).astype(np.float64)
    back = to_float(to_uint8(x)).reshape(len(x), -1).astype(np.float64)
    return np.linalg.norm(back - flat, axis=1) / np.linalg.norm(flat, axis=1)


def test_the_worst_frame_that_there_can_be():
    """A large feature beside 1023 that are all as small as it takes, in every location."""
    x = np.ones((400, 1, 1, 1024), np.float32)
    x[:, 0, 0, 1:] = np.linspace(1e-4, 0.2, 400, dtype=np.float32)[:, None]
    assert 0.005 < relative_errors(x).max() < 0.017


@pytest.fixture(scope="module")
def real(shared) -> Cubes:
    """The features of 12 frames in a row of each of three real clips."""
    weights = shared / "weights" / "bvlc_googlenet.safetensors"
    network = load_backbone("bvlc_googlenet", weights, torch.device("cpu"))
    clips = [shared / "videos" / "assorted" / f"v_{name}.avi" for name in CLIPS]
    some = [np.stack(list(islice(read_frames(clip), 20, 32))) for clip in clips]
    frames = np.concatenate([resize(frames, "squash") for frames in some])
    return network(torch.from_numpy(frames)).half().numpy()


def test_real_features_are_off_by_less_than_half_a_percent(real, shared):
    assert 0.8 < (real == 0).mean() < 0.9
    assert relative_errors(real).max() < 0.005
    with np.load(shared / "weights" / "bvlc_googlenet_reference.npz") as file:
        caffe = np.moveaxis(file["inception_5b/output"], 1, -1)
    assert relative_errors(caffe).max() < 0.005


@pytest.mark.parametrize(("dtype", "kib"), [("float16", 24), ("uint8", 14)])
def test_what_a_frame_of_real_features_takes_on_disk(real, tmp_path, dtype, kib):
    writer = ShardWriter.claim(tmp_path / "00000.h5", "zstd", dtype)
    writer.append(real)
    writer.close()
    with h5py.File(writer.path) as file:
        sizes = [file[name].id.get_storage_size() for name in file if name != "videos"]
    assert 0.4 * kib < sum(sizes) / len(real) / 1024 < kib


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("order", ["locations first", "channels first"])
def test_widen(dtype, order):
    """As `to_float` does, in the order that models take, whatever order a file has."""
    x = np.random.default_rng(0).exponential(size=(6, 7, 7, 1024)).astype(np.float32)
    stored = to_uint8(x)
    q = torch.from_numpy(stored.cubes).view(2, 3, 49, 1024)
    if order == "channels first":
        q = q.transpose(-1, -2).contiguous().transpose(-1, -2)
    wide = torch.empty(q.shape, dtype=dtype)
    widen(Stored(q, torch.from_numpy(stored.scales).view(2, 3, 49)), wide)
    expected = torch.from_numpy(to_float(stored)).view(2, 3, 49, 1024)
    rounding = torch.finfo(dtype).eps / 2
    torch.testing.assert_close(wide.float(), expected, rtol=rounding + 1e-6, atol=1e-7)


@pytest.mark.parametrize("kept", [torch.float16, torch.float32])
def test_features_that_are_floats_are_only_cast(kept):
    x = torch.rand(2, 3, 49, 8).to(kept)
    wide = torch.empty(2, 3, 49, 8)
    assert torch.equal(widen(Stored(x, None), wide), x.float())
    turned = x.transpose(-1, -2).contiguous().transpose(-1, -2)
    assert torch.equal(widen(Stored(turned, None), wide.zero_()), x.float())
