"""Download a data set: fetch its archives, check them, unpack them, each only once."""

from pathlib import Path

from attnact.errors import DownloadError
from attnact.extract.datasets.base import DatasetInfo
from attnact.extract.datasets.fetch import Report, fetch
from attnact.extract.datasets.unpack import rar_tool, unpack


def download(info: DatasetInfo, target: Path, report: Report | None = None) -> Path:
    """Fetch and unpack every archive of a data set in target; return target, ready to be loaded.

    What an earlier call has done is not done again: an archive that is there (finished, or put
    there by hand) is not fetched, one that was unpacked is not unpacked, and a fetch that broke off
    goes on. ``report`` is called with what is going on, the bytes so far, and all bytes or None.
    Raises ValueError for a data set without archives, DownloadError for all that fails on the way.
    """
    if not info.archives:
        raise ValueError(f"{info.name} has nothing to download: it is {info.title}")
    report = report or (lambda what, done, total: None)
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DownloadError(f"cannot make the folder {target}: {error}") from error
    for archive in info.archives:
        path = target / archive.name
        unpacked = target / f".{archive.name}.unpacked"
        if unpacked.exists():
            continue
        if path.suffix == ".rar":
            rar_tool()  # rather now than after hours of fetching what nothing here can unpack
        if not path.exists():
            try:
                fetch(archive, path, report)
            except DownloadError as error:
                advice = (
                    f"run the command again, or fetch it by hand from {info.homepage} to {path}"
                )
                raise DownloadError(f"{error}; {advice}") from error
        report(f"unpacking {archive.name}", 0, None)
        unpack(path, target)
        unpacked.touch()
    return target
