"""Which test videos the page shows: those that are there, and a fair choice of them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from attnact.cache.features import FeatureCache
from attnact.errors import AttnactError
from attnact.page.read import Setting, ShownRun
from attnact.train.experiments.tables import listed
from attnact.train.scoring.predictions import Predictions


class Guess(NamedTuple):
    """What a setting makes of a video, by the first of its runs that tests it.

    row: of the video in the run's predictions.
    """

    run: ShownRun
    predictions: Predictions
    row: int

    @property
    def confidence(self) -> float:
        """The highest score."""
        return float(self.predictions.scores[self.row].max())


class PoolVideo(NamedTuple):
    """A video that runs tested: where it stands in which cache, and what each setting guessed."""

    cache: FeatureCache
    position: int
    guesses: dict[int, Guess]


def choose(pool: Mapping[Path, PoolVideo], count: int) -> list[Path]:
    """At most `count` videos, from the classes in turn, and in each class right and wrong in turn.

    Where there are more classes than videos to show, they are spread over the list of classes.
    Right and wrong is what the first setting that tested the video got.
    """
    cells: dict[str, dict[bool, list[Path]]] = {}
    for path, tested in pool.items():
        guess = next(iter(tested.guesses.values()))
        name = ", ".join(guess.predictions.true(guess.row))
        right = guess.predictions.right(guess.row)
        cells.setdefault(name, {True: [], False: []})[right].append(path)
    queues = []
    for number, name in enumerate(sorted(cells)):
        first, second = (cells[name][right] for right in ((True, False), (False, True))[number % 2])
        both = min(len(first), len(second))
        mixed = [path for pair in zip(first, second, strict=False) for path in pair]
        queues.append(mixed + first[both:] + second[both:])
    if len(queues) > count:
        queues = [queues[i] for i in np.linspace(0, len(queues) - 1, count).round().astype(int)]
    longest = max(map(len, queues), default=0)
    return [queue[i] for i in range(longest) for queue in queues if i < len(queue)][:count]


def open_caches(settings: Sequence[Setting], notes: list[str]) -> dict[str, FeatureCache]:
    """Digest -> the cache, of those that are there and as they were."""
    found: dict[str, FeatureCache] = {}
    lost: dict[str, list[str]] = {}  # reason -> settings
    for setting in settings:
        run = setting.runs[0].run
        try:
            if run.cache_digest not in found:
                found[run.cache_digest] = run.open_cache()
        except AttnactError as error:
            lost.setdefault(str(error), []).append(setting.name)
    notes += [f"Not in the gallery: {listed(names)}: {why}" for why, names in lost.items()]
    return found


def tested_videos(
    settings: Sequence[Setting], caches: Mapping[str, FeatureCache]
) -> dict[Path, PoolVideo]:
    """Every test video of any run by its file, those of the first attention model first."""
    found: dict[Path, PoolVideo] = {}
    order = sorted(range(len(settings)), key=lambda i: settings[i].config.model != "attention")
    for number in order:
        for run in settings[number].runs:
            cache = caches.get(run.run.cache_digest)
            if cache is None or run.predictions is None:
                continue
            position = {path: i for i, path in enumerate(cache.paths)}
            for row, name in enumerate(run.predictions.videos):
                if name in position:
                    new = PoolVideo(cache, position[name], {})
                    tested = found.setdefault(cache.root / name, new)
                    tested.guesses.setdefault(number, Guess(run, run.predictions, row))
    return found
