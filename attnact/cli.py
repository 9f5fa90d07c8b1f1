"""The command line: what people type, and how what goes wrong is told.

    attnact datasets → download → features → train → evaluate → sweep-lambda → visualize

A command imports its stage when it runs, so that `attnact --help` answers at once.
"""

import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

import click

from attnact import __version__
from attnact.cli_options import choices, given, options_of
from attnact.errors import AttnactError
from attnact.extract.config import ExtractConfig
from attnact.train.config import TrainConfig
from attnact.vocabulary import DATASETS, PLACES

SOME_FAILED, INTERRUPTED = 3, 130

FilePath = click.Path(path_type=Path)


class Messages(click.Group):
    """Turns errors into one line on stderr and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command; 1 for what could not be done, 2 for bad arguments, 130 for Ctrl-C."""
        try:
            return super().invoke(ctx)
        except AttnactError as error:
            self._say(f"error: {error}")
            ctx.exit(1)
        except ValueError as error:
            raise click.UsageError(str(error)) from error
        except KeyboardInterrupt:
            self._say("interrupted; nothing that was finished is lost")
            ctx.exit(INTERRUPTED)

    @staticmethod
    def _say(line: str) -> None:
        click.echo(f"attnact: {line}", err=True)


@click.group(cls=Messages, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def main() -> None:
    """Action recognition with visual attention: videos → feature cubes → a soft-attention LSTM.

    The way through: datasets, download, features, train, evaluate, sweep-lambda, visualize.
    `attnact demo` goes all of it on videos that it draws itself.
    """
    # Read by torch when it first makes a tensor: large ones then lie in huge pages. A step of
    # context attention on a CPU otherwise spends a third of its time on fresh pages.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


@main.command()
def datasets() -> None:
    """List the data sets, and what of them is on this disk."""
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


@main.command()
@click.argument("dataset", type=click.Choice(DATASETS[:3]))
@click.option("--to", type=FilePath, help="Folder to unpack into.  [default: data/DATASET]")
def download(dataset: str, to: Path | None) -> None:
    """Fetch and unpack what can still be fetched of a data set.

    Stopped at any point, the same command goes on.
    """
    from attnact.extract.datasets import DATASETS as INFOS
    from attnact.extract.download import download as fetch
    from attnact.progress import transfers

    target = to or Path("data", dataset)
    with transfers() as report:
        fetch(INFOS[dataset], target, report)
    click.echo(f"{dataset} is in {target}; next: attnact features {dataset} --videos {target}")


@main.command()
@click.argument("dataset", type=click.Choice(DATASETS))
@click.option("--videos", type=FilePath, help="Folder or CSV list.  [default: data/DATASET]")
@click.option("--out", type=FilePath, help="Cache to write.  [default: features/NAME.h5]")
@click.option("--folds", default=5, show_default=True, help="Of a folder or list without folds.")
@click.option("--seed", default=0, show_default=True, help="Of those folds.")
@click.option("--dry-run", is_flag=True, help="Show the plan and stop.")
@options_of(ExtractConfig)
def features(
    dataset: str,
    videos: Path | None,
    out: Path | None,
    folds: int,
    seed: int,
    dry_run: bool,
    **options: Any,
) -> None:
    """Make feature cubes of every frame of a data set's videos.

    DATASET is `folder` for your own videos: a folder with a sub-folder for each class, or a CSV
    with path,label[,group][,fold columns]. Killed at any moment, the same command goes on.
    """
    from attnact.extract import pipeline
    from attnact.extract.datasets import load_dataset
    from attnact.progress import progress

    root = videos or Path("data", dataset)
    name = root.resolve().stem if dataset == "folder" else dataset
    cache = out or Path("features", f"{name}.h5")
    found = load_dataset(dataset, root, folds, seed)
    for warning in found.warnings:
        click.echo(f"attnact: warning: {warning}", err=True)
    job = pipeline.prepare(found, cache, ExtractConfig(**given(options)))
    click.echo(pipeline.describe(job), err=True)
    if dry_run:
        return
    done = failed = 0
    with progress("features", pipeline.frames_left(job), "frames") as advance:

        def report(frames: int, ended: int, failures: int) -> None:
            nonlocal done, failed
            done, failed = done + ended, failed + failures
            advance(frames, f"{done} videos, {failed} failed")

        made = pipeline.extract(job, report)
    if made is None:
        click.echo("the rest is being made by other processes; the last one finishes the cache")
        return
    click.echo(f"{cache}: {len(made.paths)} videos, {made.frames:,} frames")
    if made.provenance["weights_are_random"] == "true":
        click.echo(f"attnact: warning: {cache} holds features of random weights", err=True)
    for path, reason in made.failures:
        click.echo(f"attnact: failed: {path}: {reason}", err=True)
    if made.failures:
        click.echo(f"{len(made.failures)} of {len(found.videos)} videos failed", err=True)
        sys.exit(SOME_FAILED)


@main.group()
def cache() -> None:
    """Look into a feature cache, or check every byte of it."""


@cache.command()
@click.argument("cache", type=FilePath, required=False)
def info(cache: Path | None) -> None:
    """Show what a cache holds and how it was made."""
    found = _cache(cache)
    kind = "multi-label" if found.multi_label else "single-label"
    click.echo(f"{found.path}: {found.name}, {len(found.classes)} classes, {kind}")
    click.echo(
        f"  {len(found.paths)} videos, {found.frames:,} frames, {found.disk_bytes():,} bytes"
    )
    click.echo(f"  folds {', '.join(found.folds)}; {len(found.failures)} videos failed")
    for name, value in found.provenance.items():
        click.echo(f"  {name}: {value}")
    for path, reason in found.failures:
        click.echo(f"  failed: {path}: {reason}")
    for path, row in zip(found.paths, found.rows, strict=True):
        if abs(row.frames - row.declared_frames) > 0.05 * row.frames and row.declared_frames:
            click.echo(f"  {path}: {row.frames} frames, its header says {row.declared_frames}")


@cache.command()
@click.argument("cache", type=FilePath, required=False)
def verify(cache: Path | None) -> None:
    """Read every feature and hold it against its checksum."""
    from attnact.progress import progress

    found = _cache(cache)
    problems = []
    with progress("verifying", len(found.paths), "videos") as advance:
        for problem in found.verify():
            problems += [problem] if problem else []
            advance(1, f"{len(problems)} damaged")
    for problem in problems:
        click.echo(f"attnact: {problem}", err=True)
    click.echo(f"{found.path}: {len(problems)} of {len(found.paths)} videos damaged")
    sys.exit(1 if problems else 0)


@main.command()
@click.argument("cache", type=FilePath, required=False)
@click.option("--name", help="Of the run, a folder in runs/CACHE.  [default: from the choices]")
@click.option("--resume", type=FilePath, help="Folder of a run to go on with; no other options.")
@click.option("--features-in", type=click.Choice(PLACES), default="auto", show_default=True)
@click.option("--device", help="As torch names it.  [default: the GPU if there is one]")
@click.option("--no-validation", is_flag=True, help="Train on all; the epochs are not chosen.")
@options_of(TrainConfig)
def train(
    cache: Path | None,
    name: str | None,
    resume: Path | None,
    features_in: str,
    device: str | None,
    no_validation: bool,
    **options: Any,
) -> None:
    """Train the soft-attention LSTM on a cache, and score the test videos.

    CACHE is a file, or the name of one in features/; it need not be given if there is only one.
    """
    from attnact.train import loop, runs
    from attnact.train.config import resolve

    if resume is not None:
        if given(options) or cache or name or no_validation:
            raise click.UsageError("--resume takes every choice from the run; give no others")
        run = runs.open_run(resume)
        found = run.open_cache()
    else:
        found = _cache(cache)
        wanted = {**options, **({"validation": 0.0} if no_validation else {})}
        config = resolve(wanted, found)
        folder = Path("runs", found.path.stem)
        path = folder / name if name else runs.free_name(folder, config)
        run = runs.create_run(path, config, found)
    try:
        store = _store(found, [run.config.fold], features_in, device)
        result = loop.train(run, found, store)
    except KeyboardInterrupt:
        click.echo(f"go on with: attnact train --resume {run.folder}", err=True)
        raise
    _show_result(run.folder, result)


@main.command()
@click.argument("run", type=FilePath)
@click.option("--features-in", type=click.Choice(PLACES), default="auto", show_default=True)
@click.option("--device", help="As torch names it.  [default: the GPU if there is one]")
def evaluate(run: Path, features_in: str, device: str | None) -> None:
    """Score the test videos of a run as the paper does; write the scores and a breakdown.

    Writes predictions.csv, and confusion.csv and .png or average_precision.csv, into the run.
    """
    from attnact.train import report, runs

    found = runs.open_run(run)
    cache = found.open_cache()
    result = report.evaluate(found, cache, _store(cache, [found.config.fold], features_in, device))
    _show_result(found.folder, result)


@main.command("sweep-lambda")
@click.argument("cache", type=FilePath, required=False)
@click.option("--name", default="sweep-lambda", show_default=True, help="Folder in runs/CACHE.")
@click.option("--lambdas", default="0,1,10", show_default=True, help="Attention penalties.")
@click.option("--seeds", default="0", show_default=True, help="As in 0,1,2.")
@click.option("--folds", help="As in 1,2,3, or `all`.  [default: the cache's first]")
@click.option("--features-in", type=click.Choice(PLACES), default="auto", show_default=True)
@click.option("--device", help="As torch names it.  [default: the GPU if there is one]")
@options_of(TrainConfig, without=("attention_penalty", "seed", "fold"))
def sweep_lambda(
    cache: Path | None,
    name: str,
    lambdas: str,
    seeds: str,
    folds: str | None,
    features_in: str,
    device: str | None,
    **options: Any,
) -> None:
    """Train with each attention penalty λ, seed and fold; show what λ does.

    Stopped at any point, the same command goes on. Writes a table (CSV, Markdown) and a picture.
    """
    from attnact.train import report
    from attnact.train.config import resolve
    from attnact.train.sweep import sweep

    found = _cache(cache)
    config = resolve(options, found)
    penalties, all_seeds = choices(lambdas, float), choices(seeds, int)
    chosen = choices(folds, str, list(found.folds)) if folds else [config.fold]
    folder = Path("runs", found.path.stem, name)
    store = _store(found, chosen, features_in, device)
    tell = partial(click.echo, err=True)
    result = sweep(folder, found, store, config, penalties, all_seeds, chosen, tell)
    click.echo(report.write_sweep(folder, found, result, config, chosen))
    for path, reason in result.failures:
        click.echo(f"attnact: failed: {path}: {reason}", err=True)
    if result.failures:
        sys.exit(1)


@main.command()
@click.argument("run", type=FilePath)
@click.argument("videos", nargs=-1)
@click.option("--out", type=FilePath, help="Folder for the pictures.  [default: RUN/attention]")
def visualize(run: Path, videos: tuple[str, ...], out: Path | None) -> None:
    """Draw frames of test videos with the run's attention over them.

    VIDEOS are paths as the cache has them; without any, one test video of each class.
    """
    from attnact.attend import attention_strips

    for picture in attention_strips(run, videos, out or run / "attention"):
        click.echo(picture)


@main.command()
@click.option("--to", type=FilePath, default="demo", show_default=True, help="Folder for it all.")
def demo(to: Path) -> None:
    """Draw videos, and go the whole way on them: features, training, sweep, pictures."""
    from attnact.demo import run_demo

    run_demo(to)


def _cache(path: Path | None) -> Any:
    """The cache that is meant: a file, a name in features/, or the only one there."""
    from attnact.errors import CacheError
    from attnact.features import FeatureCache

    folder = Path("features")
    if path is not None:
        named = folder / f"{path}.h5"
        return FeatureCache(named if not path.exists() and named.exists() else path)
    found = sorted(folder.glob("*.h5"))
    if not found:
        raise CacheError(
            "no cache in features/; make one with `attnact features`, or name its file"
        )
    if len(found) > 1:
        names = ", ".join(file.stem for file in found)
        raise CacheError(f"several caches in features/; name one of {names}")
    return FeatureCache(found[0])


def _store(cache: Any, folds: list[str], place: str, device: str | None) -> Any:
    """The features of the videos of some folds, and a line that says where they are."""
    import torch

    from attnact.train.store import describe, open_store, videos_in

    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    videos = videos_in(cache, folds)
    store = open_store(cache, videos, place, where)  # type: ignore[arg-type]  # a checked choice
    click.echo(f"{cache.path}: {describe(cache, videos, store)}; training on {where}", err=True)
    return store


def _show_result(folder: Path, result: dict[str, Any]) -> None:
    click.echo(f"{folder}: {result['metric']} {result['value']:.4f} on {result['videos']} videos")
    if result["random_weights"]:
        click.echo("the features are of random weights, so the figure says little", err=True)
