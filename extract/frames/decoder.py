"""The process that decodes: what it is told to do, and what it answers.

It imports as little as it can, for there may be many. `decoding.py` is its parent.
"""

import resource
import signal
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from attnact.errors import DecoderError, VideoError
from attnact.extract.frames.shared import Places
from attnact.extract.frames.video import Frame, VideoInfo, decord_reads, probe, read_frames
from attnact.machine.children import end_with_parent
from attnact.vocabulary import Decoder

BLOCK = 32  # frames sent at once, ...
BLOCK_BYTES = 8 << 20  # ... but for large ones, of which there are fewer
READY = "ready"  # said by a child that has started


@dataclass(frozen=True)
class Put:
    """Frames of this shape, (n, height, width, 3), are in the place, until the parent answers."""

    place: int
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Ended:
    """The file is read as far as it was to be; all of its frames came before this."""

    info: VideoInfo
    decoder: Decoder


@dataclass(frozen=True)
class Failed:
    """The file is given up, and the frames that came of it are to be forgotten."""

    reason: str


def serve(
    connection: "Connection[Any, Any]", files: Sequence[int], work: Sequence[tuple[Any, ...]]
) -> None:
    """Does the work in order and sends the answers; the files are those of the shared places."""
    end_with_parent(signal.SIGKILL)  # or a decoder that hangs would outlive us
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))  # to which shared memory is a file
    with suppress(ConnectionError, EOFError, KeyboardInterrupt):  # the parent wants no more
        connection.send(READY)
        frames = _Outgoing(connection, Places(files))
        for piece in work:
            connection.send(_answer(frames, *piece))
        frames.wait(0)


class _Outgoing:
    """Frames on their way to the parent, a block at a time."""

    def __init__(self, connection: "Connection[Any, Any]", places: Places) -> None:
        self._connection, self._places = connection, places
        self._place = self._under_way = 0

    def send(self, path: Path, decoder: Decoder, most: int | None) -> Ended:
        """Sends the frames of one file, or so many of them."""
        info = probe(path)
        used: Decoder = "decord" if decoder == "decord" and decord_reads(path) else "pyav"
        block, filled = None, 0
        for frame in islice(read_frames(path, used, info), most):
            if block is not None and (filled == len(block) or block.shape[1:] != frame.shape):
                self._put(block[:filled])
                block = None
            if block is None:
                block, filled = self._room(frame), 0
            block[filled] = frame
            filled += 1
        if block is not None:
            self._put(block[:filled])
        return Ended(info, used)

    def wait(self, left: int) -> None:
        """Until the parent is done with all blocks but so many."""
        while self._under_way > left:
            self._connection.recv()
            self._under_way -= 1

    def _room(self, frame: Frame) -> Frame:
        self.wait(len(self._places.files) - 1)
        count = max(1, min(BLOCK, BLOCK_BYTES // frame.nbytes))
        return self._places.array(self._place, (count, *frame.shape))

    def _put(self, block: Frame) -> None:
        self._connection.send(Put(self._place, block.shape))
        self._place = (self._place + 1) % len(self._places.files)
        self._under_way += 1


def _answer(frames: _Outgoing, kind: str, path: Path, *how: Any) -> Any:
    try:
        return probe(path) if kind == "probe" else frames.send(path, *how)
    except VideoError as error:
        return Failed(str(error))
    except (ConnectionError, EOFError):
        raise
    except DecoderError as error:
        return error
    except Exception as error:
        return Failed(f"{path.name}: {type(error).__name__}: {error}")
