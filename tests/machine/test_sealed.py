"""JSON that knows whether it is as it was written."""

import json
from pathlib import Path

import pytest

from attnact.machine.sealed import MARK, check_seal, is_broken, parse, seal, with_digest

CONTENT = {"a": 1, "b": [0.1, "λ"], "place": "/here"}


def test_what_was_sealed_is_whole_after_a_round_trip() -> None:
    sealed = parse(json.dumps(seal(CONTENT), indent=1))
    check_seal(sealed)
    assert sealed.items() >= CONTENT.items()


@pytest.mark.parametrize("change", [{"a": 2}, {"b": [0.1]}, {"c": 0}, {"digest": "0"}])
def test_what_changed_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="its digest is that of other content"):
        check_seal({**seal(CONTENT), **change})


def test_one_value_may_be_left_free() -> None:
    check_seal({**seal(CONTENT, free="place"), "place": "/there"}, free="place")
    with pytest.raises(ValueError, match="digest"):
        check_seal({**seal(CONTENT, free="place"), "a": 2}, free="place")


def test_content_from_before_there_were_digests() -> None:
    check_seal(CONTENT)


@pytest.mark.parametrize("text", ["", "[]", "3", "{", '{"a": ' + "[" * 100_000])
def test_what_is_no_object_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse(text)


@pytest.mark.parametrize("content", [b"", b"abc", MARK, b"x" * 5000])
def test_a_sealed_file_knows_every_byte(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a"
    sealed = with_digest(content)
    path.write_bytes(sealed)
    assert sealed.startswith(content)
    assert not is_broken(path)
    for at in {*range(len(content))[::499], len(sealed) - 1}:
        path.write_bytes(sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :])
        assert is_broken(path)


def test_a_file_without_a_seal_is_not_judged(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert not is_broken(tmp_path / "a")
