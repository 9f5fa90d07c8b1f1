"""Any video through a run: its class scores, and where the model looks.

The video is decoded, its features are made as those of the run's cache were, and clips of them go
through the model as they come, so that a long video takes no more memory than a short one.
"""

from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from attnact.cache.compact import to_float, to_uint8
from attnact.cache.features import CUBE, FeatureCache
from attnact.cache.provenance import resize_of
from attnact.errors import AttnactError, RunError, VideoError
from attnact.extract.frames.decoder import Failed
from attnact.extract.frames.decoding import Event
from attnact.extract.frames.video import VideoInfo
from attnact.extract.networks.backbone import Backbone
from attnact.extract.recorded import read_videos, recorded_backbone
from attnact.machine.devices import best_device
from attnact.machine.progress import Advance, progress
from attnact.model.checkpoint import load_checkpoint
from attnact.train.feed.clips import UNKNOWN_RATE, Cut, scored_cut
from attnact.train.feed.stream import Block, cached_blocks, needed, stream_clips
from attnact.train.runs import open_run
from attnact.train.scoring.one_video import Attention, Prediction, ScoredClip
from attnact.train.scoring.scores import clip_votes, probabilities, score_clips, sum_up
from attnact.train.selection import fold_videos
from attnact.vocabulary import Decoder, Split

TIME_LIMIT = 60.0  # seconds without a frame after which a file is given up


