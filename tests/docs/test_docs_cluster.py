"""What a large data set takes is arithmetic on the rates that stand beside it on the page."""

import re

from attnact.extract.plan import KIB_PER_FRAME, SHARD_FRAMES
from tests.bench.needs import SIZES
from tests.pages import page, rows

PAGE = "cluster.md"


def rate(after: str) -> float:
    """The number before these words on the page."""
    text = " ".join(page(PAGE).split("| Kinetics-400 | |")[0].split())
    (found,) = re.findall(rf"([\d.,]+) {after}", text)
    return float(found.replace(",", ""))


def test_the_rates_are_those_that_the_bench_wrote():
    """Its medians, by the rows of its tables."""
    written = page("performance.md").split("## On a GPU")[0]
    for told, row in (
        (rate("frames/s from files to cache"), r"bvlc_googlenet, files to cache, after its .*?"),
        (rate("frames/s decoded by"), "decode and resize, one process"),
        (rate("frames/s compressed and written"), "compress and write, bvlc_googlenet"),
        (rate("s\\. The sizes"), "training step, location, B 128, 3×512, bfloat16, 2 threads"),
    ):
        (found,) = re.findall(rf"^\| {row} \| ([\d.,]+)", written, re.M)
        assert told == float(found.replace(",", "")), row
    assert rate("KiB a frame on disk") == KIB_PER_FRAME["float16"]["zstd"]
    assert rate("with `--dtype") == KIB_PER_FRAME["uint8"]["zstd"]


def test_kinetics_is_reckoned_from_the_rates_on_the_page():
    (size,) = [it for it in SIZES if it.name == "Kinetics-400"]
    frames = size.frames
    whole, kib = rate("frames/s from files to cache"), rate("KiB a frame on disk")
    decode, write = rate("frames/s decoded by"), rate("frames/s compressed and written")
    epoch = size.videos / 128 * float(re.findall(r"128 clips in ([\d.]+) s", page(PAGE))[0])
    told = {row[0]: row[1] for row in rows(PAGE, "Kinetics-400")}
    expected = {
        "frames": f"{frames / 1e6:.1f} million",
        "shards, which is tasks": f"{frames / SHARD_FRAMES:,.0f}",
        "cache, float16": f"{frames * kib / 2**20:,.0f} GiB",
        "cache, uint8": f"{frames * rate('with `--dtype') / 2**20:,.0f} GiB",
        "features, one machine of two cores": f"{frames / whole / 3600:.0f} hours",
        "features, 16 such machines, if the shared folder keeps up with "
        f"{16 * whole * kib / 1024:.0f} MiB/s": f"{frames / whole / 16 / 3600:.1f} hours",
        "decoding alone": f"{frames / decode / 3600:.1f} core hours",
        "compressing and writing alone": f"{2 * frames / write / 3600:.1f} core hours",
        "an epoch of one clip a video, one machine of two cores": f"{epoch / 60:.0f} minutes",
        "features in memory, float16": f"{frames * 98 / 2**20:,.0f} GiB: trained from disk",
    }
    assert told == expected
    mib = f"{whole * kib / 1024:.1f} MiB"
    assert f"{whole:.0f} frames/s read {whole:.0f} frames of video and write {mib}" in page(PAGE)


def test_what_a_gpu_takes_is_reckoned_from_its_rate():
    text = " ".join(page(PAGE).split("**On GPUs:**")[1].split())
    (size,) = [it for it in SIZES if it.name == "Kinetics-400"]
    (made,) = re.findall(r"16 cores makes ([\d,]+) frames/s", text)
    hours = size.frames / float(made.replace(",", "")) / 3600
    assert f"that is {hours:.1f} hours of such a machine" in text
