"""Files and folders as tests lay them and look at them."""

import io
import time
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path


def lay(root: Path, paths: Iterable[str]) -> None:
    """Empty files."""
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()


def zipped(members: Mapping[str, str | bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, content in members.items():
            file.writestr(zipfile.ZipInfo(name), content)  # not stamped with the time of day
    return buffer.getvalue()


def contents(folder: Path) -> dict[str, bytes]:
    """What every file below a folder holds, by its path there."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def wait_for(happens: Callable[[], object]) -> None:
    """A minute at most."""
    end = time.monotonic() + 60
    while not happens():
        assert time.monotonic() < end
        time.sleep(0.02)
