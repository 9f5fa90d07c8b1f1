"""The tables of a shard and of an index, written and read; and the digest of all of them."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import h5py
import numpy as np

MOVED_TO = "moved_to"  # attribute of an index: where its videos are, if no longer at `root`


@dataclass(frozen=True)
class VideoRow:
    """What is known of one video's features; a column each in the files.

    video: position in the extraction's list of videos.
    declared_frames: what the file's header promised, 0 where it did not.
    checksum: CRC-32 of the video's feature cubes as they are stored, uncompressed, and of their
        scales after them where there are any.
    failure: why the video was given up; empty for a video that the cache holds.
    file_bytes: the size of the video's file then, 0 where there was none or it is not known.
    """

    video: int
    frames: int = 0
    frame_rate: float = 0.0
    width: int = 0
    height: int = 0
    declared_frames: int = 0
    decoder: str = ""
    checksum: int = 0
    failure: str = ""
    file_bytes: int = 0


def write_rows(group: Any, rows: Sequence[VideoRow]) -> None:
    """The rows as a `videos` group, a column each."""
    for field in fields(VideoRow):
        column = [getattr(row, field.name) for row in rows]
        if field.type is str:
            group[field.name] = text_column(column)
        else:
            group[field.name] = np.array(column, np.float64 if field.type is float else np.int64)


def read_rows(group: Any) -> list[VideoRow]:
    """The rows of a `videos` group of a shard or an index; older ones lack `file_bytes`."""
    columns = [
        read_text(group[field.name]) if field.type is str else group[field.name][()].tolist()
        for field in fields(VideoRow)
        if field.name != "file_bytes" or field.name in group
    ]
    return [VideoRow(*values) for values in zip(*columns, strict=True)]


def text_column(values: Sequence[str]) -> Any:
    """Texts as h5py takes them."""
    return np.array(values, h5py.string_dtype())


def read_text(dataset: Any) -> list[str]:
    """The texts of a data set."""
    return list(dataset.asstr()[()])


def index_digest(file: Any) -> str:
    """SHA-256 of every table and attribute of an index or a shard but features, scales, itself, and
    what tells of the videos' files: their sizes, and where they were moved to.
    """
    free = ("digest", MOVED_TO)
    attributes = {key: str(value) for key, value in file.attrs.items() if key not in free}
    content: dict[str, Any] = {"": attributes}

    def add(name: str, item: Any) -> None:
        if name == "videos/file_bytes":
            return
        content[name] = {key: str(value) for key, value in item.attrs.items()}
        if isinstance(item, h5py.Dataset) and name not in ("features", "scales"):
            text = h5py.check_string_dtype(item.dtype)
            content[name][""] = read_text(item) if text else item[()].tolist()

    file.visititems(add)
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
