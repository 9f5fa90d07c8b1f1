"""`attnact` with a stand-in for the network, in every process that extracts, small shards and,
where HELD names a file, another process that tells its number there and stays at its first batch.
"""

import os
import sys
import time
from pathlib import Path
from typing import Any

from attnact.extract import choosing, on_devices, plan
from tests import (
    made_devices,  # what a child runs is found by its module's name, and this one is __main__
)
from tests.made_extraction import StandIn

HELD = os.environ.get("HELD")
serve, make_shards = on_devices._serve, on_devices.make_shards


class Held(StandIn):
    def start(self, frames):
        if HELD:
            Path(HELD + ".new").write_text(str(os.getpid()))
            Path(HELD + ".new").rename(HELD)
            time.sleep(600)
        return super().start(frames)


def serve_held(*arguments: Any) -> None:
    """The other process."""
    prepare(Held)
    serve(*arguments)


def make_later(*arguments: Any) -> None:
    """Or all would be done before the other process begins."""
    while HELD and not Path(HELD).exists():
        time.sleep(0.01)
    make_shards(*arguments)


def prepare(backbone: type[StandIn]) -> None:
    plan.SHARD_FRAMES = 50
    choosing.load_backbone = lambda *arguments: backbone()


if __name__ == "__main__":
    from attnact.cli import main

    prepare(StandIn)
    on_devices.make_shards, on_devices._serve = make_later, made_devices.serve_held
    typed, sys.argv = sys.argv[1:], ["attnact"]
    main(typed)
