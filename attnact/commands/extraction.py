"""Videos in, feature cubes out: datasets, download, features."""

import shlex
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import click

from attnact.commands.opening import open_engine
from attnact.commands.options import Engine, FilePath, engine_options, given, options_of
from attnact.extract.config import ExtractConfig
from attnact.machine.progress import note, progress, tell_failed, transfers, warn
from attnact.vocabulary import DATASETS

SOME_FAILED = 3  # exit code


@click.command()
def datasets() -> None:
    """List the data sets, and what is on this disk.

    \b
    Example: attnact datasets
    """
    from attnact.extract.datasets import DATASETS as INFOS

    for info in INFOS.values():
        videos, cache = Path("data", info.name), Path("features", f"{info.name}.h5")
        click.secho(f"{info.name}: {info.title}", bold=True)
        if info.videos is not None:
            click.echo(f"  {info.videos} videos, {info.classes} classes, metric {info.metric}")
        click.echo(f"  folds    {info.folds}")
        click.echo(f"  layout   {info.layout}")
        for archive in info.archives:
            click.echo(f"  archive  {archive.url}")
        if info.homepage:
            click.echo(f"  home     {info.homepage}")
            click.echo(f"  videos   {videos}: {'on disk' if videos.is_dir() else 'not on disk'}")
            click.echo(f"  cache    {cache}: {'made' if cache.is_file() else 'not made'}")
        else:
            click.echo("  videos   wherever you keep them; the cache is features/NAME.h5")


@click.command()
@click.argument("dataset", type=click.Choice(DATASETS))
@click.option("--to", type=FilePath, help="Folder to unpack into.  [default: data/DATASET]")
def download(dataset: str, to: Path | None) -> None:
    """Fetch and unpack a data set.

    Stopped at any moment, the same command goes on.

    \b
    Example: attnact download hmdb51
    """
    from attnact.extract.datasets import DATASETS as INFOS
    from attnact.extract.datasets.download import download as fetch

    target = to or Path("data", dataset)
    with transfers() as report:
        fetch(INFOS[dataset], target, report)
    click.echo(f"{dataset} is in {target}; next: attnact features {dataset} --videos {target}")


def _known_dataset(context: click.Context, parameter: click.Parameter, name: str) -> str:
    """Refuses what is none; whoever names their own videos in its place is told where they go."""
    if name not in DATASETS and Path(name).exists():
        raise click.BadParameter(
            f"{name!r} is no data set; for videos of your own type: "
            f"attnact features folder --videos {shlex.quote(name)}"
        )
    known: str = click.Choice(DATASETS).convert(name, parameter, context)
    return known


@click.command()
@click.argument("dataset", metavar="DATASET", callback=_known_dataset)
@click.option("--videos", type=FilePath, help="Folder or CSV list.  [default: data/DATASET]")
@click.option("--out", type=FilePath, help="Cache to write.  [default: features/NAME.h5]")
@click.option("--folds", default=5, show_default=True, help="Of a folder or list without any.")
@click.option("--seed", default=0, show_default=True, help="Of those folds.")
@click.option("--dry-run", is_flag=True, help="Show the plan and stop.")
@click.option("--devices", help="`all`, or as in cuda:0,cuda:1: a process for each, one cache.")
@engine_options
@options_of(ExtractConfig)
def features(
    dataset: str,
    videos: Path | None,
    out: Path | None,
    folds: int,
    seed: int,
    dry_run: bool,
    devices: str | None,
    engine: Engine,
    **options: Any,
) -> None:
    """Make feature cubes of every frame of videos.

    DATASET is ucf11, hmdb51, hollywood2, or `folder` for your own videos: a folder with a
    sub-folder for each class, or a CSV with path,label[,group][,fold columns]. Stopped at any
    moment, the same command goes on.

    \b
    Example: attnact features hmdb51 --videos /data/hmdb51
    Example: attnact features folder --videos clips.csv --dry-run
    Example: attnact features hmdb51 --devices all
    """
    from attnact.extract.datasets import load_dataset

    if devices and (options["device"] or engine.name != "local"):
        raise ValueError("--devices is in place of --device, and for one machine")
    config = ExtractConfig(**given(options))
    root = videos or Path("data", dataset)
    cache = out or _usual_cache(dataset, root.resolve())
    found = load_dataset(dataset, root, folds, seed)
    for warning in found.warnings:
        warn(warning)
    with open_engine(engine, config.device) as cluster:
        if cluster is None:
            text, frames, extract = _here(found, cache, config, devices)
        else:
            from attnact.extract.on_cluster import RemoteExtraction

            job = RemoteExtraction(cluster, found, cache, config, dry_run)
            text, frames, extract = job.description, job.frames_left, job.extract
        (click.echo if dry_run else note)(text)
        if dry_run:
            return
        made = _watch(frames, extract)
    if made is None:
        click.echo("the rest is being made by other processes; the last one finishes the cache")
        return
    asked_for = set(found.paths)
    failures = [failed for failed in made.failures if failed[0] in asked_for]
    _tell(cache, made, failures, len(asked_for))
    if failures:
        sys.exit(SOME_FAILED)


