"""Downloading from servers that cut off, ignore ranges, change the file, or are not there."""

import contextlib
import hashlib
import io
import socket
import tarfile
import threading
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import StreamRequestHandler, ThreadingTCPServer

import pytest

from attnact.errors import DownloadError
from attnact.extract import fetch as fetch_module
from attnact.extract.datasets import DATASETS, load_dataset
from attnact.extract.datasets.base import Archive, DatasetInfo
from attnact.extract.datasets.hollywood2 import CLASSES
from attnact.extract.download import download

HOMEPAGE = "https://example.org/data"


def zipped(members: Mapping[str, str]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, text in members.items():
            file.writestr(name, text)
    return buffer.getvalue()


BODY = zipped({"a/1.avi": "x" * 5000, "a/2.avi": "y" * 3000})


@dataclass
class Web:
    """A web server's one file, how it behaves, and what it was asked."""

    url: str = ""
    body: bytes = BODY
    ranges: bool = True  # it knows Range
    conditions: bool = True  # it knows If-Range
    headers: dict[str, str] = field(default_factory=lambda: {"ETag": '"1"'})
    cut: int | None = None  # send no more than so many bytes of the next answer
    length: bool = True
    status: int = 200
    asked: list[str] = field(default_factory=list)


class Handler(BaseHTTPRequestHandler):
    web: Web

    def do_GET(self) -> None:
        web = self.web
        wanted = self.headers.get("Range", "")
        web.asked.append(wanted)
        if web.status != 200:
            self.send_error(web.status)
            return
        start = int(wanted[6:-1]) if wanted else 0
        size = len(web.body)
        condition = self.headers.get("If-Range")
        same = condition is None or condition in web.headers.values() or not web.conditions
        if not start or not web.ranges or not same:
            self.answer(200, {}, web.body)
        elif start < size:
            rest = {"Content-Range": f"bytes {start}-{size - 1}/{size}"}
            self.answer(206, rest, web.body[start:])
        else:
            self.answer(416, {"Content-Range": f"bytes */{size}"}, b"")

    def answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in {**self.web.headers, **headers}.items():
            self.send_header(name, value)
        if self.web.length:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: self.web.cut])
        self.web.cut = None

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def web() -> Iterator[Web]:
    behaviour = Web()
    handler = type("OneHandler", (Handler,), {"web": behaviour})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        behaviour.url = f"http://127.0.0.1:{server.server_port}/file"
        yield behaviour
        server.shutdown()
        thread.join()


def info(url: str, name: str = "clips.zip", checksum: str | None = None) -> DatasetInfo:
    archives = (Archive(name, url, checksum),)
    return replace(DATASETS["ucf11"], archives=archives, homepage=HOMEPAGE)


