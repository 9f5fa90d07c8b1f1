"""What is in a feature cache: cache info, cache verify, and the released code's files."""

import sys
from pathlib import Path

import click

from attnact.commands.opening import find_cache
from attnact.commands.options import FilePath, InOrder
from attnact.vocabulary import ORDERS, VALIDS, Order, Split, Valid

IN_ORDER = click.option(
    "--order",
    type=click.Choice(ORDERS),
    default=ORDERS[0],
    show_default=True,
    help="Of a row's values: fortran as MATLAB made the released files, c as numpy writes cubes.",
)


@click.group(cls=InOrder)
def cache() -> None:
    """Look into a feature cache, check it, exchange it."""


@cache.command()
@click.argument("cache", type=FilePath, required=False)
def info(cache: Path | None) -> None:
    """Show what a cache holds and how it was made.

    \b
    Example: attnact cache info hmdb51
    """
    found = find_cache(cache)
    kind = "multi-label" if found.multi_label else "single-label"
    click.echo(f"{found.path}: {found.name}, {len(found.classes)} classes, {kind}")
    click.echo(
        f"  {len(found.paths)} videos, {found.frames:,} frames, {found.disk_bytes():,} bytes"
    )
    click.echo(f"  folds {', '.join(found.folds)}; {len(found.failures)} videos failed")
    if unknown := int((found.frame_rates == 0).sum()):
        click.echo(f"  {unknown} without a frame rate that can be, which --fps takes to be 30")
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
    """Read every feature and hold it against its checksum.

    \b
    Example: attnact cache verify hmdb51
    """
    from attnact.machine.progress import progress

    found = find_cache(cache)
    problems = []
    with progress("verifying", len(found.paths), "videos") as advance:
        for problem in found.verify():
            problems += [problem] if problem else []
            advance(1, f"{len(problems)} damaged")
    for problem in problems:
        click.echo(f"attnact: {problem}", err=True)
    click.echo(f"{found.path}: {len(problems)} of {len(found.paths)} videos damaged")
    sys.exit(1 if problems else 0)


@cache.command()
@click.argument("folder", metavar="DIR", type=FilePath)
@IN_ORDER
@click.option("--out", type=FilePath, help="Cache to write.  [default: features/NAME.h5]")
@click.option("--name", help="Of the data set, such as hmdb51.  [default: that of DIR]")
def import_released(folder: Path, order: Order, out: Path | None, name: str | None) -> None:
    """Make a cache of files of the released Theano code.

    DIR holds train_features.h5, train_framenum.txt, train_filename.txt and train_labels.txt, the
    same for test, and perhaps for valid. The cache holds float32, to the bit; its one fold trains
    on train and tests on test. Stopped at any moment, the same command goes on.

    \b
    Example: attnact cache import-released ~/hmdb/dataset --name hmdb51
    """
    from attnact.released.importing import import_released as make

    name = name or folder.resolve().name
    made = make(folder, out or Path("features", f"{name}.h5"), name, order)
    unused = int((made.folds["1"] == Split.UNUSED).sum())
    click.echo(f"{made.path}: {len(made.paths)} videos, {made.frames:,} frames")
    click.echo(f"  {unused} valid videos are on neither side of fold 1; every video is a group")


@cache.command()
@click.argument("cache", type=FilePath)
@click.argument("folder", metavar="DIR", type=FilePath)
@IN_ORDER
@click.option("--fold", help="Which videos are train and test.  [default: the cache's first]")
@click.option(
    "--valid",
    type=click.Choice(VALIDS),
    help="Also write valid files: the test videos again, or those that the fold does not use.",
)
def export_released(
    cache: Path, folder: Path, order: Order, fold: str | None, valid: Valid | None
) -> None:
    """Write the feature files of the released Theano code.

    Its UCF-11 and Hollywood2 readers also want valid files, which are written with --valid alone;
    for HMDB-51 it takes the test files in their place. A frame takes 196 KiB.

    \b
    Example: attnact cache export-released hmdb51 dataset --fold 1
    """
    from attnact.released.exporting import export_released as write

    written = write(find_cache(cache), folder, order, fold, valid)
    counts = ", ".join(f"{count} videos in {part}" for part, count in written.items())
    click.echo(f"{folder}: {counts}")


COMMANDS: tuple[click.Command, ...] = (cache,)
