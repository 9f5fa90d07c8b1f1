"""Feature files as the released code reads them, made for tests."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from attnact.cache.features import FeatureCache
from attnact.released.importing import import_released

ROOT = Path(__file__).parents[1]
WIDTH = 7 * 7 * 1024
LISTS = ("framenum.txt", "filename.txt", "labels.txt")


@dataclass(frozen=True)
class Files:
    """What one part is to hold: rows (frames, 50176), and a path, frames and label a video."""

    paths: Sequence[str]
    frames: Sequence[int]
    labels: Sequence[str]
    seed: int = 0

    @property
    def rows(self) -> Any:
        """Any finite float32, tiny ones, huge ones and minus zeros included."""
        bits = np.random.default_rng(self.seed).integers(0, 1 << 32, (sum(self.frames), WIDTH))
        rows = bits.astype(np.uint32).view(np.float32)
        rows[~np.isfinite(rows)] = -0.0
        return rows

    def write(self, folder: Path, part: str, dtype: str = "<f4", eol: str = "\n") -> None:
        folder.mkdir(exist_ok=True)
        with h5py.File(folder / f"{part}_features.h5", "w") as file:
            file.create_dataset("features", data=self.rows, dtype=dtype, maxshape=(None, None))
        for name, lines in zip(LISTS, (self.frames, self.paths, self.labels), strict=True):
            text = "".join(f"{line}{eol}" for line in lines)
            (folder / f"{part}_{name}").write_bytes(text.encode())


TRAIN = Files(["dive/a.avi", "run/b.avi", "dive/c.avi"], [3, 1, 5], ["0", "1", "0"], 1)
TEST = Files(["run/d.avi", "dive/e.avi"], [2, 4], ["1", "0"], 2)
VALID = Files(["run/f.avi"], [2], ["1"], 3)


def take(folder: Path, order: Any = "fortran", out: str = "x.h5") -> FeatureCache:
    return import_released(folder, folder.parent / out, "x", order)


def contents(folder: Path) -> dict[str, bytes]:
    """The text of the lists, and the values of the features, by file name."""
    found = {}
    for path in sorted(folder.iterdir()):
        if path.suffix == ".h5":
            with h5py.File(path) as file:
                assert list(file) == ["features"]
                assert file["features"].dtype == np.dtype("<f4")
                assert file["features"].maxshape == (None, None)
                found[path.name] = file["features"][()].tobytes()
        else:
            found[path.name] = path.read_bytes()
    return found


def shards(cache: FeatureCache) -> list[Path]:
    return sorted(cache.path.with_suffix(".shards").glob("*.h5"))
