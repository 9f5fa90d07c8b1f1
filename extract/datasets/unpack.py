"""Unpack an archive of a data set: zip and tar by Python itself, rar by a tool that is installed.

Everything is unpacked into a folder of its own first and moved in place at the end, so that nothing
that an archive holds can lie or point outside.
"""

import os
import shutil
import subprocess
import tarfile
import tempfile
import zipfile
import zlib
from pathlib import Path, PureWindowsPath

from attnact.errors import DownloadError

FAILURES = (OSError, EOFError, RuntimeError, zlib.error, zipfile.BadZipFile, tarfile.TarError)
RAR_TOOLS = ("unrar", "unar", "bsdtar", "7z", "7zz")


def unpack(archive: Path, target: Path) -> None:
    """Unpack an archive, and the rar archives in it, into target; files of the same name give way.

    Raises DownloadError for an archive that is broken, reaches outside or holds links, and for a
    rar archive where no tool is installed.
    """
    extract = {".zip": _extract_zip, ".rar": _extract_rar}.get(archive.suffix, _extract_tar)
    try:
        with tempfile.TemporaryDirectory(prefix=".unpacking-", dir=target) as folder:
            staging = Path(folder)
            extract(archive, staging)
            for inner in _files_below(staging, archive):
                if inner.suffix.lower() == ".rar":
                    _extract_rar(inner, inner.parent)
                    inner.unlink()
            for file in _files_below(staging, archive):
                place = target / file.relative_to(staging)
                place.parent.mkdir(parents=True, exist_ok=True)
                file.replace(place)
    except FAILURES as error:
        what = f"cannot unpack {archive}: {error}"
        raise DownloadError(f"{what}; delete it if it is broken, run the command again") from error


def rar_tool() -> str:
    """Return the first tool on PATH that unpacks rar; DownloadError, naming them, if none is."""
    for tool in RAR_TOOLS:
        if path := shutil.which(tool):
            return path
    raise DownloadError(
        f"no tool here unpacks .rar files; install one of {', '.join(RAR_TOOLS)} (for example "
        "'apt install unar' or 'brew install unar'), run the command again"
    )


def _extract_rar(archive: Path, folder: Path) -> None:
    tool = rar_tool()
    source, goal = str(archive), str(folder)
    arguments = {
        "unrar": ["x", "-o+", source, goal + os.sep],
        "unar": ["-force-overwrite", "-no-directory", "-output-directory", goal, source],
        "bsdtar": ["-x", "-f", source, "-C", goal],
        "7z": ["x", "-y", f"-o{goal}", source],
        "7zz": ["x", "-y", f"-o{goal}", source],
    }[Path(tool).name]
    done = subprocess.run(
        [tool, *arguments],
        stdin=subprocess.DEVNULL,  # no tool may stop to ask for a password
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    )
    if done.returncode != 0:
        said = " ".join(done.stdout.split())[-200:]
        raise DownloadError(
            f"{tool} could not unpack {archive.name} ({said}); delete the archive if it is broken, "
            f"or install another of {', '.join(RAR_TOOLS)}, and run the command again"
        )


def _extract_zip(archive: Path, folder: Path) -> None:
    with zipfile.ZipFile(archive) as opened:
        for member in opened.infolist():
            _refuse_escape(archive, member.filename)
            opened.extract(member, folder)


def _extract_tar(archive: Path, folder: Path) -> None:
    with tarfile.open(archive, "r|*") as opened:  # as a stream: a large one is read only once
        opened.extraction_filter = getattr(tarfile, "data_filter", None)  # not in early 3.10
        for member in opened:
            _refuse_escape(archive, member.name)
            if not (member.isfile() or member.isdir()):
                raise _refusal(archive, member.name, "is no file and no folder")
            opened.extract(member, folder)


def _refuse_escape(archive: Path, member: str) -> None:
    """Raise DownloadError for a member whose name leads out of the folder, on any system."""
    path = PureWindowsPath(member)  # knows both slashes, and drives
    if path.anchor or ".." in path.parts:
        raise _refusal(archive, member, "leads out of the folder")


def _files_below(folder: Path, archive: Path) -> list[Path]:
    """Return the files that an archive gave; DownloadError if there are links among them."""
    found = []
    for place, folders, names in os.walk(folder):
        for path in (Path(place, name) for name in folders + names):
            if path.is_symlink():
                raise _refusal(archive, path.name, "is a link")
        found += [Path(place, name) for name in names]
    return found


def _refusal(archive: Path, member: str, why: str) -> DownloadError:
    return DownloadError(f"{archive}: refused, its member {member!r} {why}; look at it by hand")