def files(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


# Fetching


def test_whole_download(web: Web, tmp_path: Path) -> None:
    calls: list[tuple[str, int, int | None]] = []
    target = tmp_path / "new" / "data"
    assert download(info(web.url), target, lambda *call: calls.append(call)) == target
    assert files(target) == [".clips.zip.unpacked", "a/1.avi", "a/2.avi", "clips.zip"]
    assert (target / "clips.zip").read_bytes() == BODY
    size = len(BODY)
    assert calls == [
        ("clips.zip", 0, size),
        ("clips.zip", size, size),
        ("unpacking clips.zip", 0, None),
    ]


def test_nothing_is_done_twice(web: Web, tmp_path: Path) -> None:
    download(info(web.url), tmp_path)
    (tmp_path / "a/1.avi").unlink()
    download(info(web.url), tmp_path)
    assert not (tmp_path / "a/1.avi").exists()
    (tmp_path / ".clips.zip.unpacked").unlink()
    download(info(web.url), tmp_path)
    assert (tmp_path / "a/1.avi").exists()
    (tmp_path / "clips.zip").unlink()
    download(info(web.url), tmp_path)
    assert len(web.asked) == 1


def test_archive_put_there_by_hand(web: Web, tmp_path: Path) -> None:
    (tmp_path / "clips.zip").write_bytes(BODY)
    download(info(web.url), tmp_path)
    assert (tmp_path / "a/1.avi").exists()
    assert web.asked == []


def cut(web: Web, target: Path, after: int = 1000) -> None:
    """Break off a download after so many bytes."""
    web.cut = after
    with pytest.raises(DownloadError, match=rf"broke off after {after} of \d+ bytes; run the comm"):
        download(info(web.url), target)
    assert (target / "clips.zip.part").stat().st_size == after
    assert not (target / "clips.zip").exists()


@pytest.mark.parametrize(
    "headers",
    [{"ETag": '"1"'}, {"Last-Modified": "Sat, 01 Jan 2022 00:00:00 GMT", "ETag": 'W/"1"'}, {}],
)
def test_resume(web: Web, tmp_path: Path, headers: dict[str, str]) -> None:
    web.headers = headers
    cut(web, tmp_path)
    calls = []
    download(info(web.url), tmp_path, lambda *call: calls.append(call))
    assert web.asked == ["", "bytes=1000-"]
    assert calls[0] == ("clips.zip", 1000, len(BODY))
    assert (tmp_path / "clips.zip").read_bytes() == BODY
    assert not list(tmp_path.glob("*.part*"))


def test_server_without_ranges_starts_anew(web: Web, tmp_path: Path) -> None:
    web.ranges = False
    cut(web, tmp_path)
    download(info(web.url), tmp_path)
    assert web.asked == ["", "bytes=1000-"]
    assert (tmp_path / "clips.zip").read_bytes() == BODY


@pytest.mark.parametrize("conditions", [True, False])
def test_changed_file_is_not_spliced(web: Web, tmp_path: Path, conditions: bool) -> None:
    cut(web, tmp_path)
    web.conditions = conditions
    web.body, web.headers = zipped({"a/1.avi": "z" * 9000}), {"ETag": '"2"'}
    download(info(web.url), tmp_path)
    assert (tmp_path / "clips.zip").read_bytes() == web.body


def test_changed_length_is_not_spliced(web: Web, tmp_path: Path) -> None:
    web.headers = {}
    cut(web, tmp_path)
    web.body = zipped({"a/1.avi": "z" * 9000})
    download(info(web.url), tmp_path)
    assert (tmp_path / "clips.zip").read_bytes() == web.body


@pytest.mark.parametrize("shorter", [zipped({"b": ""}), BODY[:1000]])
def test_shorter_file_starts_anew(web: Web, tmp_path: Path, shorter: bytes) -> None:
    web.headers = {}
    cut(web, tmp_path, after=1000)
    web.body = shorter
    with contextlib.suppress(DownloadError):  # the second one is no whole zip file
        download(info(web.url), tmp_path)
    assert web.asked == ["", "bytes=1000-", ""]
    assert (tmp_path / "clips.zip").read_bytes() == shorter


def test_cut_twice(web: Web, tmp_path: Path) -> None:
    cut(web, tmp_path)
    web.cut = 500
    with pytest.raises(DownloadError, match="broke off after 1500 of"):
        download(info(web.url), tmp_path)
    download(info(web.url), tmp_path)
    assert web.asked == ["", "bytes=1000-", "bytes=1500-"]


def test_killed_between_the_last_byte_and_the_rename(web: Web, tmp_path: Path) -> None:
    cut(web, tmp_path)
    (tmp_path / "clips.zip.part").write_bytes(BODY)
    download(info(web.url), tmp_path)
    assert web.asked == ["", f"bytes={len(BODY)}-"]
    assert (tmp_path / "a/1.avi").exists()


def test_part_of_unknown_origin_is_not_used(web: Web, tmp_path: Path) -> None:
    (tmp_path / "clips.zip.part").write_bytes(b"?" * 100)
    download(info(web.url), tmp_path)
    cut(web, tmp_path / "other")
    download(info(f"{web.url}?again"), tmp_path / "other")
    assert web.asked == ["", "", ""]


def test_length_is_not_told(web: Web, tmp_path: Path) -> None:
    web.length = False
    download(info(web.url), tmp_path)
    assert (tmp_path / "clips.zip").read_bytes() == BODY


@pytest.mark.parametrize("algorithm", ["sha256", "md5"])
def test_checksum(web: Web, tmp_path: Path, algorithm: str) -> None:
    digest = hashlib.new(algorithm, BODY).hexdigest()
    download(info(web.url, checksum=f"{algorithm}:{digest}"), tmp_path)
    wrong = info(web.url, checksum=f"{algorithm}:{digest[::-1]}")
    with pytest.raises(DownloadError, match=f"{algorithm} is {digest} and should be"):
        download(wrong, tmp_path / "other")
    assert list((tmp_path / "other").glob("clips.zip*")) == [tmp_path / "other/clips.zip.part.json"]


def test_something_else_than_the_archive(web: Web, tmp_path: Path) -> None:
    web.body = b"{}"
    with pytest.raises(
        DownloadError, match=r"sent something that is no clips\.zip; run the command"
    ):
        download(info(web.url), tmp_path)


def test_web_page_does_not_cost_what_is_there(web: Web, tmp_path: Path) -> None:
    cut(web, tmp_path)
    web.headers = {"Content-Type": "text/html; charset=utf-8"}
    with pytest.raises(DownloadError, match="a web page came in its place; run the command"):
        download(info(web.url), tmp_path)
    assert (tmp_path / "clips.zip.part").stat().st_size == 1000


def test_error_says_where_to_get_it_by_hand(web: Web, tmp_path: Path) -> None:
    web.status = 404
    with pytest.raises(DownloadError) as caught:
        download(info(web.url), tmp_path)
    assert str(caught.value) == (
        f"cannot fetch {web.url}: HTTP Error 404: Not Found; run the command again, "
        f"or fetch it by hand from {HOMEPAGE} to {tmp_path / 'clips.zip'}"
    )


@pytest.mark.parametrize("scheme", ["http", "ftp"])
def test_nobody_answers(tmp_path: Path, scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    with pytest.raises(
        DownloadError, match=rf"cannot fetch {scheme}://127.0.0.1:{port}/x: .*refused"
    ):
        download(info(f"{scheme}://127.0.0.1:{port}/x"), tmp_path)


def test_silent_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch_module, "TIMEOUT", 0.05)
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        pytest.raises(DownloadError, match="timed out"),
    ):
        download(info(f"http://127.0.0.1:{silent.getsockname()[1]}/x"), tmp_path)


