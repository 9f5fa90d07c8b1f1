"""All of it on videos that it draws itself: demo."""

from pathlib import Path

import click

from attnact.commands.options import FilePath


@click.command()
@click.option("--to", type=FilePath, default="demo", show_default=True, help="Folder for it all.")
@click.pass_context
def demo(context: click.Context, to: Path) -> None:
    """Go the whole way on videos that it draws itself.

    \b
    Example: attnact demo --to my-demo
    """
    from attnact.demo import run_demo

    run_demo(to, context.find_root().command)


COMMANDS: tuple[click.Command, ...] = (demo,)
