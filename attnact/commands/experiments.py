"""Many runs: sweep-lambda."""

import sys
from functools import partial
from pathlib import Path
from typing import Any

import click

from attnact.cli_options import FilePath, choices, options_of
from attnact.commands.opening import find_cache, open_features
from attnact.train.config import TrainConfig
from attnact.vocabulary import PLACES


@click.command("sweep-lambda")
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

    found = find_cache(cache)
    config = resolve(options, found)
    penalties, all_seeds = choices(lambdas, float), choices(seeds, int)
    chosen = choices(folds, str, list(found.folds)) if folds else [config.fold]
    folder = Path("runs", found.path.stem, name)
    store = open_features(found, chosen, features_in, device)
    tell = partial(click.echo, err=True)
    result = sweep(folder, found, store, config, penalties, all_seeds, chosen, tell)
    click.echo(report.write_sweep(folder, found, result, config, chosen))
    for path, reason in result.failures:
        click.echo(f"attnact: failed: {path}: {reason}", err=True)
    if result.failures:
        sys.exit(1)


COMMANDS: tuple[click.Command, ...] = (sweep_lambda,)
