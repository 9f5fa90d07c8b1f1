"""Fixtures that more than one test module needs."""

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
import torch
from hypothesis import settings

from attnact.cache.compact import Cubes
from attnact.cache.feature_index import Listing, write_index
from attnact.cache.feature_writer import ShardWriter
from attnact.cache.features import CUBE, FeatureCache
from attnact.cache.shards import shard_path
from attnact.cache.tables import VideoRow
from attnact.machine.progress import be_quiet
from attnact.vocabulary import Compression, Split
from tests.made_released import TEST, TRAIN
from tests.made_report import make_report

# What is started in the background, as CI may be, ignores Ctrl-C, and so would what tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)

# What Triton makes for a GPU is interpreted where there is none; it is read as Triton is imported.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

settings.register_profile("untimed", deadline=None)  # a busy machine is no failure
settings.load_profile("untimed")


def pytest_make_parametrize_id(val: object) -> str | None:
    """Bytes are named by their number: what they hold may differ between pytest's processes."""
    return f"{len(val)} bytes" if isinstance(val, bytes) else None


@pytest.fixture(scope="session")
def shared() -> Path:
    """The research data beside the checkout; tests that need it are skipped without it."""
    path = Path(__file__).resolve().parents[2] / "shared"
    if not path.is_dir():
        pytest.skip("no shared data beside the checkout")
    return path


@pytest.fixture(scope="session")
def ffmpeg() -> Callable[..., bytes]:
    """Runs the ffmpeg program, which decodes and encodes by itself; returns its stdout."""

    def run(*arguments: object, stdin: bytes = b"") -> bytes:
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", *map(str, arguments)]
        return subprocess.run(command, input=stdin, capture_output=True, check=True).stdout

    return run


@pytest.fixture(scope="session")
def make_clip(ffmpeg) -> Callable[..., Path]:
    """Encodes a clip of blocks of colour that move to the right: no two frames are alike.

    `codec` are the options of ffmpeg that stand before the output file.
    """

    def make(
        path: Path,
        *codec: str,
        frames: int = 20,
        size: tuple[int, int] = (176, 144),
        seed: int = 0,
    ) -> Path:
        width, height = size
        blocks = np.random.default_rng(seed).integers(
            0, 256, (height // 16 + 1, width // 16 + 1, 3)
        )
        texture = np.kron(blocks, np.ones((16, 16, 1))).astype(np.uint8)[:height, :width]
        pixels = np.stack([np.roll(texture, 7 * i, axis=1) for i in range(frames)])
        raw = ("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", "25")
        codec = codec or ("-c:v", "mpeg4", "-q:v", "3")
        ffmpeg(*raw, "-i", "-", *codec, path, stdin=pixels.tobytes())
        return path

    return make


CLASSES = ["dive", "jump", "run"]
FRAMES = [33, 30, 31, 12]  # of the videos in turn; the last is shorter than a clip
PROVENANCE = {
    "backbone": "googlenet",
    "weights": "random (seed 0)",
    "weights_are_random": "true",
    "resize": "squash",
}


def cubes_of(video: int, frames: int) -> Cubes:
    """Every class lights 32 channels of its own, over noise: three epochs learn it."""
    cubes = np.zeros((frames, *CUBE), np.float16)
    cubes[..., 512:576] = np.random.default_rng(video).random((frames, *CUBE[:2], 64))
    cubes[..., 32 * (video % 3) : 32 * (video % 3) + 32] = 1
    return cubes


@pytest.fixture(scope="session")
def make_cache() -> Callable[..., FeatureCache]:
    """Writes a cache of short videos: video i is of class i % 3 and of group i // 3.

    The test videos of fold "k" are group k - 1; those of "wide" are the last two groups, its
    training videos the two before, and the rest is unused.
    """

    def make(
        path: Path,
        videos: int = 12,
        multi_label: bool = False,
        frames: Callable[[int], int] = lambda video: FRAMES[video % 4],
        rate: Callable[[int], float] = lambda video: 30.0,
        cubes: Callable[[int, int], Cubes] = cubes_of,
        dtype: str | None = None,
        compression: Compression = "lz4",
        **changes: object,
    ) -> FeatureCache:
        i = np.arange(videos)
        group, groups = i // 3, (videos + 2) // 3
        sides = {str(k + 1): np.where(group == k, Split.TEST, Split.TRAIN) for k in range(groups)}
        bounds = [group >= groups - 2, group >= groups - 4]
        sides["wide"] = np.select(bounds, [Split.TEST, Split.TRAIN], Split.UNUSED)
        row = np.eye(3, dtype=np.int64)[i % 3]
        row[:, 0] |= group % 2  # now and then two classes hold
        listing = Listing(
            name="folder",
            root=path.parent,
            classes=CLASSES,
            paths=[f"{CLASSES[n % 3]}/{n}.avi" for n in i],
            labels=row if multi_label else i % 3,
            groups=[f"group {n}" for n in group],
            folds={fold: side.astype(np.int8) for fold, side in sides.items()},
            places=range(videos),
        )
        shard_path(path, 0).parent.mkdir(parents=True)
        for shard, part in enumerate(np.array_split(i, 3)):
            kept = dtype or cubes(0, 1).dtype
            writer = ShardWriter.claim(shard_path(path, shard), compression, kept)
            assert writer is not None
            for n in part.tolist():
                writer.append(cubes(n, frames(n)))
                writer.end_video(VideoRow(n, frame_rate=rate(n)))
            writer.close()
        provenance = {**PROVENANCE, "dtype": str(np.dtype(kept))}
        return write_index(path, range(3), Listing(**{**vars(listing), **changes}), provenance)

    return make


@pytest.fixture(scope="session")
def cache(make_cache, tmp_path_factory: pytest.TempPathFactory) -> FeatureCache:
    """Twelve videos, one class each."""
    return make_cache(tmp_path_factory.mktemp("cache") / "small.h5")


@pytest.fixture(scope="session")
def multi_label_cache(make_cache, tmp_path_factory: pytest.TempPathFactory) -> FeatureCache:
    """Twelve videos, one or two classes each."""
    return make_cache(tmp_path_factory.mktemp("cache") / "multi.h5", multi_label=True)


@pytest.fixture(scope="session")
def report_folder(make_cache, make_clip, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`report.html`, the runs that it shows in `runs`, and their cache."""
    folder = tmp_path_factory.mktemp("report")
    make_report(folder, make_cache, make_clip)
    return folder


@pytest.fixture
def released(tmp_path: Path) -> Path:
    """Files of the released code: three training videos and two test videos, of two classes."""
    TRAIN.write(tmp_path / "released", "train")
    TEST.write(tmp_path / "released", "test")
    return tmp_path / "released"


@pytest.fixture(autouse=True)
def aloud() -> None:
    """A test that said `-q` leaves the next one as it was."""
    be_quiet(False)


@pytest.fixture(autouse=True, scope="session")
def small_blocks() -> Iterator[None]:
    """The released code's files are read and written in blocks of a few frames."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("attnact.released.importing.BLOCK", 2)
        patch.setattr("attnact.released.importing.SHARD_FRAMES", 4)
        patch.setattr("attnact.released.exporting.BLOCK", 2)
        yield


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    """Where the first shard of a small cache goes."""
    path = shard_path(tmp_path / "small.h5", 0)
    path.parent.mkdir()
    return path
