"""How fast features are made: from files to a finished cache, each part alone, and the limits.

`rows` measures and tells; the loop that people write instead is in `extraction_peer.py`. Real clips
and Caffe's weights are taken from `shared` beside the checkout where they are there, else clips are
drawn. Other weights are random ones: their speed is the same, but their features have fewer zeros,
and take twice as long to compress.
"""

import csv
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

import safetensors.torch
import torch
from torch.utils.flop_counter import FlopCounterMode

from attnact.cache.compact import Cubes
from attnact.cache.feature_writer import ShardWriter
from attnact.cache.features import FeatureCache
from attnact.cache.shards import shard_path
from attnact.cache.tables import VideoRow
from attnact.demo import draw_videos
from attnact.errors import UnsupportedError
from attnact.extract.frames.decoder import BLOCK
from attnact.extract.frames.decoding import decode
from attnact.extract.frames.resize import resize_tensor
from attnact.extract.making import under_way
from attnact.extract.networks import bvlc_googlenet
from attnact.extract.networks.backbone import NETWORKS, Backbone, load_backbone
from attnact.machine.resources import cores
from attnact.vocabulary import BackboneName, Precision, Runtime
from tests.bench.measuring import (
    DEVICE,
    OPERATIONS,
    Figure,
    Row,
    figure,
    in_turn,
    product,
    ratio,
    seconds,
)

ROOT = Path(__file__).resolve().parents[2]
REAL = ROOT.parent / "shared"
BATCH = 32 if DEVICE.type == "cpu" else 128
NAMES: tuple[BackboneName, ...] = ("googlenet", "bvlc_googlenet")
RUNTIMES: tuple[Runtime, ...] = ("torch", "openvino") if find_spec("openvino") else ("torch",)
PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16")
if DEVICE.type == "cuda":
    RUNTIMES, PRECISIONS = ("torch",), (*PRECISIONS, "float16")
FASTEST = (RUNTIMES[-1], PRECISIONS[-1])  # goes the whole way, from files to a finished cache
DECODERS = 1 if DEVICE.type == "cpu" else max(1, cores() - 1)  # of one device
ENOUGH = 0 if DEVICE.type == "cpu" else 400  # clips; a GPU is done with sixty as soon as it began


class Material(NamedTuple):
    """What is made features of: clips, the first `few` of which the slow loops read."""

    clips: list[Path]
    few: int
    weights: dict[BackboneName, Path]
    frames: torch.Tensor  # of the first clips, uint8 (n · BATCH, 224, 224, 3), on DEVICE


class Extracted(NamedTuple):
    """A whole run of `attnact features`."""

    frames: int
    seconds: float  # of the process, from start to end
    start: float  # of those, until the first video is decoded


def rows(quick: bool) -> Iterator[Row]:
    """Everything about extraction, a row as soon as it is measured."""
    runs = 1 if quick else 3
    with tempfile.TemporaryDirectory() as folder:
        material = material_of(Path(folder), quick)
        works = [product(getattr(torch, precision)) for precision in PRECISIONS]
        times = in_turn(works, runs, repeat=4)  # of an AMX product the first ones are slower
        rates = [figure([OPERATIONS / seconds for seconds in each]) for each in times]
        products = dict(zip(PRECISIONS, rates, strict=True))
        for precision, rate in products.items():
            yield Row(f"matrix product, {precision}", rate.text("GFLOP/s", 1e9))
        decoding = decoded(material, runs)
        processes = "one process" if DECODERS == 1 else f"{DECODERS} processes"
        yield Row(f"decode and resize, {processes}", decoding.text("frames/s"))
        resizing = resized(runs)
        yield Row(f"resize 320×240, on {DEVICE}", resizing.text("frames/s"))
        runtimes = RUNTIMES[-1:] if quick else RUNTIMES
        for name in NAMES[1:] if quick else NAMES:
            others = (decoding.median, resizing.median)
            yield from _backbone_rows(name, material, runtimes, products, others, runs)


