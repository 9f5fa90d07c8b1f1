"""Pictures: where a map puts its light, read back from the pixels."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from attnact.train.plots import plot_attention, plot_confusion, plot_sweep, upsample
from attnact.train.sweep import Sweep, SweepRow


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
    # The blocks of the picture are the locations, in their order.
    blocks = upsample(attention, 70, 70).reshape(7, 10, 7, 10).mean((1, 3)).ravel()
    assert np.corrcoef(blocks, attention)[0, 1] > 0.9


def test_an_even_map_is_even() -> None:
    smooth = upsample(np.full(49, 1 / 49, np.float32), 40, 60)
    np.testing.assert_allclose(smooth, 1 / 49, rtol=1e-5)


def panels(path: Path, n: int) -> list[npt.NDArray[np.int64]]:
    """The pictures of the lower row, found by their black frames."""
    grey = pixels(path)
    lower = grey[grey.shape[0] // 2 :]
    dark = (lower < 40).mean(0) > 0.3  # columns of a frame's left or right side
    sides = [x for x in np.flatnonzero(dark) if not dark[x - 1]]
    assert len(sides) == 2 * n
    return [lower[:, left + 3 : right - 3] for left, right in zip(sides[::2], sides[1::2])]  # noqa: B905


def test_attention_lights_where_the_model_looked(tmp_path: Path) -> None:
    """On grey frames: the left end of the first, the right end of the second, all of the third."""
    frames = np.full((3, 70, 140, 3), 100, np.uint8)
    left = one_hot(21)
    right = one_hot(27)
    maps = np.stack([left, right, np.full(49, 1 / 49, np.float32)])
    path = tmp_path / "strip.png"
    plot_attention(path, frames, maps, ["frame 0", "frame 5", "frame 9"], "a/b.avi: run")
    first, second, third = panels(path, 3)
    edge = first.shape[1] // 7
    middle = slice(first.shape[0] // 4, first.shape[0] // 2)
    for picture, bright, dim in ((first, np.s_[:edge], np.s_[-edge:]),
                                 (second, np.s_[-edge:], np.s_[:edge])):  # fmt: skip
        light = [np.median(picture[middle, side]) for side in (bright, dim)]
        assert light[0] > 100 > light[1]
    # The scale is one for the strip: a 49th of the attention is nearly as dim as none.
    assert np.median(third[middle]) < 40


@pytest.mark.parametrize("n", [1, 8])
def test_strips_of_any_length(n: int, tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 255, (n, 48, 64, 3)).astype(np.uint8)
    maps = np.stack([one_hot(i) for i in range(n)])
    path = tmp_path / "a [x]; b.png"
    plot_attention(path, frames, maps, ["x"] * n, "an é_$title")
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


def test_sweep(tmp_path: Path) -> None:
    rows = [SweepRow(penalty, [0.5, 0.6], [3.0, 3.1], [0.5, 0.4]) for penalty in (0, 1, 10)]
    plot_sweep(tmp_path / "sweep.png", Sweep(rows, []), "mAP", "title\nof two lines")
    height, width = pixels(tmp_path / "sweep.png").shape
    assert (width, height) == (1300, 442)
