"""Servers of one file: over HTTP and FTP, that cut off when told to."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import StreamRequestHandler, TCPServer, ThreadingTCPServer

from attnact.extract.datasets import DATASETS
from attnact.extract.datasets.base import Archive, DatasetInfo
from tests.made_files import zipped

HOMEPAGE = "https://example.org/data"


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
        part, self.web.cut = body[: self.web.cut], None  # first: the next request may be quick
        self.wfile.write(part)

    def log_message(self, *_: object) -> None:
        pass


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
                    part, self.web.cut = self.web.body[start:][: self.web.cut], None
                    connection.sendall(part)
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


@contextmanager
def http_server(body: bytes = BODY) -> Iterator[Web]:
    web = Web(body=body)
    handler = type("OneHandler", (Handler,), {"web": web})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        web.url = f"http://127.0.0.1:{server.server_port}/file"
        with serving(server):
            yield web


@contextmanager
def ftp_server() -> Iterator[Web]:
    web = Web(headers={"MDTM": "213 20220101000000"})
    handler = type("OneFtpHandler", (FtpHandler,), {"web": web})
    with ThreadingTCPServer(("127.0.0.1", 0), handler) as server:
        web.url = f"ftp://127.0.0.1:{server.server_address[1]}/pub/a%20file"
        with serving(server):
            yield web


@contextmanager
def serving(server: TCPServer) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield
    server.shutdown()
    thread.join()


def info(url: str, name: str = "clips.zip", checksum: str | None = None) -> DatasetInfo:
    archives = (Archive(name, url, checksum),)
    return replace(DATASETS["ucf11"], archives=archives, homepage=HOMEPAGE)