def _backbone_rows(
    name: BackboneName,
    material: Material,
    runtimes: Sequence[Runtime],
    products: dict[Precision, Figure],
    others: tuple[float, float],
    runs: int,
) -> Iterator[Row]:
    work, writing = flops(name), None
    for runtime in runtimes:
        for precision in PRECISIONS:
            try:
                backbone = _load(name, material, runtime, precision)
            except UnsupportedError as error:
                yield Row(f"{name}, {runtime} {precision}", "", note=str(error))
                continue
            forward = passed(backbone, material.frames, runs)
            if writing is None:
                writing = written(backbone.start(material.frames[:BATCH])().numpy(), runs)
                yield Row(f"compress and write, {name}", writing.text("frames/s"))
            limit = products[precision].median / work
            yield Row(
                f"{name} alone, {runtime} {precision}",
                forward.text("frames/s"),
                bound=f"{limit:,.0f} frames/s by the product; {forward.median / limit:.0%}",
            )
            if (runtime, precision) == FASTEST:
                yield from _whole_rows(name, material, forward, runs)
                yield Row(
                    f"what binds {name}", "", note=binding(forward.median, writing.median, *others)
                )


def _whole_rows(
    name: BackboneName, material: Material, forward: Figure, runs: int
) -> Iterator[Row]:
    """From files to a cache: as a person waits for it, and as it goes on once it has started."""
    ours, peers = side_by_side(name, material, runs)
    start = statistics.median(it.start for it in ours)
    for text, rates in (
        ("start included", [it.frames / it.seconds for it in ours]),
        (f"after its {start:.1f} s of start", [it.frames / (it.seconds - it.start) for it in ours]),
    ):
        times = ratio(rates, peers).text("×", digits=1)
        yield Row(
            f"{name}, files to cache, {text}",
            figure(rates).text("frames/s"),
            f"{figure(peers).text('frames/s')}; {times}",
            f"{forward.median:,.0f} frames/s alone; {figure(rates).median / forward.median:.0%}",
        )


def binding(forward: float, writing: float, decoding: float, resizing: float) -> str:
    """Which part decides, from the frames a second of each alone.

    What has all cores when it is alone shares them in the whole, where the times add up. On a CPU
    that is the network, writing and a decoder, which has one core and resizes, too. On a GPU the
    decoders have all, and so has writing; or else the GPU decides, which resizes there.
    """
    if DEVICE.type == "cpu":
        shares = {"network": 1 / forward, "decode": 1 / decoding / cores(), "write": 1 / writing}
        whole = sum(shares.values())
        told = ", ".join(f"{part} {share / whole:.0%}" for part, share in shares.items())
        return f"the cores are shared: {told}; {1 / whole:,.0f} frames/s at most"
    on_cores, on_gpu = 1 / (1 / decoding + 1 / writing), 1 / (1 / forward + 1 / resizing)
    if on_gpu < on_cores:
        return f"the GPU, which runs the network and resizes: {on_gpu:,.0f} frames/s at most"
    share = on_cores / decoding
    parts = f"decode {share:.0%}, write {1 - share:.0%}"
    most = f"{on_cores:,.0f} frames/s at most, where the GPU would make {on_gpu:,.0f}"
    return f"the cores are shared: {parts}; {most}"


def rate(work: Callable[[], float], runs: int) -> Figure:
    """What `work` does a second, as it tells how much it did; once before, to warm up."""
    work()
    rates = []
    for _ in range(runs):
        start = time.perf_counter()
        done = work()
        rates.append(done / (time.perf_counter() - start))
    return figure(rates)


def flops(name: BackboneName) -> float:
    """Operations of a frame, those of the network's convolutions alone."""
    network = NETWORKS[name].build().to_empty(device="meta").eval()
    # Caffe's normalisation is written as a convolution, which is our choice and no part of the due.
    without = patch.object(bvlc_googlenet, "local_response_norm", lambda x: x)
    with without, FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, 3, 224, 224, device="meta"))
    return float(counter.get_total_flops())


def decoded(material: Material, runs: int) -> Figure:
    """Frames a second of the decoder processes that a device has, up to the parent."""
    parts = [material.clips[i : 20 * DECODERS : DECODERS] for i in range(DECODERS)]

    def read(clips: list[Path]) -> int:
        events = decode(clips, "pyav", "squash", 60, DEVICE)
        return sum(len(event) for _, event in events if isinstance(event, torch.Tensor))

    with ThreadPoolExecutor(DECODERS) as pool:
        return rate(lambda: sum(pool.map(read, parts)), runs)


def resized(runs: int) -> Figure:
    """Frames a second resized alone, as many at once as a decoder sends."""
    frames = torch.randint(0, 256, (BLOCK, 240, 320, 3), dtype=torch.uint8, device=DEVICE)

    def run() -> float:
        for _ in range(20):
            resize_tensor(frames, "squash")[0, 0, 0, 0].item()
        return 20 * BLOCK

    return rate(run, runs)


