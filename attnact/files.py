"""Files that are whole or absent, whatever happens to the process that writes them."""

import os
from pathlib import Path


def publish(part: Path, path: Path) -> None:
    """Gives a finished file its name, once its bytes are on the disk."""
    _sync(part)
    part.replace(path)
    _sync(path.parent)


def write_text(path: Path, text: str) -> None:
    """Writes a text file, whole, in the place of an older one if there is one."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_text(text, encoding="utf-8")
    publish(part, path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
