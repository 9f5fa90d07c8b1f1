"""The command line: what people type, and how what goes wrong is told.

    attnact datasets → download → features → train → evaluate → predict, visualize
                                           → sweep-lambda, table1 → study
                                           → report

The commands themselves are in `commands`.
"""

import os
import traceback
from typing import Any

import click

from attnact import __version__
from attnact.commands import (
    caches,
    demonstrating,
    experiments,
    extraction,
    predicting,
    reporting,
    training,
)
from attnact.commands.options import InOrder
from attnact.errors import AttnactError
from attnact.machine import ranks
from attnact.machine.interrupts import heard
from attnact.machine.progress import be_quiet

FAILED, USAGE, INTERRUPTED = 1, 2, 130


class Messages(InOrder):
    """Turns errors into one line on stderr and an exit code."""

    def main(self, *arguments: Any, **extra: Any) -> Any:
        """As click's, to the end of the process."""
        try:
            return super().main(*arguments, **extra)
        except SystemExit as end:
            ranks.leave(end.code)
            raise

    def make_context(self, *args: Any, **options: Any) -> click.Context:
        """Reads the command line; 130 for Ctrl-C, for which click has 1."""
        try:
            return super().make_context(*args, **options)
        except KeyboardInterrupt:
            raise click.exceptions.Exit(INTERRUPTED) from None

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command; 1 for what could not be done, 2 for bad arguments, 130 for Ctrl-C."""
        try:
            with heard():
                return super().invoke(ctx)
        except (AttnactError, OSError, MemoryError, RuntimeError) as error:
            line = _in_a_line(error)
            if not line:
                raise
            if ctx.params["verbose"]:
                traceback.print_exc()
            self._say(f"error: {line}")
            ctx.exit(FAILED)
        except (ValueError, click.UsageError) as error:
            if not ranks.speaks():
                ctx.exit(USAGE)
            if isinstance(error, click.UsageError):
                raise
            if ctx.params["verbose"]:
                traceback.print_exc()
            raise click.UsageError(self._with_flag(ctx, str(error))) from error
        except KeyboardInterrupt as error:
            how = str(error) or "type the same command again"
            self._say(f"interrupted; nothing that was finished is lost. To go on: {how}")
            ctx.exit(INTERRUPTED)

    def _with_flag(self, ctx: click.Context, text: str) -> str:
        """What is wrong with a choice, which a config calls by another name than people type."""
        name, _, rest = text.partition(" ")
        command = self.commands.get(ctx.invoked_subcommand or "")
        flags = {it.name: it.opts[0] for it in command.params} if command else {}
        return f"{flags.get(name, name)} {rest}"

    @staticmethod
    def _say(line: str) -> None:
        if ranks.speaks():
            click.echo(f"attnact: {line}", err=True)


def _in_a_line(error: Exception) -> str:
    """What went wrong; nothing of a mistake of ours."""
    text = " ".join(str(error).split())  # HDF5 and torch tell it in many lines
    if isinstance(error, AttnactError):
        return str(error)
    if isinstance(error, BrokenPipeError):  # `| head` has read enough
        return ""
    if isinstance(error, OSError):
        told = error.strerror or text
        return f"{error.filename}: {told}" if error.filename else told
    if "out of memory" in text:  # as torch says of a GPU
        return text
    if isinstance(error, MemoryError) or "can't allocate memory" in text:  # as torch says of a CPU
        return f"out of memory ({text})" if text else "out of memory"
    return ""


SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@click.group(cls=Messages, context_settings=SETTINGS)
@click.version_option(__version__)
@click.option("-q", "--quiet", is_flag=True, help="Only results, warnings and errors.")
@click.option("-v", "--verbose", is_flag=True, help="Errors with all that led to them.")
@click.pass_context
def main(context: click.Context, quiet: bool, verbose: bool) -> None:
    """Action recognition with visual attention: videos → feature cubes → a soft-attention LSTM.

    \b
    The way through:
      datasets → download → features → train → evaluate → predict, visualize
      and many runs: sweep-lambda, table1 → study → report
    `attnact demo` goes all of it on videos that it draws itself.
    """
    name = context.invoked_subcommand
    if ranks.started() > 1 and name not in ("train", "evaluate"):
        raise click.UsageError(f"torchrun is for `train` and `evaluate`; start `{name}` without it")
    be_quiet(quiet)
    if os.environ.get("NO_COLOR"):
        context.color = False
    # Read by torch when it first makes a tensor: large ones then lie in huge pages. A step of
    # context attention on a CPU otherwise spends a third of its time on fresh pages.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


for module in (extraction, caches, training, predicting, experiments, reporting, demonstrating):
    for command in module.COMMANDS:
        main.add_command(command)
