"""What a stranger's file cannot do: be unpickled, or have a path outside read or written.

Archives are in extract/datasets/test_unpack.py, pages in page/test_report_page.py, pickles that
would run something in model/test_checkpoint.py, extract/networks/test_weights.py and
released/test_released_model.py.
"""

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from attnact.cache.feature_writer import ShardWriter
from attnact.cache.features import FeatureCache
from attnact.cache.shards import shard_path
from attnact.errors import CacheError
from attnact.machine.files import lock_beside, write_text

ROOT = Path(__file__).resolve().parents[1]
SOURCES = [
    file for folder in ("attnact", "extract", "train") for file in (ROOT / folder).rglob("*.py")
]
UNPICKLERS = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "pandas"}
SAFE = {"torch.load": ("weights_only", True), "np.load": ("allow_pickle", False)}


def calls(tree: ast.AST) -> list[ast.Call]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.Call)]


def test_nothing_unpickles() -> None:
    loads = 0
    for file in SOURCES:
        tree = ast.parse(file.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [alias.name for alias in node.names] + [getattr(node, "module", "") or ""]
                assert not {name.split(".")[0] for name in names} & UNPICKLERS, file
        for call in calls(tree):
            name = ast.unparse(call.func)
            assert name not in ("eval", "exec", "numpy.load"), file
            if name in SAFE:
                option, value = SAFE[name]
                given = {
                    it.arg: ast.literal_eval(it.value) for it in call.keywords if it.arg == option
                }
                assert given == {option: value}, file
                loads += 1
    assert loads == 3  # a training state, weights of a backbone, a released model


def by_link(file: Any, name: str, other: Path) -> None:
    del file[name]
    file[name] = h5py.ExternalLink(str(other), "/secret")


def by_storage(file: Any, name: str, other: Path) -> None:
    shape = file[name].shape
    del file[name]
    file.create_dataset(name, shape, "i8", external=[(str(other), 0, h5py.h5f.UNLIMITED)])


def by_virtual(file: Any, name: str, other: Path) -> None:
    shape = file[name].shape
    del file[name]
    layout = h5py.VirtualLayout(shape, "i8")
    source = h5py.VirtualSource(str(other), "secret", (100,))
    layout[(0,) * (len(shape) - 1)] = source[: shape[-1]]
    file.create_virtual_dataset(name, layout)


WAYS: list[Callable[[Any, str, Path], None]] = [by_link, by_storage, by_virtual]


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """A file outside of every cache."""
    path = tmp_path / "outside" / "other.h5"
    path.parent.mkdir()
    with h5py.File(path, "w") as file:
        file["secret"] = np.arange(100)
    return path


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["videos/first_frame", "videos/label", "shard_frames"])
def test_an_index_cannot_have_another_file_read(
    make_cache: Any, tmp_path: Path, other: Path, way: Any, name: str
) -> None:
    cache = make_cache(tmp_path / "here" / "small.h5", videos=6)
    with h5py.File(cache.path, "a") as file:
        way(file, name, other)
    with pytest.raises(CacheError, match=f"refused, for its {name} would be read from another"):
        FeatureCache(cache.path)


@pytest.mark.parametrize("way", WAYS)
def test_a_shard_cannot_have_another_file_read(
    make_cache: Any, tmp_path: Path, other: Path, way: Any
) -> None:
    cache = make_cache(tmp_path / "here" / "small.h5", videos=6)
    with h5py.File(shard_path(cache.path, 0), "a") as file:
        way(file, "features", other)
    found = FeatureCache(cache.path)
    with pytest.raises(CacheError):
        found.read(0, 1)


def test_a_group_that_holds_itself_is_no_hang(make_cache: Any, tmp_path: Path) -> None:
    cache = make_cache(tmp_path / "small.h5", videos=6)
    with h5py.File(shard_path(cache.path, 0), "a") as file:
        for name in "abc":
            file["videos"][name] = file["videos"]
    FeatureCache(cache.path).read(0, 1)


def test_links_beside_a_shard_are_not_followed(tmp_path: Path, other: Path) -> None:
    content = other.read_bytes()
    shard = shard_path(tmp_path / "small.h5", 0)
    shard.parent.mkdir()
    shard.with_suffix(".part").symlink_to(other)
    writer = ShardWriter.claim(shard, "zstd")
    assert writer is not None
    writer.close()
    assert other.read_bytes() == content
    assert not shard.is_symlink()


def test_a_lock_is_not_made_where_a_link_leads(tmp_path: Path) -> None:
    (tmp_path / "x.lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic links"):
        lock_beside(tmp_path / "x.h5")
    assert not (tmp_path / "elsewhere").exists()


def test_a_file_takes_the_place_of_a_link(tmp_path: Path, other: Path) -> None:
    content = other.read_bytes()
    (tmp_path / "plan.json").symlink_to(other)
    write_text(tmp_path / "plan.json", "{}")
    assert other.read_bytes() == content
    assert (tmp_path / "plan.json").read_text() == "{}"
