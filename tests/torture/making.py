"""What is hurt: drawn videos, their cache, and a run on it, in the folder where we are."""

import os
from pathlib import Path

from attnact.demo import draw_videos
from tests.torture.processes import attnact

LIST = Path("balls.csv")
CACHE = Path("features/balls.h5")
RUN = Path("runs/balls/it")

FEATURES = ["features", "folder", "--videos", str(LIST)]
SMALL = ["--lstm-layers", "1", "--hidden-size", "8", "--batch-size", "8"]
SMALL += ["--train-stride", "9", "--test-stride", "30", "--validation", "0.3"]
TRAIN = ["train", "--name", RUN.name, "--epochs", "5", *SMALL]


def draw(folder: Path) -> None:
    """Goes to the folder and draws sixteen videos there, in four classes and four groups."""
    os.chdir(folder)
    folder.chmod(0o755)  # for those who run without the rights of root
    draw_videos(Path("videos"), LIST, scenes=4)


def made(folder: Path) -> None:
    """The same, with their cache and a finished run of two epochs."""
    draw(folder)
    for command in (FEATURES, [*TRAIN, "--epochs", "2"]):
        process = attnact(command, Path("log"))
        assert process.wait() == 0, process.text()
