"""Motion maps of videos in which it is known what moves; they are stored without loss."""

import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from attnact.cache.provenance import resize_of
from attnact.errors import VideoError
from attnact.extract.frames import motion
from attnact.extract.frames.motion import motion_maps
from attnact.extract.frames.resize import resize
from attnact.extract.frames.video import read_frames

SIDE = 224


@pytest.fixture
def write(ffmpeg, tmp_path: Path) -> Callable[[np.ndarray], Path]:
    """Writes frames (T, height, width, 3) to a file that decodes to the same."""

    def write(pixels: np.ndarray) -> Path:
        path = tmp_path / "video.mkv"
        _, height, width, _ = pixels.shape
        raw = ("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", "25")
        codec = ("-c:v", "ffv1", "-pix_fmt", "bgr0")
        ffmpeg(*raw, "-i", "-", *codec, path, stdin=pixels.astype(np.uint8).tobytes())
        return path

    return write


def texture(frames: int, side: int = SIDE) -> np.ndarray:
    """A still of noise, again and again."""
    still = np.random.default_rng(0).integers(0, 256, (1, side, side, 3), np.uint8)
    return np.repeat(still, frames, axis=0)


@pytest.mark.parametrize(("row", "column"), [(0, 0), (2, 5), (6, 6)])
def test_motion_at_one_location(write, row: int, column: int) -> None:
    """Half of a location's pixels go up by 200 levels, then down by 100: a mean of 100 and 50."""
    pixels = texture(4)
    block = np.s_[32 * row : 32 * row + 16, 32 * column : 32 * column + 32]
    for frame, level in zip(pixels, (20, 220, 120, 120), strict=True):
        frame[block] = level
    found = motion_maps(write(pixels))
    expected = np.zeros((4, 49), np.float32)
    expected[1:3, 7 * row + column] = 100, 50
    assert found.dtype == np.float32
    assert np.array_equal(found, expected)


def test_a_colour_that_changes_at_the_same_grey_moves(write) -> None:
    pixels = np.zeros((2, SIDE, SIDE, 3))
    pixels[0, ..., 0] = pixels[1, ..., 2] = 90
    assert (motion_maps(write(pixels))[1] == 60).all()


@pytest.mark.parametrize("how", ["squash", "crop"])
def test_frames_are_those_that_the_backbone_sees(make_clip, tmp_path: Path, how) -> None:
    """Against a loop over the pixels' locations, for a video that is not square."""
    path = make_clip(tmp_path / "clip.avi", frames=4)
    found = motion_maps(path, how)
    frames = resize(np.stack(list(read_frames(path))), how).astype(float)
    assert found.shape == (4, 49)
    assert not found[0].any()
    for t in range(1, 4):
        for place in range(49):
            y, x = 32 * (place // 7), 32 * (place % 7)
            cell = np.s_[y : y + 32, x : x + 32]
            difference = abs(frames[t][cell] - frames[t - 1][cell]).mean()
            assert found[t, place] == pytest.approx(difference, rel=1e-6)
    assert found[1:].min() > 1  # or nothing moved


def test_a_video_of_one_frame_has_no_motion(write) -> None:
    found = motion_maps(write(texture(1)))
    assert found.shape == (1, 49)
    assert not found.any()


def test_two_frames_are_held_at_most(write, monkeypatch: pytest.MonkeyPatch) -> None:
    frames: list[weakref.ref] = []
    held = []

    def watched(frame, how):
        small = resize(frame, how).copy()
        frames.append(weakref.ref(small))
        held.append(sum(it() is not None for it in frames))
        return small

    monkeypatch.setattr(motion, "resize", watched)
    assert len(motion_maps(write(texture(6)))) == 6
    assert max(held) == 2


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match=r"gone\.avi"):
        motion_maps(tmp_path / "gone.avi")


@pytest.mark.parametrize(
    ("said", "how"), [("squash", "squash"), ("crop", "crop"), ("unknown (released files)", "crop")]
)
def test_how_frames_were_resized(said: str, how: str) -> None:
    assert resize_of({"resize": said}) == how
