"""What is in a feature cache: cache info, cache verify."""

import sys
from pathlib import Path

import click

from attnact.cli_options import FilePath
from attnact.commands.opening import find_cache


@click.group()
def cache() -> None:
    """Look into a feature cache, or check every byte of it."""


@cache.command()
@click.argument("cache", type=FilePath, required=False)
def info(cache: Path | None) -> None:
    """Show what a cache holds and how it was made."""
    found = find_cache(cache)
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


COMMANDS: tuple[click.Command, ...] = (cache,)
