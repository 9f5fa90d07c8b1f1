"""Many runs: sweep-lambda, table1, study."""

import sys
from collections.abc import Callable
from functools import cache as once
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import click

from attnact.commands.opening import find_cache, open_engine, open_features, run_folder
from attnact.commands.options import (
    Engine,
    FilePath,
    choices,
    config_option,
    device_option,
    engine_options,
    features_in_option,
    options_of,
)
from attnact.errors import RunError
from attnact.machine.progress import tell_failed
from attnact.train.config import TrainConfig


def grid_options(name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The options of every command that trains a grid, whose folder is `name` if not told."""
    options = (
        click.argument("cache", type=FilePath, required=False),
        click.option("--name", default=name, show_default=True, help="Folder in runs/CACHE."),
        click.option("--seeds", default="0", show_default=True, help="As in 0,1,2."),
        click.option("--folds", help="1,2, `all` or `leave-*`.  [default: the cache's first]"),
        features_in_option,
        device_option,
        engine_options,
        click.option("--tensorboard", is_flag=True, help="Also write TensorBoard's files."),
        config_option(TrainConfig),
    )

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


@click.command("sweep-lambda")
@grid_options("sweep-lambda")
@click.option("--lambdas", default="0,1,10", show_default=True, help="Attention penalties.")
@options_of(TrainConfig, without=("model", "attention_penalty", "seed", "fold"))
def sweep_lambda(lambdas: str, **options: Any) -> None:
    """Train with each λ, seed and fold; show what λ does.

    Stopped at any moment, the same command goes on. Writes a table (CSV, Markdown) and a picture.

    \b
    Example: attnact sweep-lambda hmdb51 --lambdas 0,1,10 --seeds 0,1,2 --folds all
    """
    from attnact.train.experiments.sweep import sweep_rows, write_sweep

    penalties = choices(lambdas, float)
    _show(write_sweep, _train(lambda config: sweep_rows(config, penalties), **options))


@click.command()
@grid_options("table1")
@options_of(TrainConfig, without=("model", "attention_penalty", "seed", "fold"))
def table1(**options: Any) -> None:
    """Train the paper's Table 1, baselines and all.

    Stopped at any moment, the same command goes on. Writes the table beside the paper's figures,
    and attention against each baseline on the same videos (CSV, Markdown), and a picture.

    \b
    Example: attnact table1 ucf11 --folds "leave-*" --seeds 0,1,2
    """
    from attnact.train.experiments.table1 import table1_rows, write_table1

    _show(write_table1, _train(table1_rows, **options))


@click.command()
@grid_options("table1")
@options_of(TrainConfig, without=("model", "attention_penalty", "seed", "fold"))
def study(**options: Any) -> None:
    """Answer five questions about the attention.

    Does it help? What does λ do? Where does it look? Does the frame rate matter? How stable is it?
    It asks the runs of `table1`, and trains those that are not there; give it the same options.

    \b
    Example: attnact study ucf11 --folds "leave-*" --seeds 0,1,2
    """
    from attnact.study import write_study
    from attnact.train.experiments.table1 import table1_rows

    it = _train(table1_rows, **options)
    _show(partial(write_study, it.open_store), it)


class Trained(NamedTuple):
    """A grid, and what it was trained on."""

    folder: Path
    cache: Any
    open_store: Callable[[], Any]
    grid: Any
    config: TrainConfig
    folds: list[str]


def _train(
    rows: Callable[[TrainConfig], dict[str, TrainConfig]],
    cache: Path | None,
    name: str,
    seeds: str,
    folds: str | None,
    features_in: str,
    device: str | None,
    engine: Engine,
    tensorboard: bool,
    **options: Any,
) -> Trained:
    from attnact.machine.devices import best_device
    from attnact.train.config import resolve
    from attnact.train.experiments.grid import train_grid, train_here

    found = find_cache(cache)
    config = resolve(options, found)
    wanted, all_seeds = rows(config), choices(seeds, int)
    chosen = choices(folds, str, list(found.folds)) if folds else [config.fold]
    folder = run_folder(found, name)
    if (folder / "config.json").exists():
        raise RunError(f"{folder}: is a run; use another --name")
    open_store = once(partial(open_features, found, chosen, features_in, device))
    with open_engine(engine, device) as cluster:
        if cluster is None:
            train = partial(train_here, found, open_store, best_device(device), tensorboard)
        else:
            from attnact.train.experiments.on_cluster import train_on

            train = partial(train_on, cluster, found.path, features_in, tensorboard)
        grid = train_grid(folder, found, train, wanted, all_seeds, chosen)
    return Trained(folder, found, open_store, grid, config, chosen)


def _show(write: Callable[..., str], it: Trained) -> None:
    """What failed, and then what is written of the rest."""
    for path, reason in it.grid.failures:
        tell_failed(path, reason)
    click.echo(write(it.folder, it.cache, it.grid, it.config, it.folds))
    if it.grid.failures:
        sys.exit(1)


COMMANDS: tuple[click.Command, ...] = (sweep_lambda, table1, study)
