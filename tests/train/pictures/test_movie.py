"""A movie's frames: what is drawn where, read back from the pixels."""

from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from attnact.train.pictures.movie import BLUE, Scene, can_write_mp4, write_gif, writing_mp4

GREY = 120
LEFT_UP = np.eye(49, dtype=np.float32)[8]  # row 1, column 1


def drawn(height: int, width: int, scores=(0.75, 0.25), title="A title") -> np.ndarray:
    frame = np.full((height, width, 3), GREY, np.uint8)
    scene = Scene(title, 0.3, ["dive", "jump"])
    return np.asarray(scene.draw(frame, LEFT_UP, scores, 1.5)).astype(int)


@pytest.mark.parametrize("size", [(240, 320), (1080, 1920), (720, 180), (33, 47), (100, 1000)])
def test_any_frame_makes_an_even_picture(size) -> None:
    height, width = drawn(*size).shape[:2]
    assert height % 2 == width % 2 == 0
    assert 480 <= width <= 2 * 432 + 3 * 8
    assert height <= 320 + 5 * 20 + 2 * 8 + 1


def test_the_frame_stands_beside_the_same_frame_lit() -> None:
    pixels = drawn(240, 320)
    row = pixels[28 + 320 // 7 * 3 // 2]  # through the second row of locations
    left, right = row[8 : 8 + 427], row[8 + 427 + 8 : 8 + 2 * 427 + 8]
    assert (left == GREY).all()
    brightest = right[:, 0].argmax()
    assert brightest * 7 // 427 == 1
    assert right[brightest, 0] > 100 > right[-1, 0] == GREY // 4


def test_bars_are_as_long_as_the_scores() -> None:
    pixels = drawn(240, 320)
    blue = (pixels == BLUE).all(-1).sum(1)
    long, short = sorted({int(length) for length in blue if length > 20}, reverse=True)[:2]
    assert long / short == pytest.approx(3, rel=0.05)
    none = (drawn(240, 320, scores=(1, 1)) == BLUE).all(-1).sum(1).max()
    assert long / none == pytest.approx(0.75, rel=0.05)


def test_a_title_that_is_too_long_is_cut_off() -> None:
    pixels = drawn(240, 320, title="long " * 100)
    assert (pixels[:20, -8:] == 255).all()


def test_letters_of_any_language_are_drawn() -> None:
    """A letter that a font lacks is a box, like the next one."""
    titles = [drawn(240, 320, title=letter)[:24] for letter in "eéüßøżжλ"]
    for i, one in enumerate(titles):
        assert all((one != other).any() for other in titles[:i])


@pytest.mark.skipif(not can_write_mp4(), reason="this PyAV has no H.264 encoder")
def test_a_movie_is_whole_or_absent(tmp_path: Path) -> None:
    path = tmp_path / "movie.mp4"
    # Enough of them that the encoder has written some before the end.
    pictures = [Image.new("RGB", (64, 48), (level, 0, 0)) for level in range(0, 250, 4)]

    def write(then: object) -> None:
        with writing_mp4(path, 29.97) as add:
            for picture in pictures:
                add(picture)
            if isinstance(then, Exception):
                raise then

    with pytest.raises(KeyError):
        write(KeyError())
    assert not list(tmp_path.iterdir())
    write(None)
    assert [file.name for file in tmp_path.iterdir()] == ["movie.mp4"]
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        rate = container.streams.video[0].average_rate
    assert float(rate) == pytest.approx(29.97, rel=1e-4)
    levels = [float(frame[..., 0].mean()) for frame in frames]
    np.testing.assert_allclose(levels, range(0, 250, 4), atol=6)


def test_a_gif_goes_round(tmp_path: Path) -> None:
    pictures = [Image.new("RGB", (64, 48), (level, 0, 0)) for level in (0, 100, 200)]
    write_gif(tmp_path / "movie.gif", pictures, 0.1)
    with Image.open(tmp_path / "movie.gif") as image:
        assert (image.n_frames, image.info["loop"], image.info["duration"]) == (3, 0, 100)
        image.seek(2)
        assert image.convert("RGB").getpixel((5, 5)) == pytest.approx((200, 0, 0), abs=8)