def passed(backbone: Backbone, frames: torch.Tensor, runs: int) -> Figure:
    """Frames a second of the network alone, on batches that are ready."""

    def run() -> float:
        waits = []
        for batch in torch.split(frames, BATCH):
            waits.append(backbone.start(batch))
            if len(waits) > under_way(BATCH, DEVICE):
                waits.pop(0)()
        for wait in waits:
            wait()
        return len(frames)

    return rate(run, runs)


def written(cubes: Cubes, runs: int) -> Figure:
    """Frames a second of features compressed by all cores and written."""

    def write() -> float:
        with tempfile.TemporaryDirectory() as folder:
            path = shard_path(Path(folder, "a.h5"), 0)
            path.parent.mkdir()
            writer = ShardWriter.claim(path, "zstd")
            assert writer is not None
            for _ in range(8):
                writer.append(cubes)
            writer.end_video(VideoRow(0))
            writer.close()
        return 8 * len(cubes)

    return rate(write, runs)


def side_by_side(
    name: BackboneName, material: Material, runs: int
) -> tuple[list[Extracted], list[float]]:
    """Whole extractions of all clips, and beside each the frames a second of the loop on a few."""
    runtime, precision = FASTEST
    ours, peers = [], []
    for _ in range(runs):
        ours.append(extracted(name, material, "--runtime", runtime, "--precision", precision))
        peers.append(looped(name, material))
    return ours, peers


def extracted(name: BackboneName, material: Material, *options: str) -> Extracted:
    """Runs `attnact features`, and before it once more up to where it would begin."""
    with tempfile.TemporaryDirectory() as folder:
        listing, cache = Path(folder, "clips.csv"), Path(folder, "clips.h5")
        with listing.open("w", newline="") as file:
            sides = ("train", "train", "test", "test")
            lines = [[clip, i % 2, sides[i % 4]] for i, clip in enumerate(material.clips)]
            csv.writer(file).writerows([["path", "label", "1"], *lines])
        weights = material.weights[name]
        command = [sys.executable, "-m", "attnact", "features", "folder", "--videos", listing]
        command += ["--out", cache, "--backbone", name, "--weights", weights, *options]
        run = partial(subprocess.run, cwd=ROOT, check=True, capture_output=True)
        start = seconds(lambda: run([*command, "--dry-run"]))
        whole = seconds(lambda: run(command))
        return Extracted(FeatureCache(cache).frames, whole, start)


def looped(name: BackboneName, material: Material) -> float:
    """Frames a second of the loop that people write."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "tests.bench.extraction_peer", name]
        command += [material.weights["bvlc_googlenet"]]
        command += [Path(folder, "features.h5"), *material.clips[: material.few]]
        told = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    frames, seconds = told.stdout.split()
    return int(frames) / float(seconds)


def material_of(folder: Path, quick: bool) -> Material:
    """Real clips and weights, or drawn and random ones; some frames of them ready."""
    clips = sorted((REAL / "videos" / "ut_interaction").glob("*.avi"))
    if not clips:
        (folder / "videos").mkdir()
        draw_videos(folder / "videos", folder / "list.csv", scenes=16)
        clips = sorted((folder / "videos").iterdir())
    caffes = REAL / "weights" / "bvlc_googlenet.safetensors"
    if not caffes.is_file():
        caffes = folder / "caffes.safetensors"
        safetensors.torch.save_file(bvlc_googlenet.BVLCGoogLeNet().state_dict(), caffes)
    clips, few = (clips[:8], 1) if quick else (again(clips, folder), 3)
    ready: list[torch.Tensor] = []
    for _, event in decode(clips[:8], "pyav", "squash", 60):
        if isinstance(event, torch.Tensor):
            ready.append(event)
    frames = torch.cat(ready)
    frames = frames[: len(frames) // BATCH * BATCH][: 8 * BATCH]
    torchvisions = folder / "torchvisions.safetensors"
    load_backbone("googlenet", "random", calibration=frames[:16]).save(torchvisions)
    weights = {"googlenet": torchvisions, "bvlc_googlenet": caffes}
    return Material(clips, few, weights, frames.to(DEVICE))


def again(clips: list[Path], folder: Path) -> list[Path]:
    """Enough clips: the same under other names."""
    more = [folder / f"{i}_{clips[i % len(clips)].name}" for i in range(len(clips), ENOUGH)]
    for i, link in enumerate(more):
        link.symlink_to(clips[i % len(clips)].resolve())
    return clips + more


def _load(
    name: BackboneName, material: Material, runtime: Runtime, precision: Precision
) -> Backbone:
    weights = material.weights[name]
    return load_backbone(name, weights, DEVICE, runtime, precision)
