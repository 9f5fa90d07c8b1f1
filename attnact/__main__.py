"""``python -m attnact`` is the command ``attnact``."""

from attnact.cli import main

main()
