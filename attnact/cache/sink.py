"""A file for HDF5 to write into, of which HDF5 never hears that it cannot be written.

Where a write fails, as on a full disk, HDF5 keeps what it could not write, tries again whenever
something of the file is let go of, and may crash the process in the end. So it writes into a
`Sink`, which keeps the first failure for us and swallows whatever comes after it. Ctrl-C would be
such a failure too, so that whoever has HDF5 write does it `undisturbed`.
"""

import io
import os
from pathlib import Path
from typing import Any


class Sink(io.RawIOBase):
    """The bytes of one file, until a write fails or nobody wants them any more."""

    def __init__(self, path: Path) -> None:
        """Begins the file anew; a link of that name goes, not what it points to."""
        super().__init__()
        path.unlink(missing_ok=True)
        self._file = io.FileIO(path, "x+")
        self._failure: Exception | None = None
        self._wanted = True

    def check(self) -> None:
        """Raises what the first write that failed raised, if one did.

        Raises ValueError after `give_up`, or half a file might be taken for a whole one.
        """
        if self._failure is not None:
            raise self._failure
        if not self._wanted:
            raise ValueError("given up before it was whole")

    def give_up(self) -> None:
        """From here on nothing is written."""
        self._wanted = False

    def close(self) -> None:
        """Closes the file; a second time does no harm."""
        super().close()
        self._file.close()

    # What HDF5 calls.

    def write(self, content: Any) -> int:
        """Writes all of the content where we are."""
        left = memoryview(content).cast("B")
        size = len(left)
        try:
            while self._wanted and len(left):
                left = left[self._file.write(left) :]
        except Exception as error:
            self._fail(error)
        return size

    def truncate(self, size: int | None = None) -> int:
        """Makes the file so long."""
        try:
            if self._wanted:
                self._file.truncate(size)
        except Exception as error:
            self._fail(error)
        return size or 0

    def readinto(self, buffer: Any) -> int:
        """Fills the buffer, beyond the end of the file with zeros."""
        left = memoryview(buffer).cast("B")
        size = len(left)
        while len(left) and (count := self._file.readinto(left)):
            left = left[count:]
        left[:] = bytes(len(left))
        return size

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Goes there."""
        return self._file.seek(offset, whence)

    def _fail(self, error: Exception) -> None:
        self._failure, self._wanted = error, False
