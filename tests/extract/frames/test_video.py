"""Every frame, in order, once: held against what the ffmpeg program decodes of the same file.

No frame may be wrong, in any container that the data sets have or that people bring.
"""

import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from attnact.errors import VideoError
from attnact.extract.frames.video import VideoInfo, decord_reads, probe, read_frames

H264 = ("-c:v", "libx264", "-bf", "3", "-g", "12", "-pix_fmt", "yuv420p")
MPEG1 = ("-c:v", "mpeg1video", "-q:v", "3", "-bf", "2", "-g", "12")
MPEG4 = ("-c:v", "mpeg4", "-vtag", "XVID", "-q:v", "3")
# Twenty frames at 25 a second, then the rest at 2.5 a second.
VARIABLE = ("-vf", "setpts='if(lt(N,20),N,20+(N-20)*10)/25/TB'", "-fps_mode", "vfr")

CLIPS = {
    "ucf11.mpg": MPEG1,
    "mpeg2.mpg": ("-c:v", "mpeg2video", "-q:v", "3", "-bf", "2", "-g", "12"),
    "hmdb51.avi": ("-c:v", "libxvid", "-q:v", "3", "-bf", "2"),
    "hollywood2.avi": (*MPEG4, "-bf", "2"),
    "no_b_frames.avi": MPEG4,
    "msmpeg4.avi": ("-c:v", "msmpeg4", "-q:v", "3"),
    "mjpeg.avi": ("-c:v", "mjpeg", "-q:v", "3"),
    "h264.avi": H264,
    "h264.mp4": H264,
    "h264.mkv": H264,
    "h264.ts": H264,
    "variable.mp4": (*VARIABLE, *H264),
    "variable.mkv": (*VARIABLE, *H264),
    "variable.avi": (*VARIABLE, *MPEG4, "-bf", "2"),
}
ODD = {
    "odd.mpg": MPEG1,
    "odd.avi": (*MPEG4, "-bf", "2"),
    "odd.mp4": (*H264[:-1], "yuv444p"),
}
REMUXED = {  # of h264.mp4, without encoding it again
    "edit_list.mp4": ("-ss", "0.6"),  # starts in mid-group: the edit list hides what precedes
    "turned_90.mp4": ("-display_rotation", "90"),
    "turned_180.mp4": ("-display_rotation", "180"),
    "turned_270.mp4": ("-display_rotation", "270"),
}
ONE_FRAME = ("ucf11.mpg", "hmdb51.avi", "no_b_frames.avi", "mjpeg.avi", "h264.mp4", "h264.mkv")
NAMES = [*CLIPS, *ODD, *REMUXED, *(f"one_{name}" for name in ONE_FRAME)]

DECORD_IS_WRONG = {
    *("ucf11.mpg", "mpeg2.mpg", "odd.mpg", "one_ucf11.mpg", "h264.ts"),
    *("hmdb51.avi", "hollywood2.avi", "odd.avi", "h264.avi", "one_hmdb51.avi", "variable.avi"),
    *REMUXED,
}
DECORD_IS_RIGHT = {"no_b_frames.avi", "msmpeg4.avi", "mjpeg.avi", "h264.mp4", "odd.mp4"}


@pytest.fixture(scope="module")
def clips(make_clip, ffmpeg, tmp_path_factory) -> Path:
    """A folder with a file for each of NAMES."""
    folder = tmp_path_factory.mktemp("clips")
    for name, codec in CLIPS.items():
        make_clip(folder / name, *codec, frames=40)
    for name, codec in ODD.items():
        make_clip(folder / name, *codec, size=(175, 97))
    for name in ONE_FRAME:
        make_clip(folder / f"one_{name}", *CLIPS[name], frames=1)
    for name, options in REMUXED.items():
        ffmpeg(*options, "-i", folder / "h264.mp4", "-c", "copy", folder / name)
    return folder


def ffmpeg_frames(ffmpeg, path: Path, shape: tuple[int, int]) -> np.ndarray:
    """What the program decodes, each frame once; `shape` is that of an upright frame."""
    raw = ("-an", "-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", "rgb24", "-")
    return np.frombuffer(ffmpeg("-i", path, *raw), np.uint8).reshape(-1, *shape, 3)


