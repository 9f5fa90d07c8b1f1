"""Pictures: where a map puts its light, read back from the pixels."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from attnact.train.pictures.plots import (
    brightest,
    light,
    plot_attention,
    plot_confusion,
    upsample,
)


def one_hot(location: int) -> npt.NDArray[np.float32]:
    return np.eye(49, dtype=np.float32)[location]


def pixels(path: Path) -> npt.NDArray[np.int64]:
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture.convert("L")).astype(int)


@pytest.mark.parametrize("location", [0, 6, 17, 24, 42, 48])
@pytest.mark.parametrize(("height", "width"), [(70, 140), (120, 63)])
def test_a_location_is_its_row_times_7_and_column(location: int, height: int, width: int) -> None:
    smooth = upsample(one_hot(location), height, width)
    assert smooth.shape == (height, width)
    y, x = np.unravel_index(smooth.argmax(), smooth.shape)
    assert (y * 7 // height, x * 7 // width) == divmod(location, 7)


@given(st.integers(0, 2**31), st.sampled_from([0.1, 1.0, 20.0]))
def test_upsampling_stays_between_nothing_and_the_largest(seed: int, sharpness: float) -> None:
    scores = sharpness * np.random.default_rng(seed).normal(size=49)
    attention = (np.exp(scores) / np.exp(scores).sum()).astype(np.float32)
    smooth = upsample(attention, 50, 90)
    assert smooth.min() >= 0
    assert smooth.max() <= attention.max()
    # The blocks of the picture are the locations, in their order, though neighbours mix.
    blocks = upsample(attention, 70, 70).reshape(7, 10, 7, 10).mean((1, 3)).ravel()
    assert np.corrcoef(blocks, attention)[0, 1] > 0.5


def test_maps_are_expanded_as_the_released_notebook_does() -> None:
    """scikit-image 0.26's `pyramid_expand(map, upscale=32, sigma=20)` at a few pixels."""
    smooth = upsample(np.arange(49, dtype=np.float32) ** 2, 224, 224)
    expected = [16.7015, 71.8824, 383.9192, 597.8629, 1715.4863]
    places = [(0, 0), (0, 223), (100, 17), (111, 111), (223, 60)]
    assert [smooth[place] for place in places] == pytest.approx(expected, rel=1e-5)


def test_the_brightest_place_is_lit_most() -> None:
    maps = np.stack([one_hot(24), np.full(49, 1 / 49, np.float32)])
    white = brightest(maps)
    assert white == pytest.approx(upsample(maps[0], 140, 140).max(), rel=0.02)
    black = np.zeros((140, 140, 3), np.uint8)
    assert light(black, maps[0], white).max() in (62, 63)  # a quarter of white
    assert light(black, maps[1], white).max() == int(255 * 0.25 / 49 / white)


def test_an_even_map_is_even() -> None:
    smooth = upsample(np.full(49, 1 / 49, np.float32), 40, 60)
    np.testing.assert_allclose(smooth, 1 / 49, rtol=1e-5)


def inside(dark: npt.NDArray[np.bool_]) -> list[slice]:
    """The runs of True, but for three pixels of border at each end."""
    change = np.diff(np.pad(dark, 1).astype(int))
    ends = zip(np.flatnonzero(change == 1), np.flatnonzero(change == -1), strict=True)
    return [slice(start + 3, stop - 3) for start, stop in ends if stop - start > 20]


def lights(path: Path) -> list[npt.NDArray[np.float64]]:
    """The mean light of each location in each picture of the lower row, which stands on white."""
    grey = pixels(path)
    lower = grey[inside((grey < 240).mean(1) > 0.8)[-1]]
    pictures = [lower[:, columns] for columns in inside((lower < 240).mean(0) > 0.8)]
    return [
        np.array([[block.mean() for block in np.array_split(rows, 7, 1)] for rows in parts])
        for parts in (np.array_split(picture, 7) for picture in pictures)
    ]


def test_attention_lights_where_the_model_looked(tmp_path: Path) -> None:
    """On grey frames: near the upper left, at the right end, and everywhere."""
    frames = np.full((3, 70, 140, 3), 100, np.uint8)
    maps = np.stack([one_hot(8), one_hot(27), np.full(49, 1 / 49, np.float32)])
    path = tmp_path / "strip.png"
    plot_attention(path, frames, maps, ["frame 0", "frame 5", "frame 9"], "a/b.avi: run")
    first, second, even = lights(path)
    for picture, location in ((first, 8), (second, 27)):
        assert picture.argmax() == location
        assert picture.max() > 80
        assert np.median(picture) == pytest.approx(25, abs=2)  # a quarter of the frame's light
    # The scale is one for the strip: a 49th of the attention is nearly as dim as none.
    assert even.max() < 35


@pytest.mark.parametrize("n", [1, 8])
def test_strips_of_any_length(n: int, tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 255, (n, 48, 64, 3)).astype(np.uint8)
    maps = np.stack([one_hot(i) for i in range(n)])
    path = tmp_path / "a [x]; b.png"
    plot_attention(path, frames, maps, ["x"] * n, "an é_$title \U000e0001 $x_{$ 打球")
    assert pixels(path).shape[1] == pytest.approx(130 * (1.5 * n + 0.4), abs=2)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("N", [3, 51])
def test_confusion_shades_shares(N: int, tmp_path: Path) -> None:
    """All right but the first class, which is never seen; rows of other sizes are as dark."""
    matrix = np.diag(np.arange(N))
    path = tmp_path / "confusion.png"
    plot_confusion(path, matrix, [f"class {n}" for n in range(N)])
    with Image.open(path) as picture:
        colors = np.asarray(picture.convert("RGB")).reshape(-1, 3).astype(int)
    darkest = (abs(colors - [8, 48, 107]).sum(1) < 6).mean()  # of the map "Blues"
    assert darkest > 0.2 / N
