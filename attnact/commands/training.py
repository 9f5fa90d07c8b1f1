"""One run: train, evaluate, import-released-model."""

from pathlib import Path
from typing import Any

import click

from attnact.commands.opening import find_cache, open_features, run_folder
from attnact.commands.options import (
    FilePath,
    config_option,
    device_option,
    features_in_option,
    given,
    options_of,
)
from attnact.machine.progress import warn
from attnact.train.config import TrainConfig


@click.command()
@click.argument("cache", type=FilePath, required=False)
@click.option("--name", help="Of the run, a folder in runs/CACHE.  [default: from the choices]")
@click.option("--resume", type=FilePath, help="Folder of a run to go on with; no other options.")
@features_in_option
@device_option
@click.option("--tensorboard", is_flag=True, help="Also write TensorBoard's files into the run.")
@config_option(TrainConfig)
@options_of(TrainConfig)
def train(
    cache: Path | None,
    name: str | None,
    resume: Path | None,
    features_in: str,
    device: str | None,
    tensorboard: bool,
    **options: Any,
) -> None:
    """Train the model on a cache, and test it.

    CACHE is a file, or the name of one in features/; it need not be given if there is only one.

    \b
    Example: attnact train hmdb51 --fold 2 --lambda 1
    Example: attnact train --config runs/hmdb51/first/config.json --seed 1
    Example: attnact train --resume runs/hmdb51/first
    Example: torchrun --nproc-per-node 2 -m attnact train hmdb51
    """
    from attnact.machine import ranks
    from attnact.train import loop, runs

    if resume is not None and (given(options) or cache or name):
        raise click.UsageError("--resume takes every choice from the run; give no others")
    with ranks.joined(device) as own_device:
        if resume is not None:
            run = ranks.from_first(lambda: runs.open_run(resume))
            found = run.open_cache()
            store = open_features(found, [run.config.fold], features_in, own_device)
        else:
            found = find_cache(cache)
            path, config = ranks.from_first(lambda: _choose(found, name, options))
            store = open_features(found, [config.fold], features_in, own_device)
            run = ranks.from_first(lambda: runs.create_run(path, config, found))
        try:
            result = loop.train(run, found, store, tensorboard)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"attnact train --resume {run.folder}") from None
        if ranks.rank() == 0:
            _show_result(run.folder, result)


def _choose(cache: Any, name: str | None, wanted: dict[str, Any]) -> tuple[Path, TrainConfig]:
    """The folder and the choices of a new run, of which nothing is written yet."""
    from attnact.train import runs
    from attnact.train.config import resolve, unread
    from attnact.train.selection import sides_of

    config = resolve(wanted, cache)
    if ignored := unread(wanted, config):
        what = "location attention" if config.model == "attention" else f"model {config.model}"
        warn(f"{what} does not use {', '.join(ignored)}")
    folder = Path("runs", cache.path.stem)
    path = runs.free_name(folder, config) if name is None else run_folder(cache, name)
    if (path / "config.json").exists():
        raise runs.taken(path)
    sides_of(cache, config)
    return path, config


@click.command()
@click.argument("run", type=FilePath)
@features_in_option
@device_option
def evaluate(run: Path, features_in: str, device: str | None) -> None:
    """Score a run's test videos again, class by class.

    Writes predictions.csv, and confusion.csv and .png or average_precision.csv, into the run.

    \b
    Example: attnact evaluate runs/hmdb51/first
    """
    from attnact.machine import ranks
    from attnact.train import runs
    from attnact.train.evaluate import evaluate as score

    with ranks.joined(device) as own_device:
        found = runs.open_run(run)
        cache = found.open_cache()
        store = open_features(cache, [found.config.fold], features_in, own_device)
        result = score(found, cache, store)
        if ranks.rank() == 0:
            _show_result(found.folder, result)
            broken_down = "average_precision.csv" if cache.multi_label else "confusion.png"
            click.echo(found.folder / broken_down)


@click.command("import-released-model")
@click.argument("archive", type=FilePath)
@click.argument("cache", type=FilePath, required=False)
@click.option("--name", default="released", show_default=True, help="Of the run, in runs/CACHE.")
@click.option("--fold", help="Fold to score.  [default: the cache's first]")
@click.option("--temperature-inverse", default=1.0, show_default=True, help="As it was trained.")
def import_released_model(
    archive: Path, cache: Path | None, name: str, fold: str | None, temperature_inverse: float
) -> None:
    """Make a run of a model of the released Theano code.

    ARCHIVE is its model.npz. The classes of CACHE must stand in the model's order. The run can be
    evaluated and drawn, but not trained further.

    \b
    Example: attnact import-released-model model_hmdb51.npz hmdb51
    """
    from attnact.train.imported import import_run

    found = find_cache(cache)
    folder = run_folder(found, name)
    import_run(archive, folder, found, fold, temperature_inverse)
    click.echo(f"{folder} holds the model; next: attnact evaluate {folder}")


def _show_result(folder: Path, result: dict[str, Any]) -> None:
    score = f"{result['metric']} {result['value']:.4f} on {result['videos']} videos"
    after = ""
    if epochs := result.get("epochs"):
        after = f", after {epochs} epoch{'s' if epochs > 1 else ''}"
        if held := result.get("held_out"):
            after += f" (chosen by {held} held-out video{'s' if held > 1 else ''})"
    click.echo(f"{folder}: {score}{after}")
    if result["random_weights"]:
        click.echo("the features are of random weights, so the figure says little", err=True)


COMMANDS: tuple[click.Command, ...] = (train, evaluate, import_released_model)