def hold(frames: list[np.ndarray], expected: np.ndarray, step: int) -> None:
    """As many frames, and each is nearest to the one in its own place, seen at every step-th pixel.

    A picture that stands still is as near to its neighbours; but never further than from them.
    """
    assert len(frames) == len(expected) > 0
    assert frames[0].shape == expected[0].shape
    small = expected[:, ::step, ::step].astype(np.int16)
    for i, frame in enumerate(frames):
        distances = np.abs(small - frame[::step, ::step]).mean((1, 2, 3))
        assert distances[i] == distances.min()
        assert distances[i] < 5  # of odd sizes, FFmpeg smoothes the chroma in more ways than one


@pytest.mark.parametrize("name", NAMES)
def test_frames_are_those_of_ffmpeg(clips, ffmpeg, name):
    frames = list(read_frames(clips / name))
    hold(frames, ffmpeg_frames(ffmpeg, clips / name, frames[0].shape[:2]), step=2)


def test_frames_are_those_that_were_encoded(make_clip, tmp_path):
    frames = list(read_frames(make_clip(tmp_path / "a.avi", "-c:v", "mjpeg", "-q:v", "2")))
    first = frames[0].astype(int)
    assert len(frames) == 20
    for i, frame in enumerate(frames):  # the clip moves by 7 pixels a frame
        assert np.abs(np.roll(first, 7 * i, axis=1) - frame).mean() < 3


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="nothing here lists threads")
@pytest.mark.parametrize("name", ["hmdb51.avi", "odd.mp4"])
def test_decoders_start_no_threads(clips, name):
    before = set(os.listdir("/proc/self/task"))
    frames = read_frames(clips / name)
    for _ in range(10):
        next(frames)
        assert set(os.listdir("/proc/self/task")) <= before


@pytest.mark.parametrize("name", sorted(set(NAMES) - DECORD_IS_WRONG))
def test_decord_is_right_wherever_it_is_used(clips, ffmpeg, name):
    used = decord_reads(clips / name)
    assert used or name not in DECORD_IS_RIGHT
    if used:
        pytest.importorskip("decord")
        frames = list(read_frames(clips / name, "decord"))
        hold(frames, ffmpeg_frames(ffmpeg, clips / name, frames[0].shape[:2]), step=2)


@pytest.mark.parametrize("name", sorted(DECORD_IS_WRONG))
def test_decord_is_not_used_where_it_is_wrong(clips, name):
    assert not decord_reads(clips / name)


@pytest.mark.parametrize("folder", ["ut_interaction", "assorted"])
def test_real_clips(shared, ffmpeg, folder):
    paths = sorted((shared / "videos" / folder).iterdir())
    assert paths
    for path in paths[:: 4 if folder == "ut_interaction" else 1]:
        if path.stat().st_size > 800_000:
            continue  # minutes of large frames
        frames = list(read_frames(path))
        hold(frames, ffmpeg_frames(ffmpeg, path, frames[0].shape[:2]), step=16)
        assert probe(path).declared_frames == pytest.approx(len(frames), abs=2)


@pytest.mark.parametrize(
    ("name", "info"),
    [
        ("no_b_frames.avi", (176, 144, 25.0, 40)),
        ("h264.mp4", (176, 144, 25.0, 40)),
        ("odd.avi", (175, 97, 25.0, 20)),
        ("edit_list.mp4", (176, 144, 25.0, 25)),
    ],
)
def test_probe(clips, name, info):
    size = (clips / name).stat().st_size
    assert probe(clips / name) == VideoInfo(*info, size)


@pytest.mark.parametrize("suffix", ["avi", "mp4"])
@pytest.mark.parametrize("rate", ["0.001", "1", "500", "1000"])
def test_a_frame_rate_that_cannot_be_is_none(ffmpeg, tmp_path, suffix, rate):
    """The frames are all there, whatever the header says of their speed."""
    path = tmp_path / f"a.{suffix}"
    source = ("-f", "lavfi", "-i", f"testsrc=size=64x64:rate={rate}")
    ffmpeg(*source, "-frames:v", "40", "-c:v", "mpeg4", path)
    assert probe(path).frame_rate == (float(rate) if 1 <= float(rate) <= 500 else 0)
    assert len(list(read_frames(path))) == 40


