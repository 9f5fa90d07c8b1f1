"""Fetching from servers that cut off, ignore ranges, change the file, or are not there."""

import contextlib
import hashlib
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from attnact.errors import DownloadError
from attnact.extract.datasets import fetch as fetch_module
from attnact.extract.datasets.download import download
from tests.made_files import zipped
from tests.servers import BODY, Web, ftp_server, http_server, info


@pytest.fixture
def web() -> Iterator[Web]:
    with http_server() as web:
        yield web


@pytest.fixture
def ftp() -> Iterator[Web]:
    with ftp_server() as web:
        yield web


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


@pytest.mark.parametrize(
    "shorter", [zipped({"b": ""}), BODY[:1000]], ids=["a whole file", "a cut one"]
)
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
