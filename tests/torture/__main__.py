"""Hurts everything that can be hurt, and counts what was lost and what came out wrong.

    make torture                          # every kind; minutes on two cores
    python -m tests.torture rot --trials 300 --seed 1

The harness judges by itself: files are held against those of an undisturbed run, messages must be
one line, exit codes those that the documentation names. It ends with 1 if anything is wrong. The
rows are those of docs/reliability.md.
"""

import os
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path

import click

KINDS = ("kill", "growing", "memory", "disk", "rot", "input", "twice", "long")


@click.command()
@click.argument("kinds", nargs=-1, type=click.Choice(KINDS))
@click.option("--seed", default=0, show_default=True, help="Of every moment, byte and mutation.")
@click.option("--trials", type=int, help="Of each row.  [default: what minutes allow]")
def main(kinds: tuple[str, ...], seed: int, trials: int | None) -> None:
    """Hurt, resume, compare."""
    os.environ["OMP_NUM_THREADS"] = "1"  # read by torch: forks of one thread alone are sound
    from tests.torture.judging import HEADER

    start, wrong = time.monotonic(), 0
    click.echo(HEADER)
    for kind in kinds or KINDS:
        with tempfile.TemporaryDirectory(prefix="torture-") as folder:
            for row in import_module(f"tests.torture.{kind}").rows(Path(folder), seed, trials):
                click.echo(row.text())
                wrong += len(row.wrong) + len(row.lost)
                for found in row.lost + row.wrong:
                    click.echo(f"  {row.fault}: {found}", err=True)
    click.echo(f"seed {seed}, {time.monotonic() - start:.0f} s", err=True)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
