"""A data set, fetched and unpacked: each step once, and what is said where one fails."""

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from attnact.errors import DownloadError
from attnact.extract.datasets import DATASETS, load_dataset
from attnact.extract.datasets.download import download
from attnact.extract.datasets.hollywood2 import CLASSES
from tests.made_files import contents
from tests.servers import BODY, HOMEPAGE, Web, http_server, info


@pytest.fixture
def web() -> Iterator[Web]:
    with http_server() as web:
        yield web


def test_whole_download(web: Web, tmp_path: Path) -> None:
    calls: list[tuple[str, int, int | None]] = []
    target = tmp_path / "new" / "data"
    assert download(info(web.url), target, lambda *call: calls.append(call)) == target
    assert list(contents(target)) == [".clips.zip.unpacked", "a/1.avi", "a/2.avi", "clips.zip"]
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


def test_error_says_where_to_get_it_by_hand(web: Web, tmp_path: Path) -> None:
    web.status = 404
    with pytest.raises(DownloadError) as caught:
        download(info(web.url), tmp_path)
    assert str(caught.value) == (
        f"cannot fetch {web.url}: HTTP Error 404: Not Found; run the command again, "
        f"or fetch it by hand from {HOMEPAGE} to {tmp_path / 'clips.zip'}"
    )


def test_nothing_to_download(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="folder has nothing to download: it is your own videos"):
        download(DATASETS["folder"], tmp_path)


def test_target_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "taken").touch()
    with pytest.raises(DownloadError, match="cannot make the folder"):
        download(info("http://127.0.0.1/x"), tmp_path / "taken")


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
