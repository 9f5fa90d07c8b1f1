"""Decoding in a process of its own, so that a file which hangs or crashes a decoder costs a file.

`decode` runs in the parent, one thread a decoder process, and yields what happens to each file in
turn. The child, `decoder.py`, reads ahead by two blocks of frames, which lie in memory
that both see; whoever reads `decode` decides how far to read ahead.
"""

import signal
from collections.abc import Generator, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from subprocess import TimeoutExpired
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attnact.errors import DecoderError
from attnact.extract.frames.decoder import READY, Ended, Failed, Put, serve
from attnact.extract.frames.gpu import CPU, on_device
from attnact.extract.frames.resize import resize_tensor
from attnact.extract.frames.shared import Places
from attnact.extract.frames.video import VideoInfo
from attnact.machine.children import end_child, start_child
from attnact.vocabulary import Decoder, Resize

STARTING = 300.0  # seconds; a child imports for one, on a busy machine with a slow disk for many


# The next frames of a file, (n, 224, 224, 3) uint8 RGB, on the device they were asked for; or how
# it ended.
Event = Tensor | Ended | Failed


def decode(
    paths: Sequence[Path],
    decoder: Decoder,
    how: Resize,
    time_limit: float,
    device: torch.device = CPU,
    most: int | None = None,
) -> Generator[tuple[int, Event], None, None]:
    """What happens to each file, as (position in `paths`, event), one file after the other.

    A GPU copies the frames from where the decoder put them and resizes them itself, in this
    thread's stream. `most` is how many frames of each file are read, None for all.

    A file that gives nothing for `time_limit` seconds, or that crashes the decoder, fails like one
    that does not decode, and the next is read by a new process. One whose decoder was killed from
    outside is read once more.

    Raises:
        DecoderError: no decoder starts, or there is no memory for its frames.
    """
    work = [("decode", path, decoder, most) for path in paths]
    for position, answer in _answers(work, time_limit, device):
        if isinstance(answer, np.ndarray):
            # They are copied by now, or on a CPU as they are resized: then the decoder may put the
            # next ones there.
            answer = resize_tensor(on_device(answer, device), how)
        yield position, answer


def probe_all(paths: Sequence[Path], time_limit: float) -> Iterator[VideoInfo | Failed]:
    """The header of each file, in order, read under the same protection as `decode`.

    Raises:
        DecoderError: no decoder starts.
    """
    for _, answer in _answers([("probe", path) for path in paths], time_limit):
        yield answer


def _answers(
    work: Sequence[tuple[Any, ...]], time_limit: float, device: torch.device = CPU
) -> Iterator[tuple[int, Any]]:
    """A child's answers to each piece of work; a new child after each one that had to die.

    Frames come as an array (n, height, width, 3), as large as the file has them, which is there
    until the next answer is asked for; in pinned memory if they are for a GPU.

    Who sends SIGKILL is no file but the system, for want of memory, or a person: such a piece is
    done a second time, without the frames that came before.
    """
    done = blocks = 0  # pieces of work, and of the next one the blocks of frames that came
    again = False
    while done < len(work):
        child = _start(work[done:], device)
        known = blocks
        try:
            while done < len(work):
                answer = child.answer(time_limit)
                if child.over and child.process.returncode == -signal.SIGKILL and not again:
                    again = True
                    break
                if isinstance(answer, np.ndarray):
                    known -= 1
                    if known < 0:
                        blocks += 1
                        yield done, answer
                    continue
                yield done, answer
                done, blocks, again = done + 1, 0, False
                if child.over:  # it hung or died
                    break
        finally:
            child.end()


def _start(work: Sequence[tuple[Any, ...]], device: torch.device) -> "_Child":
    """A child that is ready for the work; if need be the second one.

    Raises:
        DecoderError: neither became ready.
    """
    with suppress(OSError):
        return _Child(work, device)
    try:
        return _Child(work, device)
    except OSError as error:
        raise DecoderError(
            f"no process that decodes can be started ({error.strerror or error}); make room in "
            "memory, or try --decoders 1, and type the same command again"
        ) from error


class _Child:
    """A process that does pieces of work, and says when it is ready for them.

    over: there are no more answers.

    Raises OSError where it does not become ready.
    """

    def __init__(self, work: Sequence[tuple[Any, ...]], device: torch.device) -> None:
        self.over = self._holds = False
        self._places = Places(gpu=device if device.type == "cuda" else None)
        files = self._places.files
        try:
            self.process, self._connection = start_child(serve, files, list(work), files=files)
        except BaseException:
            self._places.close()
            raise
        ready = False
        try:
            ready = self._connection.poll(STARTING) and self._connection.recv() == READY
        except (EOFError, OSError):  # it is about to end, with an exit code of its own
            with suppress(TimeoutExpired):
                self.process.wait(10)
        finally:
            if not ready:
                self.end()
        if not ready:
            raise ChildProcessError(f"it ends with exit code {self.process.returncode}")

    def answer(self, time_limit: float) -> Any:
        """The next one; when the child hangs or dies, a `Failed`, and it is over.

        Raises:
            DecoderError: it cannot work, which is not the file's fault.
        """
        try:
            if self._holds:
                self._holds = False
                with suppress(OSError):  # if it is dead, what it said before is still to be heard
                    self._connection.send(None)
            if not self._connection.poll(time_limit):
                self.over = True
                return Failed(f"no frame in {time_limit:g} s (the time limit)")
            answer = self._connection.recv()
        except (EOFError, OSError):
            self.over = True
            return Failed(f"the decoder crashed (exit code {self.process.wait()})")
        if isinstance(answer, Put):
            self._holds = True
            return self._places.array(answer.place, answer.shape)
        if isinstance(answer, DecoderError):
            raise answer
        return answer

    def end(self) -> None:
        """Kills it, and frees the memory of its frames."""
        end_child(self.process, self._connection)
        self._places.close()
