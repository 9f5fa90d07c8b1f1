"""Files appear whole or not at all."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from attnact.errors import CacheError
from attnact.machine import files
from attnact.machine.files import check_disk, full_disk_told, publish, write_new, write_text


def test_publish_gives_a_finished_file_its_name(tmp_path: Path) -> None:
    part, path = tmp_path / "a.part", tmp_path / "a"
    part.write_bytes(b"new")
    path.write_bytes(b"old")
    publish(part, path)
    assert path.read_bytes() == b"new"
    assert not part.exists()


def test_bytes_reach_the_disk_before_the_name_and_the_name_after(monkeypatch, tmp_path) -> None:
    part, path = tmp_path / "a.part", tmp_path / "a"
    part.touch()
    synced: list[tuple[int, bool]] = []

    def fsync(descriptor: int) -> None:
        synced.append((os.fstat(descriptor).st_ino, path.exists()))

    monkeypatch.setattr(files.os, "fsync", fsync)
    inode = part.stat().st_ino
    publish(part, path)
    assert synced == [(inode, False), (tmp_path.stat().st_ino, True)]


@pytest.mark.parametrize("text", ["", "λ = 10\n", "a" * 100_000])
def test_write_text(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "older and perhaps longer")
    write_text(path, text)
    assert path.read_text(encoding="utf-8") == text
    assert list(tmp_path.iterdir()) == [path]


def test_an_older_file_stays_until_the_new_one_is_whole(monkeypatch, tmp_path: Path) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "a.txt"
    write_text(path, "old")
    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_text(path, "new")
    assert path.read_text() == "old"


def test_a_killed_process_leaves_no_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    script = (
        "import os, pathlib, sys; from attnact.machine import files\n"
        "files.publish = lambda part, path: os._exit(9)\n"
        "files.write_text(pathlib.Path(sys.argv[1]), 'new')"
    )
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", script, path], cwd=root).returncode == 9
    assert not path.exists()


def test_a_full_disk_is_refused_and_the_folder_made(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(files.shutil, "disk_usage", lambda path: SimpleNamespace(free=3 << 30))
    check_disk(tmp_path / "a" / "b", 3 << 30)
    assert (tmp_path / "a" / "b").is_dir()
    with pytest.raises(CacheError, match=r"b: not enough disk, about 4\.5 GiB needed and 3\.0 GiB"):
        check_disk(tmp_path / "a" / "b", 4.5 * 2**30)


def test_what_the_system_says_is_told_in_one_line() -> None:
    full = r"^a\.h5: cannot be written \(No space left on device\)$"
    with pytest.raises(CacheError, match=full), full_disk_told(Path("a.h5")):
        raise OSError(28, "Driver write request failed\nand much more")
    with pytest.raises(CacheError, match=full), full_disk_told(Path("a.h5")):
        raise RuntimeError("Unable to flush\n, file descriptor = 4, errno = 28, error message")
    with pytest.raises(OSError, match="no errno"), full_disk_told(Path("a.h5")):
        raise OSError("no errno")


def test_a_new_file_never_takes_the_place_of_another(tmp_path: Path) -> None:
    write_new(tmp_path / "a", "first")
    with pytest.raises(FileExistsError):
        write_new(tmp_path / "a", "second")
    assert (tmp_path / "a").read_text() == "first"
    assert [file.name for file in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("there", [False, True])
def test_a_new_file_on_a_disk_without_hard_links(tmp_path: Path, monkeypatch, there: bool) -> None:
    def link(part: Path, path: Path) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(files.os, "link", link)
    if there:
        (tmp_path / "a").write_text("first")
        with pytest.raises(FileExistsError):
            write_new(tmp_path / "a", "second")
    else:
        write_new(tmp_path / "a", "first")
    assert (tmp_path / "a").read_text() == "first"
    assert [file.name for file in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("write", [write_text, write_new])
def test_what_does_not_fit_on_the_disk_leaves_nothing_and_has_a_name(
    tmp_path: Path, monkeypatch, write
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match="No space left on device") as caught:
        write(tmp_path / "a", "text")
    assert caught.value.filename == str(tmp_path / "a")
    assert list(tmp_path.iterdir()) == []
