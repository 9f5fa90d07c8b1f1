"""The demo: videos drawn here, then the real commands on them, from features to pictures.

The class of a clip is the colour of a small ball that wanders over grey clutter. What even an
untrained network passes on is colour, and the backgrounds are the same for every class, so that
nothing but the ball tells the class.
"""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import av
import click
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from attnact.errors import RunError, WeightsError
from attnact.machine.progress import is_quiet
from attnact.train.runs import open_run
from attnact.train.scoring.predictions import write_csv

COLOURS = {
    "red": (255, 0, 0),
    "green": (0, 190, 0),
    "blue": (0, 60, 255),
    "yellow": (255, 220, 0),
}
WIDTH, HEIGHT, RATE = 160, 120, 30
BALL = 13  # pixels, its radius
SCENES = 32  # backgrounds; a scene and its clips are a group, and every fourth group tests
FAR_ABOVE_CHANCE = 0.6  # accuracy; chance is 0.25, and 32 guesses do not come near

Frame = npt.NDArray[np.uint8]


def run_demo(folder: Path, attnact: click.Command) -> None:
    """Draws the videos and runs every stage in the folder; stopped, it goes on where it stood.

    Args:
        folder: for all of it.
        attnact: the command line.

    Raises:
        RunError: the model has learnt too little for this to be a demonstration of anything.
    """
    folder.mkdir(parents=True, exist_ok=True)
    click.echo(f"cd {folder}")
    before = Path.cwd()
    os.chdir(folder)
    try:
        _whole_way(partial(_type, attnact))
    finally:
        os.chdir(before)
    click.echo(
        f"\nAll of it is in {folder}: the videos, the cache, the runs, the pictures. "
        f"To begin with, open {folder / 'report.html'} in a browser."
    )


def _whole_way(attnact: Callable[..., None]) -> None:
    if not Path("balls.csv").exists():
        draw_videos(Path("videos"), Path("balls.csv"))
    weights = _weights(Path("features/balls.h5"))
    attnact("features", "folder", "--videos", "balls.csv", *weights)
    # Sizes for two cores and a few minutes; the recipe is for the real data sets.
    options = ["--attention", "context", "--lstm-layers", "1", "--hidden-size", "128"]
    options += ["--batch-size", "16", "--learning-rate", "0.002", "--epochs", "8"]
    options += ["--dropout", "0.2", "--validation", "0"]
    options += ["--train-stride", "30", "--test-stride", "30"]
    run = Path("runs/balls/first")
    if (run / "config.json").exists():
        attnact("train", "--resume", str(run))
    else:
        # Eight epochs are few: with λ = 0 one seed of four hardly finds the ball in them, and with
        # λ = 1 the model looks almost everywhere. With 0.1 all five find it, and show where.
        attnact("train", "--name", run.name, "--attention-penalty", "0.1", *options)
    attnact("evaluate", str(run))
    attnact("sweep-lambda", "--seeds", "2", *options)
    attnact("visualize", str(run))
    attnact("report", str(run.parent))
    accuracy = open_run(run).summary()["value"]
    if accuracy < FAR_ABOVE_CHANCE:
        raise RunError(
            f"{run}: accuracy {accuracy:.2f} is too near chance (0.25) for a demo; "
            "please report it with the output above"
        )


def _type(attnact: click.Command, *arguments: str) -> None:
    """Shows the command, and runs it. What fails or is interrupted ends the demo, as it ends."""
    click.secho("\n$ attnact " + " ".join(arguments), bold=True)
    quiet = ["--quiet"] if is_quiet() else []
    code = attnact.main([*quiet, *arguments], prog_name="attnact", standalone_mode=False)
    if code:  # the command has said why
        raise click.exceptions.Exit(code)


def _weights(cache: Path) -> list[str]:
    """Options for the best weights at hand, and a plain word where there are none."""
    from attnact.extract.choosing import random_weights_path
    from attnact.extract.networks.backbone import RANDOM
    from attnact.extract.networks.weights import fetch_published

    if not random_weights_path(cache).exists():
        try:
            fetch_published("googlenet")
            return []
        except WeightsError as error:
            click.echo(f"{error}\nso the demo goes on with random weights", err=True)
    return ["--weights", RANDOM]


def draw_videos(folder: Path, listing: Path, scenes: int = SCENES) -> None:
    """Writes a clip of every colour in front of every scene, and the list of them with its fold."""
    folder.mkdir(exist_ok=True)
    rows = [["path", "label", "group", "1"]]
    for scene in range(scenes):
        side = "train" if scene % 4 else "test"
        for number, (name, colour) in enumerate(COLOURS.items()):
            path = folder / f"scene{scene:02d} {name}.avi"
            write_video(path, draw_clip(scene, number, colour))
            rows.append([str(path), name, f"scene {scene}", side])
    write_csv(listing, rows, random_weights=False)


def draw_clip(scene: int, number: int, colour: tuple[int, ...]) -> Frame:
    """The frames of one clip, (T, height, width, 3): a ball bouncing over the scene's clutter."""
    random = np.random.default_rng([scene, number])
    background = _clutter(np.random.default_rng(scene))
    place = random.uniform(BALL, [WIDTH - BALL, HEIGHT - BALL])
    angle = random.uniform(0, 2 * np.pi)
    step = 3 * np.array([np.cos(angle), np.sin(angle)])  # pixels a frame
    frames = []
    for _ in range(int(random.integers(24, 37))):
        image = Image.fromarray(background)
        ball = (*(place - BALL), *(place + BALL))
        ImageDraw.Draw(image).ellipse(ball, fill=colour)
        frames.append(np.asarray(image))
        ahead = place + step
        step[(ahead < BALL) | (ahead > [WIDTH - BALL, HEIGHT - BALL])] *= -1
        place = place + step
    return np.stack(frames)


def _clutter(random: np.random.Generator) -> Frame:
    """A still of grey boxes and discs, (height, width, 3)."""
    image = Image.new("RGB", (WIDTH, HEIGHT), (int(random.integers(60, 200)),) * 3)
    draw = ImageDraw.Draw(image)
    for _ in range(40):
        left, top = random.uniform(-20, [WIDTH, HEIGHT])
        width, height = random.uniform(8, 40, 2)
        shade = (int(random.integers(20, 236)),) * 3
        shape = draw.ellipse if random.random() < 0.5 else draw.rectangle
        shape((left, top, left + width, top + height), fill=shade)
    return np.asarray(image)


def write_video(path: Path, frames: Frame) -> None:
    """Writes frames (T, 120, 160, 3) as MPEG-4."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.bit_rate = 4_000_000  # so that the small ball keeps its colour
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
