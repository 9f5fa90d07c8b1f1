"""The program `attnact`, which is also `python -m attnact`."""

import sys


def main() -> None:
    """Ctrl-C ends it without a word while nothing has begun, as in the imports, here for that."""
    try:
        from attnact.cli import main as attnact

        attnact(prog_name="attnact")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
