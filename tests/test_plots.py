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
    """The pictures of the lower row, found by their sides: on white, and dark there."""
    lower = pixels(path)
    lower = lower[lower.shape[0] // 2 :]
    inside = np.pad((lower < 240).mean(0) > 0.6, 1).astype(int)
    left, right = (np.flatnonzero(np.diff(inside) == way) for way in (1, -1))
    assert len(left) == len(right) == n
    return [lower[:, x + 3 : y - 3] for x, y in zip(left, right, strict=True)]


def test_attention_lights_where_the_model_looked(tmp_path: Path) -> None:
    """On grey frames: the left end of the first, the right end of the second, all of the third."""
    frames = np.full((3, 70, 140, 3), 100, np.uint8)
    even = np.full(49, 1 / 49, np.float32)
    path = tmp_path / "strip.png"
    maps = np.stack([one_hot(21), one_hot(27), even])
    plot_attention(path, frames, maps, ["frame 0", "frame 5", "frame 9"], "a/b.avi: run")
    first, second, third = panels(path, 3)
    edge, height = first.shape[1] // 10, first.shape[0]
    for picture, lit in ((first, np.s_[:edge]), (second, np.s_[-edge:])):
        light = (picture[: height * 2 // 3, lit] < 255).sum()  # not the white below the frame
        assert light
        bright = ((picture[:, lit] > 90) & (picture[:, lit] < 240)).mean()
        other = np.s_[-edge:] if lit == np.s_[:edge] else np.s_[:edge]
        dim = ((picture[:, other] > 90) & (picture[:, other] < 240)).mean()
        assert bright > dim + 0.05
    # The scale is one for the strip: a 49th of the attention is nearly as dim as none.
    assert np.median(third[: height // 2]) < 40


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
