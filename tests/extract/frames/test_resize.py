"""Frames resized, against Pillow and against the formula in float64."""

from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from attnact.extract.frames.resize import (
    _weights,
    resize,
    resize_tensor,
    sample_by_products,
    sample_by_torch,
    seen_part,
)
from attnact.extract.frames.video import read_frames
from attnact.extract.networks.backbone import load_backbone

SIZES = [(97, 175), (240, 320), (720, 300), (224, 224), (1, 5)]


def pictures(height: int, width: int, count: int = 3) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (count, height, width, 3), np.uint8)


def weights(size: int, side: int) -> np.ndarray:
    """What each of `side` pixels takes of each of `size`: a triangle as wide as it is there."""
    scale = size / side
    centres = (np.arange(side)[:, None] + 0.5) * scale
    far = abs(np.arange(size) + 0.5 - centres) / max(scale, 1)
    triangle = np.maximum(1 - far, 0)
    return triangle / triangle.sum(1, keepdims=True)


def exactly(frames: np.ndarray, side: int) -> np.ndarray:
    rows, columns = (weights(size, side) for size in frames.shape[1:3])
    return np.einsum("yh,nhwc,xw->nyxc", rows, frames.astype(float), columns, optimize=True)


@pytest.mark.parametrize("size", SIZES)
def test_squash_is_antialiased_bilinear(size) -> None:
    """Within the roundings of two passes, and none of them to one side."""
    frames = pictures(*size)
    off = resize(frames, "squash") - exactly(frames, 224)
    assert np.abs(off).max() < 1.1
    assert abs(off.mean()) < 0.1


@pytest.mark.parametrize("size", SIZES)
def test_crop_is_the_centre_of_256(size) -> None:
    frames = pictures(*size)
    off = resize(frames, "crop") - exactly(frames, 256)[:, 16:240, 16:240]
    assert np.abs(off).max() < 1.1


@pytest.mark.parametrize("size", SIZES)
def test_pillow_resizes_so_too(size) -> None:
    """Which most people's features are made with; values that lie between two go either way."""
    frames = pictures(*size)
    small = [
        Image.fromarray(frame).resize((224, 224), Image.Resampling.BILINEAR) for frame in frames
    ]
    off = resize(frames, "squash").astype(int) - np.stack([np.asarray(image) for image in small])
    assert np.abs(off).max() <= 1
    assert (off != 0).mean() < 0.25
    assert abs(off.mean()) < 0.05


@settings(max_examples=60)
@given(st.integers(1, 900), st.integers(1, 900), st.sampled_from([224, 256]), st.booleans())
@example(2160, 3840, 224, False)
@example(2, 40_000, 224, True)
def test_products_make_the_same_bits(height: int, width: int, side: int, white: bool) -> None:
    """As their numbers are exact, see below, this tells of a GPU, too."""
    frames = torch.from_numpy(pictures(height, width, 1))
    if white:
        frames = torch.full_like(frames, 255)
    assert torch.equal(sample_by_products(frames, side), sample_by_torch(frames, side))


@given(st.integers(1, 4000), st.sampled_from([224, 256]))
@example(50_000, 224)
@example(50_000, 256)
def test_no_product_is_rounded(size: int, side: int) -> None:
    """Its factors have 8 bits, of which TF32 holds 11, and the sums 24, as float32."""
    halves, bits = _weights(size, side)
    assert halves.shape == (size, 2 * side)
    assert torch.equal(halves, halves.round().clamp(0, 255))
    assert 255 * int(halves.sum(0).max()) < 1 << 24
    whole = halves[:, :side] * 128 + halves[:, side:]
    np.testing.assert_allclose(whole / 2**bits, weights(size, side).T, atol=2.0**-bits)


@pytest.mark.parametrize("size", [(224, 224), (1, 5)])
@pytest.mark.parametrize("how", ["squash", "crop"])
def test_the_frames_are_copies(size, how) -> None:
    """What they were made of may be written again."""
    frames = torch.from_numpy(pictures(*size))
    made = resize_tensor(frames, how)
    kept = made.clone()
    frames.zero_()
    assert torch.equal(made, kept)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("how", ["squash", "crop"])
@pytest.mark.parametrize("precision", ["highest", "high"])
def test_a_gpu_makes_the_same_bits(how, precision) -> None:
    torch.set_float32_matmul_precision(precision)  # "high" is TF32
    try:
        for size in [*SIZES, (1080, 1920)]:
            frames = pictures(*size)
            made = resize_tensor(torch.from_numpy(frames).to("cuda"), how)
            assert made.is_cuda
            np.testing.assert_array_equal(made.cpu().numpy(), resize(frames, how))
    finally:
        torch.set_float32_matmul_precision("highest")


def test_other_roundings_would_be_other_features(shared) -> None:
    """Why it must be the same bits: this rounds once, where two passes round twice."""
    weights = shared / "weights" / "bvlc_googlenet.safetensors"
    backbone = load_backbone("bvlc_googlenet", weights)
    clip = shared / "videos" / "ut_interaction" / "0_1_4.avi"
    frames = np.stack(list(islice(read_frames(clip), 0, 80, 20)))
    ours = torch.from_numpy(resize(frames, "squash"))
    once = torch.from_numpy(exactly(frames, 224)).round().to(torch.uint8)
    assert (ours.int() - once.int()).abs().max() == 1
    a, b = backbone(ours), backbone(once)
    assert 0.01 < (a - b).norm() / a.norm() < 0.05


def test_a_frame_is_the_same_in_whatever_company() -> None:
    frames = pictures(123, 321, 16)
    alone = np.concatenate([resize(frame[None], "squash") for frame in frames])
    np.testing.assert_array_equal(resize(frames, "squash"), alone)


def test_frames_that_lie_turned() -> None:
    frames = pictures(50, 70)
    turned = np.rot90(frames, axes=(1, 2))
    np.testing.assert_array_equal(resize(turned, "squash"), resize(turned.copy(), "squash"))


def test_the_part_that_is_seen() -> None:
    """A frame of 512×1024 of which 1/16 is cut from each side."""
    frame = np.random.default_rng(0).integers(0, 256, (512, 1024, 3), np.uint8)
    assert seen_part(frame, "squash") is frame
    np.testing.assert_array_equal(seen_part(frame, "crop"), frame[32:-32, 64:-64])


@pytest.mark.parametrize("how", ["squash", "crop"])
def test_resize_keeps_colours_and_directions(how) -> None:
    plain = np.full((1, 120, 160, 3), (10, 20, 30), np.uint8)
    assert (resize(plain, how) == (10, 20, 30)).all()
    across = np.linspace(0, 255, 320, dtype=np.uint8)[None, None, :, None]
    resized = resize(np.tile(across, (1, 240, 1, 3)), how).astype(int)
    assert resized.shape == (1, 224, 224, 3)
    assert (np.diff(resized, axis=2) >= 0).all()
    assert (np.diff(resized, axis=1) == 0).all()