class Recogniser:
    """A finished run, ready for any video.

    run         the run
    classes     their names, in the order of the scores
    features    the provenance of the features that its model takes
    attends     whether its model has attention

    Args:
        run_folder: the folder of the run.
        weights: the backbone's weights; None for where they were when the features were made.
        device: as torch names it; the GPU if there is one.

    Raises:
        RunError: there is no such run, or it is not finished.
    """

    def __init__(
        self, run_folder: Path, weights: Path | None = None, device: str | None = None
    ) -> None:
        self.run = open_run(run_folder)
        self._device = best_device(device)
        self._weights = weights
        self._checkpoint = load_checkpoint(self.run.model, self._device)
        self.classes = self._checkpoint.classes
        self.features = self._checkpoint.features
        self.attends = self._checkpoint.model.config.kind == "attention"

    @property
    def random_weights(self) -> bool:
        """Whether the backbone was not trained; whatever comes of it has to say so."""
        return self.features["weights_are_random"] == "true"

    @cached_property
    def backbone(self) -> Backbone:
        """What made the features of the run, loaded when it is first asked for.

        Raises:
            WeightsError: the weights are not there or are others, or nothing is recorded.
        """
        return recorded_backbone(self.features, self.run.cache, self._weights, str(self._device))

    def predict(self, video: str | Path) -> Prediction:
        """The scores of a video file.

        They are those of `attnact evaluate` to about 1e-4: other batches round otherwise.

        Raises:
            VideoError: the file is missing or broken.
            WeightsError: see `backbone`.
        """
        with closing(self.scored_clips([Path(video)])) as videos:
            return self.sum_up(next(videos))

    def attend(self, video: str | Path) -> Attention:
        """Where the model looks in a video file.

        Raises:
            RunError: the model has no attention.
            VideoError: the file is missing or broken.
            WeightsError: see `backbone`.
        """
        with closing(self.scored_clips([Path(video)])) as videos:
            return self.sum_up_attention(next(videos))

    def trained_on(self, videos: Sequence[Path]) -> list[Path]:
        """Those of the files that the model was trained on, as far as there is a cache to tell."""
        if not self.run.state.exists():  # trained elsewhere, by the released code
            return []
        try:
            cache = self.run.open_cache()
        except AttnactError:
            return []
        paths = [cache.paths[i] for i in fold_videos(cache, self.run.config.fold, Split.TRAIN)]
        known = {(cache.root / path).resolve() for path in paths}
        return [video for video in videos if video.resolve() in known]

    def scored_clips(self, videos: Sequence[Path]) -> Generator[Iterator[ScoredClip], None, None]:
        """The clips of each video, as they are scored; a bad video raises VideoError at its end.

        They are to be read before the next video is asked for.

        Args:
            videos: the files, read one after the other.
        """
        backbone = self.backbone  # before a process is started in vain
        decoder: Decoder = "decord" if self.features.get("decoder") == "decord" else "pyav"
        how = resize_of(self.features)
        with closing(read_videos(videos, decoder, how, TIME_LIMIT, backbone.device)) as read:
            for video, (header, events) in zip(videos, read, strict=True):
                yield self._scored(video, header, events, backbone)

    def scored_clips_in(self, cache: FeatureCache, video: int) -> Iterator[ScoredClip]:
        """The same of a video of the run's cache, from the features there."""
        rate = cache.rows[video].frame_rate
        cut = scored_cut(rate, self.run.config)
        return self._score(cached_blocks(cache, video, cut), cut, rate)

    def sum_up(self, clips: Iterable[ScoredClip]) -> Prediction:
        """The scores of the video that these are all clips of."""
        total, votes, count = np.zeros(len(self.classes)), np.zeros(len(self.classes)), 0
        for clip in clips:
            total += clip.scores
            votes += clip_votes(clip.scores[None], self._checkpoint.multi_label)[0]
            count += 1
        return Prediction(sum_up(total, votes, count, self.run.config), self.classes)

    def sum_up_attention(self, clips: Iterable[ScoredClip]) -> Attention:
        """Where the model looks in the video that these are all clips of; see `attend`."""
        if not self.attends:
            raise RunError(f"{self.run.folder}: its model has no attention to draw")
        sums: dict[int, Any] = {}  # position -> a map and scores, and how often they were added
        rate = UNKNOWN_RATE

        def noted(clip: ScoredClip) -> ScoredClip:
            nonlocal rate
            assert clip.maps is not None
            rate = clip.frame_rate
            ones = np.ones((len(clip.maps), 1), np.float32)
            seen = np.concatenate([clip.maps, clip.frame_scores, ones], axis=1)
            for position, row in zip(clip.positions.tolist(), seen, strict=True):
                sums[position] = sums[position] + row if position in sums else row
            return clip

        prediction = self.sum_up(map(noted, clips))
        positions = sorted(sums)
        rows = np.stack([sums[position] for position in positions])
        maps, scores = np.split(rows[:, :-1] / rows[:, -1:], [-len(self.classes)], axis=1)
        return Attention(np.array(positions), rate, maps, scores, prediction)

    def _scored(
        self,
        video: Path,
        header: VideoInfo | Failed,
        events: Iterator[Event],
        backbone: Backbone,
    ) -> Iterator[ScoredClip]:
        if isinstance(header, Failed):
            raise VideoError(header.reason)
        cut = scored_cut(header.frame_rate, self.run.config)
        with progress(video.name, header.declared_frames, "frames") as advance:
            blocks = _blocks(events, backbone, self.features.get("dtype"), cut, advance)
            yield from self._score(blocks, cut, header.frame_rate)

    def _score(self, blocks: Iterator[Block], cut: Cut, rate: float) -> Iterator[ScoredClip]:
        """Scores the clips of a video, a few at a time."""
        checkpoint, rate = self._checkpoint, rate or UNKNOWN_RATE
        for clips, X in stream_clips(blocks, cut):
            mask = torch.from_numpy(clips.mask()).to(self._device)
            with torch.inference_mode():
                scores, maps = checkpoint.model(X.to(self._device), mask)
                chances = probabilities(scores, checkpoint.multi_label)
                whole = score_clips(chances, mask, self.run.config)
            there = int(clips.frames[0])
            looks = None if maps is None else maps[:, :there].cpu().numpy()
            for i, positions in enumerate(clips.positions()[:, :there]):
                yield ScoredClip(
                    positions,
                    rate,
                    whole[i],
                    chances[i, :there].cpu().numpy(),
                    None if looks is None else looks[i],
                )


def _blocks(
    events: Iterator[Event], backbone: Backbone, dtype: str | None, cut: Cut, advance: Advance
) -> Iterator[Block]:
    """The features of a file's frames, as they are decoded; a file that fails raises VideoError."""
    count = 0
    for event in events:
        if isinstance(event, Failed):
            raise VideoError(event.reason)
        if not isinstance(event, torch.Tensor):
            return
        every = np.arange(count, count + len(event))
        positions = needed(cut, every)
        cubes = torch.empty(0, *CUBE)
        if len(positions):
            cubes = _as_cached(backbone(event[positions - count]), dtype)
        count += len(every)
        advance(len(every), "")
        yield Block(count, positions, cubes)
    raise ValueError("each video's clips are to be read before the next video's")


def _as_cached(cubes: torch.Tensor, dtype: str | None) -> torch.Tensor:
    """Feature cubes rounded as a cache rounds them that `attnact features` made with `--dtype`."""
    cubes = cubes.half()
    return torch.from_numpy(to_float(to_uint8(cubes.cpu().numpy()))) if dtype == "uint8" else cubes
