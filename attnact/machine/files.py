"""Files that are whole or absent, whatever happens to the process that writes them."""

import errno
import fcntl
import os
import re
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from attnact.errors import CacheError


def publish(part: Path, path: Path) -> None:
    """Gives a finished file its name, once its bytes are on the disk."""
    _sync(part)
    part.replace(path)
    _sync(path.parent)


def part_beside(path: Path) -> Path:
    """A name for what shall become the file: of this process alone, on whichever machine it runs.

    A process that was taken for dead may go on writing; not into what another one publishes.
    """
    return path.with_name(f"{path.name}.{socket.gethostname()}.{os.getpid()}.part")


def write_text(path: Path, text: str) -> None:
    """Writes a text file, whole, in the place of an older one if there is one."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file, whole, in the place of an older one if there is one."""
    with _part(path, content) as part:
        publish(part, path)


def write_new(path: Path, text: str) -> None:
    """Writes a text file, whole, where there is none.

    Raises:
        FileExistsError: there is one, perhaps by another process since a moment.
    """
    with _part(path, text.encode()) as part:
        _sync(part)
        try:
            os.link(part, path)  # unlike a rename, never replaces
        except FileExistsError:
            raise
        except OSError:  # a disk without hard links; here the last of several at once would win
            if path.exists():
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path) from None
            part.replace(path)
        _sync(path.parent)


@contextmanager
def _part(path: Path, content: bytes) -> Iterator[Path]:
    """The content under a temporary name, of which nothing is left; not even on a full disk."""
    part = part_beside(path)
    try:
        part.unlink(missing_ok=True)  # a link would be written through
        part.write_bytes(content)
        yield part
    except OSError as error:
        error.filename = str(path)  # a full disk does not say which
        raise
    finally:
        part.unlink(missing_ok=True)


def file_size(path: Path) -> int | None:
    """The bytes of a file; None where there is none."""
    return path.stat().st_size if path.is_file() else None


def check_disk(folder: Path, needed: float) -> None:
    """Makes the folder, and makes sure that its disk has room for `needed` bytes.

    Raises:
        CacheError: it has not.
    """
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise CacheError(
            f"{folder}: not enough disk, about {needed / 2**30:.1f} GiB needed and "
            f"{free / 2**30:.1f} GiB free; make room or choose another place"
        )


@contextmanager
def full_disk_told(path: Path) -> Iterator[None]:
    """Turns what the system says where a file cannot be written, many lines of it from HDF5.

    Raises:
        CacheError: in one line.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        said = re.search(r"errno = (\d+)", str(error))  # how HDF5 passes it on
        number = getattr(error, "errno", None) or (int(said[1]) if said else 0)
        if not number:
            raise
        raise CacheError(f"{path}: cannot be written ({os.strerror(number)})") from error


def lock_beside(path: Path) -> int | None:
    """A lock on a file to be written, which the kernel drops when this process dies.

    None if another process has it. It lies beside the file under a name that ends in `.lock`.
    """
    lock = os.open(_lock_path(path), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Its last owner may have removed the file since it was opened here; then a third process
        # could lock a new file of that name, and both would write.
        if os.path.samestat(os.fstat(lock), os.stat(_lock_path(path))):
            return lock
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(lock)
    return None


def unlock(path: Path, lock: int) -> None:
    """Gives a lock back and removes what lies beside the file."""
    _lock_path(path).unlink(missing_ok=True)
    os.close(lock)


def _lock_path(path: Path) -> Path:
    return path.with_suffix(".lock")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
