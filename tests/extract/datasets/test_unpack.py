"""Unpacking: hostile archives, broken ones, rar archives in rar archives by every tool."""

import io
import os
import sys
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from attnact.errors import DownloadError
from attnact.extract.datasets.unpack import unpack
from tests.made_files import contents, zipped


def tarred(*members: tarfile.TarInfo) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as file:
        for member in members:
            file.addfile(member, io.BytesIO(bytes(member.size)))
    return buffer.getvalue()


def unpacked(tmp_path: Path, name: str, body: bytes) -> Path:
    """Return the folder that an archive was unpacked in."""
    target = tmp_path / "target"
    target.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(body)
    unpack(tmp_path / name, target)
    return target


def refused(tmp_path: Path, name: str, body: bytes, message: str) -> None:
    """Assert that an archive is refused and leaves nothing, inside or outside."""
    with pytest.raises(DownloadError, match=message) as caught:
        unpacked(tmp_path, name, body)
    assert "\n" not in str(caught.value)
    assert list(contents(tmp_path)) == [name]


ESCAPES = ["../out.avi", "a/../../out.avi", "/out.avi", "C:/out.avi", "C:out.avi", "..\\out.avi"]


@pytest.mark.parametrize("name", ESCAPES)
def test_zip_member_that_leads_out(tmp_path: Path, name: str) -> None:
    refused(tmp_path, "clips.zip", zipped({"ok.avi": "", name: ""}), "leads out of the folder")


@pytest.mark.parametrize("name", ESCAPES)
def test_tar_member_that_leads_out(tmp_path: Path, name: str) -> None:
    body = tarred(tarfile.TarInfo("ok.avi"), tarfile.TarInfo(name))
    refused(tmp_path, "clips.tar.gz", body, "leads out of the folder")


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE]
)
def test_tar_member_that_is_no_file(tmp_path: Path, kind: bytes) -> None:
    link = tarfile.TarInfo("link")
    link.type, link.linkname = kind, "/etc"
    refused(tmp_path, "clips.tar.gz", tarred(link), "'link' is no file and no folder; look at it")


@pytest.mark.parametrize("name", ["clips.zip", "clips.tar.gz"])
def test_broken_archive(tmp_path: Path, name: str) -> None:
    body = zipped({"a/1.avi": "x" * 5000}) if name == "clips.zip" else tarred(tarfile.TarInfo("a"))
    refused(tmp_path, name, body[: len(body) // 2], f"cannot unpack .*{name}: .*; delete it if it")


def test_zip_and_tar(tmp_path: Path) -> None:
    member = tarfile.TarInfo("a/b c.avi")
    member.size, member.mode = 10, 0o7000
    unpacked(tmp_path, "clips.zip", zipped({"#1/a.avi": "x"}))
    target = unpacked(tmp_path, "clips.tar.gz", tarred(member))
    assert list(contents(target)) == ["#1/a.avi", "a/b c.avi"]
    assert (target / "a/b c.avi").read_bytes() == bytes(10)
    assert sorted(path.name for path in target.iterdir()) == ["#1", "a"]


def test_unpacking_again_replaces(tmp_path: Path) -> None:
    (tmp_path / "target/a").mkdir(parents=True)
    (tmp_path / "target/a/1.avi").write_text("old")
    (tmp_path / "target/a/3.avi").write_text("mine")
    target = unpacked(tmp_path, "clips.zip", zipped({"a/1.avi": "x" * 5000}))
    assert (target / "a/1.avi").read_text() == "x" * 5000
    assert (target / "a/3.avi").read_text() == "mine"


# Unpacking rar: the tool is a script, and its "rar" files are zip files behind a rar's first bytes

TOOL = f"""#!{sys.executable} -IS
import os, sys, zipfile
archive = next(word for word in sys.argv if word.endswith(".rar"))
folder = next(word for word in reversed(sys.argv) if word != archive).removeprefix("-o")
zipfile.ZipFile(archive).extractall(folder)
if os.path.exists(os.path.join(folder, "make a link")):
    os.symlink("/etc", os.path.join(folder, "link"))
"""


@pytest.fixture
def tools(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder on PATH."""
    if os.name == "nt":
        pytest.skip("the unpacker of these tests is a script that Windows does not run")
    folder = tmp_path_factory.mktemp("bin")
    monkeypatch.setenv("PATH", str(folder))
    return folder


def install(tools: Path, *names: str) -> None:
    for name in names:
        (tools / name).write_text(TOOL)
        (tools / name).chmod(0o755)


def rarred(members: Mapping[str, str | bytes]) -> bytes:
    return b"Rar!" + zipped(members)


@pytest.mark.parametrize("tool", ["unrar", "unar", "bsdtar", "7z", "7zz"])
def test_rar_in_rar(tools: Path, tmp_path: Path, tool: str) -> None:
    install(tools, tool)
    inner = rarred({"brush hair/#1 (a).avi": "x"})
    target = unpacked(tmp_path, "org.rar", rarred({"brush hair.rar": inner, "notes.txt": ""}))
    assert list(contents(target)) == ["brush hair/#1 (a).avi", "notes.txt"]


def test_first_tool_is_taken(tools: Path, tmp_path: Path) -> None:
    install(tools, "7z", "bsdtar", "unar")
    (tools / "7z").write_text("#!/bin/false")
    unpacked(tmp_path, "org.rar", rarred({"a.avi": ""}))


def test_no_tool(tools: Path, tmp_path: Path) -> None:
    refused(
        tmp_path, "org.rar", rarred({"a.avi": ""}), "install one of unrar, unar, bsdtar, 7z, 7z"
    )


def test_tool_that_fails(tools: Path, tmp_path: Path) -> None:
    install(tools, "unrar")
    refused(tmp_path, "org.rar", b"Rar!", r"unrar could not unpack org.rar \(.*not a zip file.*\)")


def test_broken_rar_in_rar(tools: Path, tmp_path: Path) -> None:
    install(tools, "unrar")
    body = rarred({"run.rar": "Rar!"})
    refused(tmp_path, "org.rar", body, r"unrar could not unpack run.rar")


def test_link_that_a_tool_made(tools: Path, tmp_path: Path) -> None:
    install(tools, "unrar")
    body = rarred({"make a link": ""})
    refused(tmp_path, "org.rar", body, r"org.rar: refused, its member 'link' is a link")
