"""What runs came to, on a page: report."""

from pathlib import Path

import click

from attnact.commands.options import FilePath, device_option


@click.command()
@click.argument("runs", type=FilePath, nargs=-1, required=True, metavar="RUN_OR_FOLDER...")
@click.option(
    "-o", "--out", type=FilePath, default="report.html", show_default=True, help="Page to write."
)
@click.option(
    "--videos", type=click.IntRange(0), default=24, show_default=True, help="Of the page, at most."
)
@device_option
def report(runs: tuple[Path, ...], out: Path, videos: int, device: str | None) -> None:
    """Compare runs on one HTML page with its videos.

    A folder stands for all runs in it, at any depth, with their Table 1, λ sweep and study. The
    page is one file that opens from disk and asks the network nothing.

    \b
    Example: attnact report runs/hmdb51/first runs/hmdb51/table1 -o hmdb51.html
    """
    from attnact.machine.devices import best_device
    from attnact.page.write import write_page

    if out.suffix.lower() not in (".html", ".htm"):
        raise click.UsageError(f"--out {out} is no page; as in report.html")

    for note in write_page(runs, out, videos, best_device(device)):
        click.echo(note, err=True)
    click.echo(out)


COMMANDS: tuple[click.Command, ...] = (report,)
