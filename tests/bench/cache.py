"""The cache beside what bounds it: the decompressor alone, a plain copy of memory, the disk.

The features are those of two real clips by Caffe's network where they are at hand, else made up
with as many zeros as real ones have, in spots as theirs are. All are written many times over.
"""

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
import zstandard

from attnact.cache.chunks import side_by_side
from attnact.cache.compact import Cubes
from attnact.cache.feature_index import Listing, write_index
from attnact.cache.feature_writer import ShardWriter
from attnact.cache.features import FeatureCache
from attnact.cache.shards import shard_path
from attnact.cache.tables import VideoRow
from attnact.extract.frames.resize import resize
from attnact.extract.frames.video import read_frames
from attnact.extract.networks.backbone import load_backbone
from attnact.machine.resources import cores
from attnact.train.config import CLIP_FRAMES
from attnact.train.feed.clips import Clips, cut_clips
from attnact.train.feed.places import DiskStore, MemoryStore
from attnact.vocabulary import Compression, FeatureType, Split
from tests.bench.measuring import Row, figure, in_turn, ratio

SHARED = Path(__file__).resolve().parents[3] / "shared"
CLIPS = ("v_Diving_g01_c01", "v_BenchPress_g01_c01")
CPU = torch.device("cpu")
DTYPES: tuple[FeatureType, ...] = ("float16", "uint8")
COMPRESSIONS: tuple[Compression, ...] = ("zstd", "lz4", "gzip", "none")