def _usual_cache(dataset: str, place: Path) -> Path:
    """Of a data set its name; of a folder or list of videos, the one of that."""
    own = place.stem if place.is_file() else place.name
    return Path("features", f"{own if dataset == 'folder' else dataset}.h5")


def _tell(cache: Path, made: Any, failures: list[tuple[str, str]], count: int) -> None:
    """What the cache has become of so many videos, and what is not as it should be."""
    from attnact.extract.datasets.disk import some

    click.echo(f"{cache}: {len(made.paths)} videos, {made.frames:,} frames")
    if made.random_weights:
        warn(f"{cache} holds features of random weights")
    rates = zip(made.paths, made.frame_rates, strict=True)
    if unknown := [path for path, rate in rates if not rate]:
        warn(f"{some(unknown)}: no frame rate that can be, taken to be 30")
    if others := [it for i, it in enumerate(made.paths) if made.changed(i)]:
        what = f"{some(others)}: another file than when its features were made"
        warn(f"{what}; to make them anew, {_delete_shards(cache, others)} and type it again")
    for path, reason in failures:
        tell_failed(path, reason)
    if failures:
        click.echo(f"{len(failures)} of {count} videos failed", err=True)
        note(
            f"the cache is whole without them, so leave them there; when they are mended, delete "
            f"{cache} (not the shards) and type it again, which makes it another cache to its runs"
        )


def _delete_shards(cache: Path, videos: list[str]) -> str:
    from attnact.cache.shards import shard_path
    from attnact.extract.plan import read_plan

    plan = read_plan(cache)
    assert plan is not None
    paths = [shard_path(cache, shard) for shard in plan.shards_of(videos)]
    return f"delete {', '.join(path.name for path in paths)} in {paths[0].parent}"


def _here(found: Any, cache: Path, config: ExtractConfig, devices: str | None) -> Any:
    """The plan in words, the frames that are left, and what makes them in this process."""
    from attnact.extract import pipeline
    from attnact.extract.on_devices import make_on_devices, parse_devices

    names = parse_devices(devices) if devices else []
    others = names[1:]
    if names:
        config = replace(config, device=names[0])
    job = pipeline.prepare(found, cache, config, 1 + len(others))
    make = partial(make_on_devices, others) if others else pipeline.make_here
    text = pipeline.describe(job, 1 + len(others))
    return text, pipeline.frames_left(job), partial(pipeline.extract, job, make=make)


def _watch(frames: int, extract: Callable[..., Any]) -> Any:
    """Extracts, with a line that says how far it is."""
    done = failed = 0
    with progress("features", frames, "frames") as advance:

        def report(more: int, ended: int, failures: int) -> None:
            nonlocal done, failed
            done, failed = done + ended, failed + failures
            advance(more, f"{done} videos, {failed} failed")

        return extract(report=report)


COMMANDS: tuple[click.Command, ...] = (
    datasets,
    download,
    features,
)
