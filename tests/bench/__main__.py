"""How fast each part is on this machine, beside what the machine could do at most.

    make bench

Every figure is the best of several tries, on videos and features that are made here.
"""

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from attnact.attention import attention_penalty
from attnact.demo import draw_videos
from attnact.extract.backbone import load_backbone
from attnact.extract.video import read_frames, resize
from attnact.feature_writer import Listing, ShardWriter, write_index
from attnact.features import FeatureCache, VideoRow, shard_path
from attnact.model import AttentionLSTM, ModelConfig
from attnact.vocabulary import AttentionForm, Split
from tests.bench.extraction import flops

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
Row = tuple[str, str, str]


def main() -> None:
    """Prints a Markdown table, a row as soon as it is measured."""
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # as the command line does
    print(f"{os.cpu_count()} cores, torch {torch.__version__} on {DEVICE}\n")
    print("| part | speed | of this machine's limit |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        peak = matmul_peak()
        print(f"| float32 matrix product | {peak / 1e9:,.0f} GFLOP/s | the limit of the next |")
        for rows in (decoding(Path(folder)), backbone(peak), training(peak), cache(Path(folder))):
            for part, speed, share in rows:
                print(f"| {part} | {speed} | {share} |", flush=True)


def best(work: Callable[[], object], tries: int = 5) -> float:
    """Seconds of the fastest try after one that warms up."""
    work()
    times = []
    for _ in range(tries):
        start = time.perf_counter()
        work()
        if DEVICE.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return min(times)


def matmul_peak() -> float:
    """Operations a second of a large product, 2 for each multiplication and addition."""
    n = 2048
    a = torch.rand(n, n, device=DEVICE)
    return 2 * n**3 / best(lambda: a @ a)


def decoding(folder: Path) -> Iterator[Row]:
    """Frames a second of one decoder process, decoded and resized."""
    (folder / "videos").mkdir()
    draw_videos(folder / "videos", folder / "list.csv", scenes=2)
    files = sorted((folder / "videos").iterdir())

    def read() -> int:
        return sum(
            1 for file in files for frame in read_frames(file) if resize(frame, "squash").any()
        )

    yield "decode and resize, one core", f"{read() / best(read):,.0f} frames/s", ""


def backbone(peak: float) -> Iterator[Row]:
    """Frames a second of the network."""
    size = 32 if DEVICE.type == "cpu" else 128
    frames = torch.randint(0, 256, (size, 224, 224, 3), dtype=torch.uint8)
    network = load_backbone("googlenet", "random", DEVICE, frames)
    seconds = best(lambda: network(frames).cpu())
    share = flops("googlenet") * size / seconds / peak
    yield "GoogLeNet", f"{size / seconds:,.0f} frames/s", f"{share:.0%} of the product's"


def training(peak: float) -> Iterator[Row]:
    """Clips a second of a training step, by form of attention."""
    forms: tuple[AttentionForm, ...] = ("location", "context")
    X = torch.rand(32, 30, 49, 1024, device=DEVICE)
    mask = torch.ones(32, 30, device=DEVICE)
    for form in forms:
        model = AttentionLSTM(ModelConfig(classes=51, attention=form)).to(DEVICE)
        optimizer = torch.optim.Adam(model.parameters())

        def step(model: AttentionLSTM = model, optimizer: torch.optim.Adam = optimizer) -> None:
            scores, maps = model(X, mask)
            optimizer.zero_grad()
            loss = scores.logsumexp(-1).sum() + attention_penalty(maps, mask, "sum").sum()
            torch.autograd.backward(loss)
            optimizer.step()

        with FlopCounterMode(display=False) as counter:
            step()
        seconds = best(step, tries=3)
        share = counter.get_total_flops() / seconds / peak
        speed = f"{32 / seconds:,.1f} clips/s"
        yield f"training step, {form}, 3 × 512, batch 32", speed, f"{share:.0%} of the product's"


def cache(folder: Path) -> Iterator[Row]:
    """Bytes a second of float16 features, written and read, by compression."""
    random = np.random.default_rng(0)
    cubes = random.exponential(size=(512, 7, 7, 1024)).astype(np.float16)
    cubes[random.random(cubes.shape) < 0.84] = 0  # the share of zeros in real features
    for compression in ("zstd", "lz4", "none"):
        path = folder / f"{compression}.h5"

        def write(path: Path = path, compression: str = compression) -> None:
            shard_path(path, 0).parent.mkdir(exist_ok=True)
            shard_path(path, 0).unlink(missing_ok=True)
            writer = ShardWriter.claim(shard_path(path, 0), compression)  # type: ignore[arg-type]
            assert writer is not None
            writer.append(cubes)
            writer.end_video(VideoRow(0))
            writer.close()

        writing = best(write, tries=2)
        sides = {"1": np.array([Split.TRAIN], np.int8)}
        listing = Listing("bench", folder, ["a"], ["a.avi"], np.zeros(1, np.int64), [""], sides)
        reader: FeatureCache = write_index(path, 1, listing, {})
        reading = best(lambda reader=reader: reader.read(0, len(cubes)))  # type: ignore[misc]
        size = f"{reader.disk_bytes() / len(cubes) / 1024:.0f} KiB a frame"
        speed = f"{cubes.nbytes / writing / 1e9:.2f}, {cubes.nbytes / reading / 1e9:.2f} GB/s"
        yield f"cache, {compression}: write, read", speed, size


if __name__ == "__main__":
    main()