def rows(quick: bool) -> Iterator[Row]:
    """What a frame takes, and the rates of writing, of reading clips, and of gathering them."""
    runs = 3 if quick else 7
    cubes, origin = features(16 if quick else 64)
    sizes: dict[tuple[FeatureType, Compression], float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for dtype in DTYPES:
            for compression in COMPRESSIONS if not quick else COMPRESSIONS[:1]:
                path = Path(folder, f"{compression}-{dtype}.h5")
                (taken,) = in_turn([partial(write, path, cubes, dtype, compression)], runs)
                cache = FeatureCache(path)
                what = f"{dtype}, {compression}"
                kib = sizes[dtype, compression] = cache.disk_bytes() / cache.frames / 1024
                yield Row(
                    f"size, {what}",
                    f"{kib:.1f} KiB a frame",
                    "196 KiB as the released code's float32",
                    note=origin,
                )
                note = "compressed by one thread" if compression == "lz4" else ""
                yield Row(f"write, {what}", per(taken, cache.frames), note=note)
                yield reading(cache, what, runs)
            yield gathering(cache, dtype, runs)
        yield from disk(Path(folder, "disk"), sizes[DTYPES[0], COMPRESSIONS[0]], runs)


def disk(path: Path, kib: float, runs: int) -> Iterator[Row]:
    """How fast the disk writes what is flushed to it, and reads what memory no longer has.

    kib: of a frame, in KiB.
    """
    content = os.urandom(128 << 20)

    def write() -> None:
        with path.open("wb", buffering=0) as file:
            file.write(content)
            os.fsync(file.fileno())

    def read() -> None:
        with path.open("rb", buffering=0) as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            assert len(file.read()) == len(content)

    for what, taken in zip(("write", "read"), in_turn([write, read], runs), strict=True):
        rates = figure([len(content) / seconds for seconds in taken])
        frames = f"at {kib:.1f} KiB a frame {rates.median / kib / 1024:,.0f} frames/s"
        yield Row(f"{what}, the disk alone", rates.text("MB/s", 1e6), bound=frames)


def features(frames: int) -> tuple[Cubes, str]:
    """Feature cubes of so many frames, and where they are from."""
    weights = SHARED / "weights" / "bvlc_googlenet.safetensors"
    clips = [SHARED / "videos" / "assorted" / f"{name}.avi" for name in CLIPS]
    if not all(file.is_file() for file in (weights, *clips)):
        return made_up(frames), "made-up features"
    read = [np.stack(list(islice(read_frames(clip), frames // 2))) for clip in clips]
    some = np.concatenate([resize(frames, "squash") for frames in read])
    network = load_backbone("bvlc_googlenet", weights, CPU)
    cubes = [network.start(part)().numpy() for part in torch.from_numpy(some).split(16)]
    return np.concatenate(cubes), "features of real clips"


def made_up(frames: int) -> Cubes:
    """Few channels are lit in a frame, in a spot that moves little from frame to frame."""
    random = np.random.default_rng(0)
    place = np.arange(7) - 3 - np.cumsum(random.normal(0, 0.1, (2, 1024, frames, 1)), axis=2)
    spot = np.exp(-0.5 * place**2 / 1.5**2)  # of each channel in rows and in columns
    spots = np.einsum("cfr,cfk->frkc", *spot) * random.exponential(2, 1024)
    noisy = spots * random.lognormal(0, 0.3, spots.shape)
    return np.maximum(0, noisy - np.quantile(noisy, 0.84)).astype(np.float16)


def write(path: Path, cubes: Cubes, dtype: FeatureType, compression: Compression) -> None:
    """A cache of one video: the cubes over and over."""
    shard = shard_path(path, 0)
    shard.parent.mkdir(exist_ok=True)
    shard.unlink(missing_ok=True)
    writer = ShardWriter.claim(shard, compression, dtype)
    assert writer is not None
    for _ in range(1024 // len(cubes)):
        writer.append(cubes)
    writer.end_video(VideoRow(0, frame_rate=30.0))
    writer.close()
    sides = {"1": np.array([Split.TRAIN], np.int8)}
    listing = Listing(
        "bench", path.parent, ["a"], ["a.avi"], np.zeros(1, np.int64), ["a"], sides, [0]
    )
    write_index(path, range(1), listing, {}).close()


def reading(cache: FeatureCache, what: str, runs: int) -> Row:
    """Random clips from a file that the machine keeps in memory."""
    store = DiskStore(cache, CPU)
    batch = random_clips(cache, 16)
    clips, frames = batch.positions(), CLIP_FRAMES * len(batch)
    positions = batch.positions().ravel()
    room = torch.zeros(store.frame_bytes * frames, dtype=torch.uint8)
    with h5py.File(cache.path) as file, ThreadPoolExecutor(cores()) as pool:
        packed = chunks_of(shard_path(cache.path, 0), clips) if "zstd" in what else []
        jobs = [lambda chunk=chunk: unpack(chunk) for chunk in packed]  # type: ignore[misc]
        works: list[Callable[[], object]] = [
            lambda: store.gather(positions, room),
            lambda: [file["features"][clip[0] : clip[-1] + 1] for clip in clips],
            lambda: side_by_side(pool, cores(), jobs),
        ]
        ours, peer, bound = in_turn(works, runs)
    return Row(
        f"read random clips, {what}",
        per(ours, frames),
        f"{per(peer, frames)} by h5py",
        f"{share(bound, ours)} of the decompressor alone" if packed else "",
    )


def random_clips(cache: FeatureCache, count: int) -> Clips:
    """So many of the clips at stride 1."""
    clips = cut_clips(cache, np.array([0]), fps=30, stride=1, form="paper")
    return clips[np.random.default_rng(0).permutation(len(clips))[:count]]


def chunks_of(shard: Path, clips: Sequence[Any]) -> list[bytes]:
    """The chunks that the clips lie in, as they are in the file."""
    with h5py.File(shard) as file:
        data = file["features"]
        size = data.chunks[0]
        wanted = [np.unique(clip // size) * size for clip in clips]
        return [data.id.read_direct_chunk((c, 0, 0, 0))[1] for c in np.concatenate(wanted).tolist()]


def unpack(chunk: bytes) -> None:
    """Decompresses a chunk, and lets it go."""
    zstandard.ZstdDecompressor().decompress(chunk)


def gathering(cache: FeatureCache, dtype: FeatureType, runs: int) -> Row:
    """Batches of random clips from host memory, beside a copy of as many bytes in one piece."""
    store = MemoryStore(cache, np.array([0]), CPU, CPU)
    clips = random_clips(cache, 32).positions()
    positions = clips.ravel()
    whole = store.gather(positions).cubes
    copied, room = torch.zeros_like(whole), torch.zeros(whole.nbytes, dtype=torch.uint8)
    works: list[Callable[[], object]] = [
        lambda: store.gather(positions, room),
        lambda: torch.stack([store.gather(clip).cubes for clip in clips]),
        lambda: copied.copy_(whole),
    ]
    ours, peer, bound = in_turn(works, runs)
    return Row(
        f"gather clips from memory, {dtype}",
        per(ours, len(positions)),
        f"{per(peer, len(positions))} clip by clip",
        f"{share(bound, ours)} of a plain copy",
    )


def per(taken: Sequence[float], frames: int) -> str:
    """Frames a second."""
    return figure([frames / seconds for seconds in taken]).text("frames/s")


def share(bound: Sequence[float], ours: Sequence[float]) -> str:
    """How close to the bound, run by run."""
    return ratio(bound, ours).text("×", digits=2)
