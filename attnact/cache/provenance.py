"""When, how and with what a cache was made, as its provenance says it."""

import os
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from importlib.metadata import version

from attnact import __version__
from attnact.vocabulary import Resize

RANDOM_WEIGHTS = "features of random weights"  # what pictures and tables then say


def now() -> str:
    """The time, or the one set for builds that must come out the same to the byte."""
    seconds = float(os.environ.get("SOURCE_DATE_EPOCH", time.time()))
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="seconds")


def command() -> str:
    """What the user typed, as a shell takes it."""
    return shlex.join(["attnact", *sys.argv[1:]])


def versions(*packages: str) -> dict[str, str]:
    """Of attnact and of these packages."""
    return {"attnact": __version__, **{name: version(name) for name in packages}}


def marked(header: Sequence[object], random_weights: bool) -> list[object]:
    """The header of a CSV, whose first name says so where the features are of random weights.

    A line or a column of its own would be in the way of whatever reads the file.
    """
    first, *others = header
    return [f"{first} ({RANDOM_WEIGHTS})" if random_weights else first, *others]


def titled(title: str, random_weights: bool) -> str:
    """The title of a picture, which says so where the features are of random weights."""
    return "\n".join(filter(None, [title, RANDOM_WEIGHTS if random_weights else ""]))


def resize_of(provenance: Mapping[str, str]) -> Resize:
    """How the frames were resized whose features have this provenance.

    Files of the released code do not say it; the script that made them crops (its issue 6).
    """
    return "squash" if provenance["resize"] == "squash" else "crop"
