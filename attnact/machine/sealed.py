"""JSON and files that tell when a byte of them has changed since they were written."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

DIGEST = "digest"
MARK = b"attnact sha256 "  # and the digest, in hex, of all that stands before


def seal(content: Mapping[str, Any], free: str = "") -> dict[str, Any]:
    """The content with a digest of itself; the value of the key `free` may change later."""
    return {**content, DIGEST: _digest(content, free)}


def check_seal(content: Mapping[str, Any], free: str = "") -> None:
    """Holds content against its digest; files from before there were digests have none.

    Raises:
        ValueError: they do not fit.
    """
    if DIGEST in content and content[DIGEST] != _digest(content, free):
        raise ValueError("its digest is that of other content")


def parse(text: str) -> dict[str, Any]:
    """An object of JSON.

    Raises:
        ValueError: the text is no JSON, nests deeper than anyone would, or is no object.
    """
    try:
        content = json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(content, dict):
        raise ValueError("not an object")
    return content


def with_digest(content: bytes) -> bytes:
    """A digest at the end of what is of a format that reads no further than it needs."""
    return content + MARK + hashlib.sha256(content).hexdigest().encode()


def unsealed(content: bytes) -> bytes:
    """The same without the digest at its end, if it has one."""
    whole, mark, _ = content.rpartition(MARK)
    return whole if mark else content


def is_broken(path: Path) -> bool:
    """Whether a file has a digest at its end and is not what it was; one without may be either."""
    content, mark, digest = path.read_bytes().rpartition(MARK)
    return bool(mark) and hashlib.sha256(content).hexdigest().encode() != digest


def _digest(content: Mapping[str, Any], free: str) -> str:
    sealed = {name: value for name, value in content.items() if name not in (DIGEST, free)}
    return hashlib.sha256(json.dumps(sealed, sort_keys=True).encode()).hexdigest()
