"""How fast each part is on this machine, beside what people write instead and what binds.

    make bench         # everything; writes the tables of docs/performance.md
    make bench-quick   # two minutes: the first three, smaller; prints them
    python -m tests.bench training growth  # some of it

Measure with nothing else running: every figure is a median with the least and the most of several
runs, and a peer or a bound is measured in turn with what it is held against.
"""

import os
import platform
import re
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import click

from attnact.machine.resources import keep_freed_memory

PAGE = Path(__file__).resolve().parents[2] / "docs" / "performance.md"
SECTIONS = ("extraction", "cache", "training", "sweep", "growth", "needs")
HEADER = ("part", "here", "beside it", "bound", "")


@click.command()
@click.argument("sections", nargs=-1, type=click.Choice(SECTIONS))
@click.option("--quick", is_flag=True, help="Smaller, fewer runs, and no page is written.")
def main(sections: tuple[str, ...], quick: bool) -> None:
    """Measure, and write the tables of docs/performance.md."""
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # as the command line does
    import torch

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else processor()
    told = f"{device}, {os.cpu_count()} cores, torch {torch.__version__}"
    click.echo(told)
    for section in sections or SECTIONS[: 3 if quick else None]:
        click.echo(f"\n## {section}\n")
        if section not in ("extraction", "cache"):
            keep_freed_memory()  # as whatever trains does; the loops beside it gain as much
        module = import_module(f"tests.bench.{section}")
        header = getattr(module, "HEADER", HEADER)
        lines = list(echoed(table(header, module.rows(quick))))
        if not quick:
            place = f"{section} on a GPU" if torch.cuda.is_available() else section
            write(place, f"{told}:\n\n" + "\n".join(lines))


def table(header: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> Iterator[str]:
    """The rows in Markdown, each as soon as it is measured."""
    yield f"| {' | '.join(header)} |"
    yield "|---" * len(header) + "|"
    for row in rows:
        yield f"| {' | '.join(row)} |"


def echoed(lines: Iterator[str]) -> Iterator[str]:
    """The lines, shown as they come."""
    for line in lines:
        click.echo(line)
        sys.stdout.flush()
        yield line


def write(section: str, text: str) -> None:
    """Puts a table in the place of the page that is marked for it."""
    place = rf"(<!-- bench: {section} -->\n).*?(<!-- end -->)"
    page, count = re.subn(
        place,
        lambda found: f"{found[1]}{text}\n{found[2]}",
        PAGE.read_text(encoding="utf-8"),
        flags=re.S,
    )
    assert count == 1, f"{PAGE} has no place for {section}"
    PAGE.write_text(page, encoding="utf-8")


def processor() -> str:
    """The processor's name, as far as the system tells."""
    try:
        found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    except OSError:
        found = None
    return found[1] if found else platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