def test_a_header_of_absurd_speed_is_no_truncated_file(ffmpeg, clips, tmp_path):
    """Of this one AVI then counts forty pauses for each frame."""
    path = tmp_path / "a.avi"
    ffmpeg("-r", "1000", "-i", clips / "no_b_frames.avi", "-c", "copy", path)
    assert probe(path).declared_frames > 1000
    assert probe(path).frame_rate == 0
    assert len(list(read_frames(path))) == 40


def test_promised_frames_of_mpeg_are_near(clips):
    # A program stream has no header that counts: FFmpeg guesses from the time stamps.
    assert probe(clips / "ucf11.mpg").declared_frames == pytest.approx(40, abs=3)


def test_hard_file_names(make_clip, tmp_path):
    path = make_clip(tmp_path / "#1 100%d [b]: 'é'?;)~+&.avi", frames=3)
    assert len(list(read_frames(path))) == 3


def cut(path: Path, share: float) -> bytes:
    content = path.read_bytes()
    return content[: int(len(content) * share)]


def refuse(path: Path, content: bytes, why: str) -> None:
    path.write_bytes(content)
    with pytest.raises(VideoError, match=why) as caught:
        list(read_frames(path))
    assert path.name in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["hmdb51.avi", "mjpeg.avi", "h264.avi", "h264.mkv", "variable.mkv"]
)
@pytest.mark.parametrize("share", [0.5, 0.8])
def test_truncated_files(clips, tmp_path, name, share):
    refuse(tmp_path / name, cut(clips / name, share), r"truncated, \d+ of \d+ frames decode")


# The table of frames is at the end. A few bytes in, FFmpeg calls the rest of it an end of file.
@pytest.mark.parametrize("share", [0.5, 0.8, 0.92, 0.97, 0.985])
def test_truncated_mp4(clips, tmp_path, share):
    refuse(tmp_path / "a.mp4", cut(clips / "h264.mp4", share), "FFmpeg|no video|cannot be opened")


def test_truncated_mp4_with_its_table_in_front(make_clip, tmp_path):
    path = make_clip(tmp_path / "a.mp4", *H264, "-movflags", "+faststart", frames=40)
    refuse(path, cut(path, 0.8), r"truncated, \d+ of 40 frames decode")


def test_a_damaged_middle_is_no_varying_frame_rate(clips, tmp_path):
    content = bytearray((clips / "no_b_frames.avi").read_bytes())
    content[len(content) // 4 : len(content) // 2] = bytes(len(content) // 2 - len(content) // 4)
    refuse(tmp_path / "a.avi", bytes(content), r"truncated, \d+ of 40 frames decode")


def test_no_frame_decodes(clips, tmp_path):
    head, chunk, rest = (clips / "one_no_b_frames.avi").read_bytes().partition(b"movi00dc")
    empty = rest[:4] + bytes(int.from_bytes(rest[:4], "little"))
    refuse(tmp_path / "a.avi", head + chunk + empty + rest[len(empty) :], "no frame decodes")


@pytest.mark.parametrize("name", ["a.avi", "a.mpg", "a.mp4"])
@pytest.mark.parametrize("content", [b"", b"Not a video, but a page of text.\n" * 50])
def test_files_that_are_no_videos(tmp_path, name, content):
    refuse(tmp_path / name, content, "not a video|cannot be opened|no video|no frame")


def test_sound_alone(ffmpeg, tmp_path):
    path = tmp_path / "a.mp4"
    ffmpeg("-f", "lavfi", "-i", "sine=duration=1", path)
    refuse(path, path.read_bytes(), "holds no video stream")


def test_a_cover_picture_is_no_video(ffmpeg, tmp_path):
    cover = io.BytesIO()
    Image.new("RGB", (32, 32)).save(cover, "jpeg")
    (tmp_path / "cover.jpg").write_bytes(cover.getvalue())
    sound = ("-f", "lavfi", "-i", "sine=duration=1", "-i", tmp_path / "cover.jpg")
    options = ("-map", "0", "-map", "1", "-c:v", "copy", "-disposition:v:0", "attached_pic")
    path = tmp_path / "song.mp4"
    ffmpeg(*sound, *options, path)
    refuse(path, path.read_bytes(), "holds no video stream")


def test_missing_file(tmp_path):
    with pytest.raises(VideoError, match=r"none\.avi: cannot be opened \(No such file"):
        probe(tmp_path / "none.avi")
