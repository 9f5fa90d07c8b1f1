"""The command line: what people type, and how what goes wrong is told.

    attnact datasets → download → features → train → evaluate → visualize
                                           → sweep-lambda, table1 → study
                                           → report

The commands themselves are in `commands`.
"""

import os
from pathlib import Path
from typing import Any

import click

from attnact import __version__
from attnact.cli_options import FilePath
from attnact.commands import caches, experiments, extraction, reporting, training
from attnact.errors import AttnactError

FAILED, INTERRUPTED = 1, 130


class Messages(click.Group):
    """Turns errors into one line on stderr and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command; 1 for what could not be done, 2 for bad arguments, 130 for Ctrl-C."""
        try:
            return super().invoke(ctx)
        except AttnactError as error:
            self._say(f"error: {error}")
            ctx.exit(FAILED)
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

    The way through: datasets, download, features, train, evaluate, visualize; then many runs:
    sweep-lambda, table1, study; and a page of them: report.
    `attnact demo` goes all of it on videos that it draws itself.
    """
    # Read by torch when it first makes a tensor: large ones then lie in huge pages. A step of
    # context attention on a CPU otherwise spends a third of its time on fresh pages.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


@main.command()
@click.option("--to", type=FilePath, default="demo", show_default=True, help="Folder for it all.")
def demo(to: Path) -> None:
    """Draw videos, and go the whole way on them: features, training, sweep, pictures."""
    from attnact.demo import run_demo

    run_demo(to)


for module in (extraction, caches, training, experiments, reporting):
    for command in module.COMMANDS:
        main.add_command(command)
