"""What HDF5 writes into: it never hears of a failure."""

from pathlib import Path

import pytest

from attnact.cache.sink import Sink


@pytest.fixture
def sink(tmp_path: Path) -> Sink:
    return Sink(tmp_path / "x")


def test_what_is_written_is_there(sink: Sink, tmp_path: Path) -> None:
    assert sink.write(b"abcdef") == 6
    sink.seek(2)
    sink.write(memoryview(b"XY"))
    sink.truncate(5)
    sink.seek(0)
    found = bytearray(b"??????")
    assert sink.readinto(found) == 6
    assert bytes(found) == b"abXYe\0"
    sink.check()
    sink.close()
    sink.close()
    assert (tmp_path / "x").read_bytes() == b"abXYe"


def test_the_first_failure_is_kept_and_the_rest_swallowed(sink: Sink, tmp_path: Path) -> None:
    sink.write(b"abc")
    fail = pytest.MonkeyPatch()

    class Full:
        def write(self, content: bytes) -> int:
            raise OSError(28, "No space left on device")

    fail.setattr(sink, "_file", Full())
    assert sink.write(b"def") == 3
    fail.undo()
    assert sink.write(b"ghi") == 3
    sink.truncate(0)
    for _ in range(2):
        with pytest.raises(OSError, match="No space left"):
            sink.check()
    sink.close()
    assert (tmp_path / "x").read_bytes() == b"abc"


def test_what_is_given_up_is_not_written(sink: Sink, tmp_path: Path) -> None:
    sink.give_up()
    assert sink.write(b"abc") == 3
    with pytest.raises(ValueError, match="given up"):
        sink.check()
    sink.close()
    assert (tmp_path / "x").read_bytes() == b""
