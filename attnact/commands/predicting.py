"""A finished run on any videos: predict, visualize."""

import csv
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import IO, Any

import click

from attnact.cache.provenance import marked
from attnact.commands.extraction import SOME_FAILED
from attnact.commands.options import FilePath, device_option
from attnact.errors import VideoError
from attnact.machine.progress import tell_failed, warn

weights_option = click.option(
    "--weights", type=FilePath, help="Where the backbone's weights are now, if not where they were."
)


@click.command()
@click.argument("run", type=FilePath)
@click.argument("videos", nargs=-1, type=FilePath, required=True)
@click.option("--top", default=3, show_default=True, help="Classes to show a video.")
@click.option("--csv", "as_csv", is_flag=True, help="All scores, a row a video.")
@click.option("--json", "as_json", is_flag=True, help="All scores, a JSON object a line.")
@click.option("--timeline", is_flag=True, help="CSV of all scores, a row a clip.")
@weights_option
@device_option
def predict(
    run: Path,
    videos: tuple[Path, ...],
    top: int,
    as_csv: bool,
    as_json: bool,
    timeline: bool,
    weights: Path | None,
    device: str | None,
) -> None:
    """Name the action in any videos, by a run.

    VIDEOS are files, folders, or lists (.txt, a path a line). Their features are made as those that
    the run was trained on; the scores of a test video are those of `evaluate`, to about 1e-4.
    A video that does not decode is passed over; then the exit code is 3.

    \b
    Example: attnact predict runs/hmdb51/first mine.mp4
    """
    from attnact.extract.datasets.disk import videos_meant
    from attnact.recognise import Recogniser

    if top < 1:
        raise click.UsageError("--top must be at least 1")
    if as_csv + as_json + timeline > 1:
        raise click.UsageError("give one of --csv, --json and --timeline")
    recogniser = Recogniser(run, weights, device)
    files = [file for path in videos for file in videos_meant(path)]
    write = _write_table(top, max(len(str(file)) for file in files))
    if as_csv or as_json or timeline:
        write = _write_csv if as_csv else _write_json if as_json else _write_timeline
    if recogniser.random_weights:
        click.echo("the features are of random weights, so the scores say little", err=True)
    if seen := recogniser.trained_on([file for file in files if file.is_file()]):
        of = f"{len(seen)} of these {len(files)} videos, {seen[0]}" if len(files) > 1 else seen[0]
        more = f" and {len(seen) - 1} more" if len(seen) > 1 else ""
        warn(f"the run was trained on {of}{more}; of new ones it may know less")
    if as_csv or timeline:
        columns = ["video", "prediction"] if as_csv else ["video", "start", "end"]
        header = [*columns, *recogniser.classes]
        _row(sys.stdout, marked(header, recogniser.random_weights))
    with closing(recogniser.scored_clips(files)) as scored:
        pairs = zip(files, scored, strict=True)
        _one_by_one(pairs, lambda file, clips: write(recogniser, file, clips))


@click.command()
@click.argument("run", type=FilePath)
@click.argument("videos", nargs=-1)
@click.option("--out", type=FilePath, help="Folder for the pictures.  [default: RUN/attention]")
@click.option("--gif", is_flag=True, help="Also a GIF of the clip in the middle.")
@weights_option
@device_option
def visualize(
    run: Path,
    videos: tuple[str, ...],
    out: Path | None,
    gif: bool,
    weights: Path | None,
    device: str | None,
) -> None:
    """Draw where a run looks, as strips and movies.

    VIDEOS are paths as the run's cache has them, or any files, folders or lists (.txt); without
    any, one test video of each class.

    \b
    Example: attnact visualize runs/hmdb51/first
    """
    from attnact.attend import draw_attention, find_videos, missing_encoder
    from attnact.recognise import Recogniser

    recogniser = Recogniser(run, weights, device)
    found = find_videos(recogniser, videos)
    if encoder := missing_encoder():
        warn(f"this PyAV lacks {encoder}, so no MP4 is written")

    def draw(file: Path, video: Any) -> None:
        for picture in draw_attention(recogniser, video, out or run / "attention", gif):
            click.echo(picture)

    _one_by_one([(video.source, video) for video in found], draw)


def _one_by_one(videos: Iterable[tuple[Path, Any]], work: Callable[[Path, Any], None]) -> None:
    """Does the work on each video; those that do not decode are told, and make the exit code."""
    count = failed = 0
    for file, video in videos:
        count += 1
        try:
            work(file, video)
        except VideoError as error:
            failed += 1
            tell_failed(file, str(error))
        sys.stdout.flush()
    if failed:
        click.echo(f"{failed} of {count} videos failed", err=True)
        sys.exit(SOME_FAILED)


def _write_table(top: int, width: int) -> Callable[[Any, Path, Iterator[Any]], None]:
    def write(recogniser: Any, file: Path, clips: Iterator[Any]) -> None:
        found = recogniser.sum_up(clips).top(top)
        click.echo(f"{file!s:{width}}  " + "  ".join(f"{name} {s:.3f}" for name, s in found))

    return write


def _write_csv(recogniser: Any, file: Path, clips: Iterator[Any]) -> None:
    found = recogniser.sum_up(clips)
    _row(sys.stdout, [file, found.top()[0][0], *map(repr, found.scores.tolist())])


def _write_json(recogniser: Any, file: Path, clips: Iterator[Any]) -> None:
    found = recogniser.sum_up(clips)
    scores = dict(zip(found.classes, found.scores.tolist(), strict=True))
    line = {"video": str(file), "prediction": found.top()[0][0], "scores": scores}
    line["random_weights"] = recogniser.random_weights
    click.echo(json.dumps(line, ensure_ascii=False))


def _write_timeline(recogniser: Any, file: Path, clips: Iterator[Any]) -> None:
    # Beside, until the file is known to be whole; on disk, as it may be long.
    with tempfile.TemporaryFile("w+", encoding="utf-8", newline="") as beside:
        for clip in clips:
            times = (f"{seconds:.3f}" for seconds in clip.seconds)
            _row(beside, [file, *times, *map(repr, clip.scores.tolist())])
        beside.seek(0)
        shutil.copyfileobj(beside, sys.stdout)


def _row(file: IO[str], values: Iterable[object]) -> None:
    csv.writer(file, lineterminator="\n").writerow(values)


COMMANDS: tuple[click.Command, ...] = (predict, visualize)
