"""Fetch one file over HTTP or FTP: resumed after a cut, never spliced from two versions, checked.

While a file is on its way it is called ``<name>.part``, and ``<name>.part.json`` beside it says of
which version of the file on the server the bytes are. Only a whole and right file gets its name.
"""

import contextlib
import ftplib
import hashlib
import io
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from email.message import Message
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import unquote, urlsplit
from urllib.request import Request, urlopen

from attnact.errors import DownloadError
from attnact.extract.datasets.base import Archive

Report = Callable[[str, int, int | None], None]

CHUNK = 1 << 20
TIMEOUT = 60.0  # seconds to wait for a server that says nothing
FAILURES = (OSError, EOFError, HTTPException, ftplib.Error)
FIRST_BYTES = {".rar": b"Rar!", ".zip": b"PK", ".gz": b"\x1f\x8b", ".tgz": b"\x1f\x8b"}


@dataclass(frozen=True)
class Version:
    """A file as a server has it: its length, and its ETag or time of change; None if not told."""

    url: str
    size: int | None = None
    tag: str | None = None


@dataclass(frozen=True)
class Transfer:
    """An open connection that sends the bytes from ``start`` on of this version of a file."""

    stream: io.BufferedIOBase
    start: int
    version: Version


def fetch(archive: Archive, path: Path, report: Report) -> None:
    """Fetch an archive to path, going on from where an earlier call broke off.

    ``report`` is called with the name, the bytes that are there, and how many there will be (None
    where the server does not say). Raises DownloadError if the file cannot be had whole.
    """
    part = path.with_name(f"{path.name}.part")
    note = path.with_name(f"{path.name}.part.json")
    have, version = _unfinished(part, note, archive.url)
    connect = _connect_ftp if archive.url.startswith("ftp:") else _connect_http
    try:
        with connect(version, have) as transfer:
            have, version = transfer.start, transfer.version
            with part.open("ab" if have else "wb") as file:
                note.write_text(json.dumps(asdict(version)), encoding="utf-8")
                report(path.name, have, version.size)
                while chunk := transfer.stream.read(CHUNK):
                    have += file.write(chunk)
                    report(path.name, have, version.size)
        if version.size not in (None, have):
            raise EOFError(f"it broke off after {have} of {version.size} bytes")
        _check(archive, part)
    except FAILURES as error:
        reason = str(error.reason if type(error) is URLError else error)
        raise DownloadError(f"cannot fetch {archive.url}: {' '.join(reason.split())}") from error
    part.replace(path)
    note.unlink()


def _unfinished(part: Path, note: Path, url: str) -> tuple[int, Version]:
    """Return how many bytes an earlier call left of the file at url, and of which version."""
    try:
        version = Version(**json.loads(note.read_text(encoding="utf-8")))
        have = part.stat().st_size
    except (OSError, ValueError, TypeError):
        return 0, Version(url)
    return (have, version) if version.url == url else (0, Version(url))


def _check(archive: Archive, part: Path) -> None:
    """Remove the file and raise DownloadError if it is not the archive that it should be."""
    with part.open("rb") as file:
        first = file.read(4)
    if not first.startswith(FIRST_BYTES.get(Path(archive.name).suffix, b"")):
        part.unlink()
        raise DownloadError(f"{archive.url} sent something that is no {archive.name}")
    if archive.checksum is None:
        return
    algorithm, _, expected = archive.checksum.partition(":")
    digest = hashlib.new(algorithm, usedforsecurity=False)
    with part.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    if digest.hexdigest() != expected:
        part.unlink()
        what = f"{archive.url} sent a file whose {algorithm} is {digest.hexdigest()}"
        raise DownloadError(f"{what} and should be {expected}")


@contextlib.contextmanager
def _connect_http(version: Version, have: int) -> Iterator[Transfer]:
    """Ask for the bytes from ``have`` on if the server still has this version, else for all."""
    request = Request(version.url, headers={"User-Agent": "attnact"})
    if have:
        request.add_header("Range", f"bytes={have}-")
        if version.tag:
            request.add_header("If-Range", version.tag)
    with contextlib.ExitStack() as stack:
        try:
            response = stack.enter_context(urlopen(request, timeout=TIMEOUT))
        except HTTPError as error:
            response = stack.enter_context(error)
            if response.status != 416 or not have:
                raise
        if response.headers.get_content_type() == "text/html" and response.status != 416:
            raise URLError("a web page came in its place")
        start, now = _sent(version.url, response.status, response.headers)
        if response.status == 200 or (start == have and _same(version, now)):
            nothing_left = response.status == 416
            yield Transfer(io.BytesIO() if nothing_left else response, start, now)
        else:
            yield stack.enter_context(_connect_http(Version(version.url), 0))


def _sent(url: str, status: int, headers: Message) -> tuple[int, Version]:
    """Return at which byte an answer starts, and of which version of the file it is."""
    tag = headers.get("ETag")
    if tag is None or tag.startswith("W/"):  # a weak one does not promise the same bytes
        tag = headers.get("Last-Modified")
    if status == 200:
        length = headers.get("Content-Length")
        return 0, Version(url, int(length) if length else None, tag)
    match = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+)", headers.get("Content-Range", ""))
    if match is None:
        return 0, Version(url)
    return int(match[1] or match[2]), Version(url, int(match[2]), tag)


def _same(before: Version, now: Version) -> bool:
    """Return whether two answers are about one file: something is known, and nothing differs."""
    pairs = ((before.size, now.size), (before.tag, now.tag))
    known = [(a, b) for a, b in pairs if a is not None and b is not None]
    return bool(known) and all(a == b for a, b in known)


@contextlib.contextmanager
def _connect_ftp(version: Version, have: int) -> Iterator[Transfer]:
    """Ask for the bytes from ``have`` on if the server still has this version, else for all."""
    parts = urlsplit(version.url)
    path = unquote(parts.path)
    with contextlib.closing(ftplib.FTP(timeout=TIMEOUT)) as ftp:
        ftp.connect(parts.hostname or "", parts.port or ftplib.FTP_PORT)
        ftp.login()
        ftp.voidcmd("TYPE I")
        changed = None
        with contextlib.suppress(ftplib.error_perm):  # not every server knows MDTM
            changed = ftp.voidcmd(f"MDTM {path}")
        now = Version(version.url, ftp.size(path), changed)
        start = have if now == version else 0
        with (
            ftp.transfercmd(f"RETR {path}", rest=start or None) as connection,
            connection.makefile("rb") as stream,
        ):
            yield Transfer(stream, start, now)
