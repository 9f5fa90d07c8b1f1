"""Decoding in a process of its own, so that a file which hangs or crashes a decoder costs a file.

`decode` runs in the parent, one thread a decoder process, and yields what happens to each file in
turn. The child reads ahead of the network only as far as the pipe holds; whoever reads `decode`
decides how far to read ahead.
"""

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from subprocess import TimeoutExpired
from typing import Any

import numpy as np

from attnact.errors import DecoderError, VideoError
from attnact.extract.children import Child, end_child, end_with_parent, start_child
from attnact.extract.video import (
    FRAME_SIDE,
    Frame,
    VideoInfo,
    decord_reads,
    probe,
    read_frames,
    resize,
)
from attnact.vocabulary import Decoder, Resize

BLOCK = 16  # frames sent at once
READY = "ready"  # said by a child that has started
STARTING = 300.0  # seconds; a child imports for one, on a busy machine with a slow disk for many


@dataclass(frozen=True)
class Frames:
    """The next frames of a file, (n, 224, 224, 3) uint8 RGB."""

    frames: Frame


@dataclass(frozen=True)
class Ended:
    """The file is read to its end; every one of its frames came before this."""

    info: VideoInfo
    decoder: Decoder


@dataclass(frozen=True)
class Failed:
    """The file is given up, and the frames that came of it are to be forgotten."""

    reason: str


Event = Frames | Ended | Failed


def decode(
    paths: Sequence[Path], decoder: Decoder, how: Resize, time_limit: float
) -> Iterator[tuple[int, Event]]:
    """What happens to each file, as (position in `paths`, event), one file after the other.

    A file that gives nothing for `time_limit` seconds, or that crashes the decoder, fails like one
    that does not decode, and the next is read by a new process. One whose decoder was killed from
    outside is read once more.
    """
    work = [("decode", path, decoder, how) for path in paths]
    yield from _answers(work, time_limit)


def probe_all(paths: Sequence[Path], time_limit: float) -> Iterator[VideoInfo | Failed]:
    """The header of each file, in order, read under the same protection as `decode`.

    Raises:
        DecoderError: no decoder starts.
    """
    for _, answer in _answers([("probe", path) for path in paths], time_limit):
        yield answer


def _answers(work: Sequence[tuple[Any, ...]], time_limit: float) -> Iterator[tuple[int, Any]]:
    """The child's answers to each piece of work; a new child after each one that had to die.

    Who sends SIGKILL is no file but the system, for want of memory, or a person: such a piece is
    done a second time, without the frames that came before.
    """
    done = blocks = 0  # pieces of work, and of the next one the blocks of frames that came
    again = False
    while done < len(work):
        process, connection = _start(work[done:])
        known = blocks
        try:
            while done < len(work):
                answer = _receive(process, connection, time_limit)
                if connection.closed and process.returncode == -signal.SIGKILL and not again:
                    again = True
                    break
                if isinstance(answer, Frames):
                    known -= 1
                    if known < 0:
                        blocks += 1
                        yield done, answer
                    continue
                yield done, answer
                done, blocks, again = done + 1, 0, False
                if connection.closed:  # the child hung or died
                    break
        finally:
            end_child(process, connection)


def _start(work: Sequence[tuple[Any, ...]]) -> tuple[Child, Any]:
    """A child that is ready for the work, and the connection to it; if need be the second one.

    Raises:
        DecoderError: neither became ready.
    """
    with suppress(OSError):
        return _attempt(work)
    try:
        return _attempt(work)
    except OSError as error:
        raise DecoderError(
            f"no process that decodes can be started ({error.strerror or error}); make room in "
            "memory, or try --decoders 1, and type the same command again"
        ) from error


def _attempt(work: Sequence[tuple[Any, ...]]) -> tuple[Child, Any]:
    process, connection = start_child(_serve, list(work))
    ready = False
    try:
        ready = connection.poll(STARTING) and connection.recv() == READY
    except (EOFError, OSError):  # it is about to end, with an exit code of its own
        with suppress(TimeoutExpired):
            process.wait(1)
    finally:
        if not ready:
            end_child(process, connection)
    if not ready:
        raise ChildProcessError(f"it ends with exit code {process.returncode}")
    return process, connection


def _receive(process: Child, connection: Any, time_limit: float) -> Any:
    """The next answer; when the child hangs or dies, a `Failed`, and the connection is closed."""
    try:
        if not connection.poll(time_limit):
            connection.close()
            return Failed(f"no frame in {time_limit:g} s (the time limit)")
        answer = connection.recv()
        if isinstance(answer, int):  # a count of frames; their bytes follow
            return Frames(_receive_block(connection, answer))
        return answer
    except (EOFError, OSError):
        connection.close()
        return Failed(f"the decoder crashed (exit code {process.wait()})")


def _receive_block(connection: Any, count: int) -> Frame:
    # Not by `recv_bytes`, which gathers them piece by piece, and holds up the other readers.
    block = np.empty((count, FRAME_SIDE, FRAME_SIDE, 3), np.uint8)
    left = block.data.cast("B")
    while left:
        read = os.readv(connection.fileno(), [left])
        if not read:
            raise EOFError
        left = left[read:]
    return block


def _serve(connection: "Connection[Any, Any]", work: Sequence[tuple[Any, ...]]) -> None:
    """The child: does the work in order and sends the answers."""
    end_with_parent(signal.SIGKILL)  # or a decoder that hangs would outlive us
    with suppress(ConnectionError, KeyboardInterrupt):  # the parent wants no more
        connection.send(READY)
        for piece in work:
            connection.send(_answer(connection, *piece))


def _answer(connection: "Connection[Any, Any]", kind: str, path: Path, *how: Any) -> Any:
    try:
        return probe(path) if kind == "probe" else _send(connection, path, *how)
    except VideoError as error:
        return Failed(str(error))
    except ConnectionError:
        raise
    except Exception as error:
        return Failed(f"{path.name}: {type(error).__name__}: {error}")


def _send(connection: "Connection[Any, Any]", path: Path, decoder: Decoder, how: Resize) -> Ended:
    """Sends the frames of one file, resized, a block at a time."""
    used: Decoder = "decord" if decoder == "decord" and decord_reads(path) else "pyav"
    block = np.empty((BLOCK, FRAME_SIDE, FRAME_SIDE, 3), np.uint8)
    filled = 0
    for frame in read_frames(path, used):
        block[filled] = resize(frame, how)
        filled += 1
        if filled == BLOCK:
            _send_block(connection, block)
            filled = 0
    if filled:
        _send_block(connection, block[:filled])
    return Ended(probe(path), used)


def _send_block(connection: "Connection[Any, Any]", block: Frame) -> None:
    connection.send(len(block))
    left = block.data.cast("B")
    while left:
        left = left[os.write(connection.fileno(), left) :]