def test_nothing_to_download(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="folder has nothing to download: it is your own videos"):
        download(DATASETS["folder"], tmp_path)


def test_target_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "taken").touch()
    with pytest.raises(DownloadError, match="cannot make the folder"):
        download(info("http://127.0.0.1/x"), tmp_path / "taken")


# Fetching over FTP


class FtpHandler(StreamRequestHandler):
    """As much of an FTP server as fetching one file takes."""

    web: Web

    def handle(self) -> None:
        self.say("220 ready")
        start = 0
        listener = socket.create_server(("127.0.0.1", 0))
        for line in self.rfile:
            word, _, argument = line.decode().strip().partition(" ")
            if word == "PASV":
                high, low = divmod(listener.getsockname()[1], 256)
                self.say(f"227 passive (127,0,0,1,{high},{low})")
            elif word == "REST":
                start = int(argument)
                self.say("350 from there")
            elif word == "RETR":
                self.web.asked.append(f"{argument} {start}")
                self.say("150 coming")
                with listener, listener.accept()[0] as connection:
                    connection.sendall(self.web.body[start:][: self.web.cut])
                self.web.cut = None
                self.say("226 done")
            else:
                answers = {
                    "USER": "331 who",
                    "PASS": "230 in",
                    "TYPE": "200 binary",
                    "SIZE": f"213 {len(self.web.body)}",
                    "MDTM": self.web.headers.get("MDTM", "502 unknown"),
                }
                self.say(answers[word])
        listener.close()

    def say(self, line: str) -> None:
        self.wfile.write(f"{line}\r\n".encode())


@pytest.fixture
def ftp() -> Iterator[Web]:
    behaviour = Web(headers={"MDTM": "213 20220101000000"})
    handler = type("OneFtpHandler", (FtpHandler,), {"web": behaviour})
    with ThreadingTCPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        behaviour.url = f"ftp://127.0.0.1:{server.server_address[1]}/pub/a%20file"
        yield behaviour
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("headers", [{"MDTM": "213 20220101000000"}, {}])
def test_ftp_resume(ftp: Web, tmp_path: Path, headers: dict[str, str]) -> None:
    ftp.headers = headers
    cut(ftp, tmp_path)
    download(info(ftp.url), tmp_path)
    assert ftp.asked == ["/pub/a file 0", "/pub/a file 1000"]
    assert (tmp_path / "clips.zip").read_bytes() == BODY


def test_ftp_changed_file_is_not_spliced(ftp: Web, tmp_path: Path) -> None:
    cut(ftp, tmp_path)
    ftp.headers = {"MDTM": "213 20230101000000"}
    download(info(ftp.url), tmp_path)
    assert ftp.asked == ["/pub/a file 0", "/pub/a file 0"]


# What comes out


def test_no_tool_for_rar_is_said_before_anything_is_fetched(
    web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DownloadError, match=r"no tool here unpacks .rar files"):
        download(info(web.url, "org.rar"), tmp_path)
    assert web.asked == []


def test_broken_archive_is_unpacked_again(web: Web, tmp_path: Path) -> None:
    (tmp_path / "clips.zip").write_bytes(BODY[:-100])
    with pytest.raises(DownloadError, match=r"cannot unpack .*clips\.zip"):
        download(info(web.url), tmp_path)
    (tmp_path / "clips.zip").unlink()
    download(info(web.url), tmp_path)
    assert (tmp_path / "a/1.avi").exists()


def test_downloaded_data_set_loads(web: Web, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as file:
        for side in ("train", "test"):
            file.addfile(tarfile.TarInfo(f"Hollywood2/AVIClips/actionclip{side}00001.avi"))
            for action in CLASSES:
                line = f"actionclip{side}00001  1\n".encode()
                member = tarfile.TarInfo(f"Hollywood2/ClipSets/{action}_{side}.txt")
                member.size = len(line)
                file.addfile(member, io.BytesIO(line))
    web.body = buffer.getvalue()
    root = download(info(web.url, "Hollywood2-actions.tar.gz"), tmp_path)
    assert len(load_dataset("hollywood2", root).videos) == 2
