"""A video file to its frames: every one, in presentation order, once.

Files are read from the first packet to the last and never seek: decoders that seek return wrong
frames without a word. PyAV (FFmpeg's libraries) is right on every container tried and is the
faster one a core, so it is the default. decord is offered where it is right; see `decord_reads`.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from av.stream import Disposition
from av.video.reformatter import VideoReformatter

from attnact.errors import UnsupportedError, VideoError
from attnact.vocabulary import Decoder

Frame = npt.NDArray[np.uint8]  # (height, width, 3), RGB

# A file is truncated when it decodes to less than this share of the frames its header promises.
# Sound files differ by a frame or two: encoders count the delay of their B-frames.
WHOLE = 0.9

# Frames a second. A header that says less or more is wrong of almost every file, and what is made
# of it (the step from frame to frame, a movie's speed) would be absurd.
SLOWEST, FASTEST = 1, 500


@dataclass(frozen=True)
class VideoInfo:
    """What a file's header says of its video; frames are counted by decoding, never from here.

    file_bytes: the size of the file, which tells whether it is another one later.
    """

    width: int
    height: int
    frame_rate: float  # averaged over the file; 0 where the header has none that can be
    declared_frames: int  # 0 where the header has neither a count nor a duration
    file_bytes: int


def probe(path: Path) -> VideoInfo:
    """What the header of the file says, without decoding a frame.

    Raises:
        VideoError: the file has no video that can be opened.
    """
    with _opened(path) as (container, stream):
        rate = _told_rate(stream)
        if stream.duration and stream.time_base:
            seconds = float(stream.duration * stream.time_base)
        else:
            seconds = (container.duration or 0) / av.time_base
        # The duration knows of edit lists, which hide frames that the count still counts. AVI has
        # none, and FFmpeg shortens the duration of a truncated one, so there the count is asked.
        declared = stream.frames if "avi" in container.format.name else round(seconds * rate)
        known = rate if SLOWEST <= rate <= FASTEST else 0.0
        frames, size = declared or stream.frames, path.stat().st_size
        return VideoInfo(stream.width, stream.height, known, frames, size)


def read_frames(
    path: Path, decoder: Decoder = "pyav", header: VideoInfo | None = None
) -> Iterator[Frame]:
    """Every frame of the file, in presentation order, turned upright as players show it.

    header: what `probe` said, where it was asked.

    Raises:
        VideoError: nothing decodes, or less than nine tenths of what the header promises.
    """
    declared = (header or probe(path)).declared_frames
    count = 0
    for frame in _read_decord(path) if decoder == "decord" else _read_pyav(path):
        yield frame
        count += 1
    if count == 0:
        raise VideoError(f"{path.name}: no frame decodes")
    if _too_few(count, declared) and _too_few(count, due := _frames_due(path, declared)):
        raise VideoError(f"{path.name}: truncated, {count} of {due} frames decode")


def check_decoder(decoder: Decoder) -> None:
    """Raises UnsupportedError where the decoder is not installed."""
    if decoder == "decord" and find_spec("decord") is None:
        raise UnsupportedError("decord is missing; pip install decord, where there is one")


def decord_reads(path: Path) -> bool:
    """Whether decord 0.6 gives the right frames of this file when read in order.

    Seen against FFmpeg: it repeats the last frame of AVI files with B-frames, loses the first
    frames of MPEG program and transport streams, shows frames that an edit list hides, and counts
    packets that hold no frame. What is left is AVI without B-frames and MP4 without edits, each
    with one packet for every frame that the header promises.
    """
    with _opened(path) as (container, stream):
        if "avi" in container.format.name:
            if stream.codec_context.has_b_frames:
                return False
        elif "mp4" not in container.format.name:
            return False
        packets = [packet for packet in _packets(container, stream) if packet.size]
        if len(packets) != stream.frames or any(packet.is_discard for packet in packets):
            return False
    first = next(_decoded(path), None)
    return first is not None and first.rotation == 0


def _too_few(count: int, due: int) -> bool:
    return count < WHOLE * due and due - count > 2


def _frames_due(path: Path, declared: int) -> int:
    """How many frames a file should have that has far fewer than its header declares.

    Where the frame rate varies, AVI counts the pauses as well, and other headers tell how long the
    video is, not how many frames it has. So if the packets reach the end, they are the count.
    """
    with _opened(path) as (container, stream):
        rate = _told_rate(stream)
        packets = [packet for packet in _packets(container, stream) if packet.size]
        ticks = [packet.dts if packet.pts is None else packet.pts for packet in packets]
        last = max((tick for tick in ticks if tick is not None), default=0)
        seconds = float((last - (stream.start_time or 0)) * stream.time_base)
    return len(packets) if seconds * rate >= WHOLE * declared else declared


def _told_rate(stream: Any) -> float:
    """Frames a second as the header has it, 0 for none."""
    return float(stream.average_rate or stream.guessed_rate or 0)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, Any]]:
    """The container and its video stream, closed at the end; FFmpeg's errors as VideoError."""
    try:
        container = av.open(str(path), metadata_errors="replace")
    except av.InvalidDataError as error:
        raise VideoError(f"{path.name}: not a video that FFmpeg knows") from error
    except (OSError, av.FFmpegError) as error:  # an EOFError for some MP4 files that are cut off
        raise VideoError(f"{path.name}: cannot be opened ({_reason(error)})") from error
    with container:
        stream: Any = container.streams.best("video")
        if stream is None or stream.disposition & Disposition.attached_pic:
            raise VideoError(f"{path.name}: holds no video stream")
        stream.thread_type = "NONE"  # many files at once, one core each
        yield container, stream


def _decoded(path: Path) -> Iterator[av.VideoFrame]:
    """PyAV's frames. A packet that does not decode is skipped, as the ffmpeg program does."""
    with _opened(path) as (container, stream):
        for packet in _packets(container, stream):
            try:
                yield from packet.decode()
            except av.FFmpegError:
                continue


def _packets(container: Any, stream: Any) -> Iterator[Any]:
    """The packets up to the end of the file, or to where it breaks off."""
    with suppress(av.FFmpegError):
        yield from container.demux(stream)


def _read_pyav(path: Path) -> Iterator[Frame]:
    reformatter = VideoReformatter()  # kept for the whole file: a new one a frame costs two thirds
    for frame in _decoded(path):
        # One thread: FFmpeg would start one for each core, which cost more than they save.
        made = reformatter.reformat(frame, format="rgb24", threads=1)
        rgb = np.asarray(made.to_ndarray(), np.uint8)
        yield np.rot90(rgb, frame.rotation // 90) if frame.rotation else rgb


def _read_decord(path: Path) -> Iterator[Frame]:
    import torch  # noqa: F401  # before decord: in the other order its libraries clash
    from decord import DECORDError, VideoReader

    chunk = 16  # frames; contiguous batches from frame 0 never make decord seek
    try:
        reader = VideoReader(str(path), num_threads=1)
        for start in range(0, len(reader), chunk):
            yield from reader.get_batch(range(start, min(start + chunk, len(reader)))).asnumpy()
    except DECORDError as error:
        raise VideoError(f"{path.name}: decord gives up; try --decoder pyav") from error


def _reason(error: OSError | av.FFmpegError) -> str:
    return error.strerror or type(error).__name__
