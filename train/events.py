"""What TensorBoard shows of a run: its curves, where it looks, and its choices beside its result.

Each phase has a folder of its own, `tensorboard/selection` and `tensorboard/final`, so that their
curves lie over each other. A run that is resumed goes on where it stood.
"""

from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from attnact.cache.features import ROWS, FeatureCache
from attnact.errors import RunError
from attnact.model.models import Model
from attnact.train.feed.clips import scored_clips
from attnact.train.feed.places import FeatureStore
from attnact.train.feed.store import batches
from attnact.train.runs import Run
from attnact.train.selection import fold_videos
from attnact.vocabulary import Split

SHOWN, SCALE = 8, 16  # maps of a strip; pixels to a location


class Events:
    """Writes TensorBoard's files of a run.

    Raises:
        RunError: TensorBoard is not installed.
    """

    def __init__(self, run: Run, cache: FeatureCache, store: FeatureStore) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise RunError("TensorBoard is missing; pip install 'attnact[tensorboard]'") from error
        self._new, self._run, self._store = SummaryWriter, run, store
        self._writers: dict[str, Any] = {}
        video = fold_videos(cache, run.config.fold, Split.TEST)[:1]
        clips = scored_clips(cache, video, run.config)
        self._clip = clips[np.array([len(clips) // 2])]

    def epoch(self, line: dict[str, Any], model: Model) -> None:
        """The numbers of an epoch, and the maps of a clip of the first test video."""
        phase, epoch = line["phase"], line["epoch"]
        if phase not in self._writers:
            folder = self._run.folder / "tensorboard" / phase
            # Whatever was written of this epoch and later ones is of an interrupted training.
            self._writers[phase] = self._new(str(folder), purge_step=epoch)
        writer = self._writers[phase]
        for name, value in line.items():
            if name not in ("phase", "epoch"):
                writer.add_scalar(name, value, epoch)
        strip = self._strip(model)
        if strip is not None:
            writer.add_image("attention", strip, epoch, dataformats="HW")
        writer.flush()

    def finish(self, summary: dict[str, Any]) -> None:
        """The run's choices beside its result."""
        choices = {name: value for name, value in asdict(self._run.config).items() if value}
        with self._new(str(self._run.folder / "tensorboard")) as writer:
            writer.add_hparams(choices, {summary["metric"]: summary["value"]}, run_name="choices")
        for phase in self._writers.values():
            phase.close()

    def _strip(self, model: Model) -> "np.ndarray[Any, np.dtype[np.float32]] | None":
        """Maps side by side, white where the most of the attention lies; None without any."""
        was_training = model.training
        model.eval()
        with torch.inference_mode():
            (batch,) = batches(self._store, self._clip, None, 1)
            maps = model(batch.X, batch.mask)[1]
        model.train(was_training)
        if maps is None:
            return None
        steps = np.linspace(0, int(self._clip.frames[0]) - 1, SHOWN).round().astype(int)
        shown = maps[0].float().cpu().numpy()[steps].reshape(SHOWN, ROWS, ROWS)
        strip = np.hstack([np.pad(m / shown.max(), ((0, 0), (0, 1))) for m in shown])
        return np.kron(strip, np.ones((SCALE, SCALE), np.float32))
