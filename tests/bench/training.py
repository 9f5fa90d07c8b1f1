"""How long a training step and scoring take, beside the loop that people write and the bound.

The bound is the arithmetic at the rate of a large matrix product, by the faster of two libraries,
and reading the features twice (once to score) at the rate at which memory is read, all measured in
the same runs.
"""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional as F

from attnact.machine.replayed import Replayed, replays
from attnact.model.attention import attention_penalty
from attnact.model.models import AttentionLSTM, ModelConfig
from attnact.model.windows import Window, Windows
from attnact.train.feed.clips import cut_clips
from attnact.train.feed.gathered import Gathered
from attnact.train.feed.store import batches, open_store
from attnact.vocabulary import AttentionForm
from tests.bench.hmdb51 import NAME, hmdb51
from tests.bench.measuring import (
    DEVICE,
    OPERATIONS,
    Figure,
    Row,
    figure,
    in_turn,
    product,
    ratio,
    reading,
)
from tests.bench.sweep import FRAMES, VIDEOS, make
from tests.plain_recurrence import plain_head, plain_recurrence

CLASSES, T, L, C, H, LAYERS = 51, 30, 49, 1024, 512, 3
FORMS: tuple[AttentionForm, ...] = ("location", "context")
TYPES = (torch.float32, torch.bfloat16)
UNIT = ("s", 1, 2) if DEVICE.type == "cpu" else ("ms", 1e-3, 1)


class Work(NamedTuple):
    """What a batch of B clips asks of the machine: operations in products, and bytes to read."""

    operations: float
    bytes: float

    def bound(self, rate: Figure, read: Figure) -> float:
        """Seconds, at these operations and bytes a second."""
        return self.operations / rate.most + self.bytes / read.most


def rows(quick: bool) -> Iterator[Row]:
    """Training steps, then scoring."""
    threads, on_gpu = torch.get_num_threads(), DEVICE.type == "cuda"
    runs = 2 if quick else 5
    counts = (threads,) if on_gpu else (1,) if quick else (1, threads)
    for form, B in (("location", 32 if quick else 128), ("context", 8 if quick else 32)):
        for count in counts:
            torch.set_num_threads(count)
            told = "on the GPU" if on_gpu else "1 thread" if count == 1 else f"{count} threads"
            yield from steps(form, B, runs, told)
            if form == "location" and not on_gpu:
                yield from steps_from_memory(B, runs, told)
            torch.set_num_threads(threads)
    for form in FORMS:
        yield scoring(form, 256 if quick else 8192 if on_gpu else 1024, runs)
    yield hmdb51() if on_gpu else Row(NAME, "not measured, for want of a GPU")


def steps(form: AttentionForm, B: int, runs: int, threads: str) -> Iterator[Row]:
    """A training step in each precision, beside the plain loop in float32."""
    X = torch.rand(B, T, L, C, device=DEVICE)
    read, size = reading()
    works: list[Callable[[], object]] = [step(form, X, None, plain=True)]
    for dtype in TYPES:
        works += [step(form, X, dtype), product(dtype)]
    plain, *mine, reads = in_turn([*works, read], runs, repeat=2)
    work = training_work(form, B)
    for dtype, ours, products in zip(TYPES, mine[::2], mine[1::2], strict=True):
        rate, speed = limits(products, reads, size)
        bound = work.bound(rate, speed)
        name = str(dtype).removeprefix("torch.")
        part = f"training step, {form}, B {B}, 3×512, {name}, {threads}"
        told = f"products at {rate.text('GFLOP/s', 1e9)}"
        yield beside(part, ours, plain, "for the plain float32 loop", bound, told)


def steps_from_memory(B: int, runs: int, threads: str) -> Iterator[Row]:
    """A step whose clips are float16 in memory until it looks at their frames, as a CPU trains."""
    X, clips = torch.rand(B, T, L, C), in_memory(B)
    read, size = reading()
    for dtype in TYPES:
        works = [step("location", clips, dtype), step("location", X, dtype), product(dtype), read]
        ours, ready, products, reads = in_turn(works, runs, repeat=2)
        rate, speed = limits(products, reads, size)
        bound = training_work("location", B, feature=2).bound(rate, speed)
        name = str(dtype).removeprefix("torch.")
        part = f"the same from float16 in memory, {name}, {threads}"
        told = f"clips of {VIDEOS * FRAMES} frames in all"
        yield beside(part, ours, ready, "on floats that lie ready", bound, told)


def beside(
    part: str, ours: list[float], peer: list[float], what: str, bound: float, note: str
) -> Row:
    """Seconds of ours in several runs, beside a peer's and the bound."""
    return Row(
        part,
        figure(ours).text(*UNIT),
        f"{figure(peer).text(*UNIT)} {what}, {ratio(peer, ours).text('×', digits=2)}",
        f"{bound / UNIT[1]:.{UNIT[2]}f} {UNIT[0]}; {figure(ours).median / bound:.2f} of it",
        note,
    )


def in_memory(B: int) -> Windows:
    """A batch of clips of made features, as training has it."""
    with tempfile.TemporaryDirectory() as folder:
        cache = make(Path(folder))
        store = open_store(cache, np.arange(len(cache.paths)), "host", DEVICE)
    clips = cut_clips(cache, np.arange(len(cache.paths)), fps=30, stride=1, form="paper")
    drawn = np.random.default_rng(0).choice(len(clips), B, replace=False)
    X = next(batches(store, clips, drawn, B)).X
    assert isinstance(X, Gathered)
    return X


def step(
    form: AttentionForm,
    X: torch.Tensor | Windows,
    dtype: torch.dtype | None,
    plain: bool = False,
    **shape: int,
) -> Callable[[], object]:
    """A step of training on clips (B, T, L, C), as `attnact train` takes it or the plain loop does.

    shape: of the model, where it is another than 3×512 and 51 classes.
    """
    torch.manual_seed(0)
    B, T = len(X), X.steps if isinstance(X, Windows) else X.shape[1]
    config = {"classes": CLASSES, "lstm_layers": LAYERS, **shape}
    model = AttentionLSTM(ModelConfig(attention=form, **config)).to(DEVICE)
    optimizer = torch.optim.Adam(model.parameters(), weight_decay=2e-5, fused=not plain)
    labels = torch.randint(0, model.config.classes, (B,), device=DEVICE).repeat_interleave(T)
    mask = torch.ones(B, T, device=DEVICE)

    def learn(X: torch.Tensor | Windows) -> torch.Tensor:
        with torch.autocast(DEVICE.type, dtype or torch.float32, dtype == torch.bfloat16):
            if plain:
                tops, maps = plain_recurrence(model, X, plain_dropout(B))
                scores = plain_head(model.head, tops)
            else:
                scores, maps = model(X, mask)
        loss = F.cross_entropy(scores.float().flatten(0, 1), labels) * T
        loss = loss + attention_penalty(maps, mask, "sum").mean()
        loss.backward()
        return loss.detach()

    work: Callable[[torch.Tensor], torch.Tensor] = learn
    if replays(DEVICE) and not plain:
        X = X.to(dtype or X.dtype)  # as training has it there
        work = Replayed(learn, DEVICE, model.parameters(), still=1)

    def run() -> None:
        optimizer.zero_grad()
        work(X)
        optimizer.step()

    return run


def plain_dropout(B: int) -> list[torch.Tensor]:
    """As `F.dropout` draws it."""
    sizes = [C] + [H] * (LAYERS - 1)
    return [F.dropout(torch.ones(T, B, size, device=DEVICE)) for size in sizes]


def scoring(form: AttentionForm, clips: int, runs: int) -> Row:
    """Clips of one video at every frame, 512 at once, beside the loop over clips of their own."""
    torch.manual_seed(0)
    frames = torch.rand(clips + T - 1, L, C, device=DEVICE)
    model = AttentionLSTM(ModelConfig(CLASSES, attention=form, lstm_layers=LAYERS)).to(DEVICE)
    model.eval()
    B, some = 512, clips // 8

    @torch.inference_mode()
    def ours() -> None:
        for start in range(0, clips, B):
            count = min(B, clips - start)
            shared = Windows(frames[start : start + count + T - 1], [Window(0, count, 1, 1)], T)
            model(shared, torch.ones(count, T, device=DEVICE))

    @torch.inference_mode()
    def theirs() -> None:
        X = torch.stack([frames[start : start + T] for start in range(some)])
        plain_head(model.head, plain_recurrence(model, X)[0])

    read, size = reading()
    mine, peer, products, reads = in_turn(
        [ours, theirs, product(torch.float32), read], runs, repeat=2
    )
    bound = scoring_work(form, clips).bound(*limits(products, reads, size))
    speed = figure([clips / taken for taken in mine])
    peers = figure([some / taken for taken in peer])
    return Row(
        f"scoring at stride 1, {form}, 3×512, float32",
        speed.text("clips/s"),
        f"{peers.text('clips/s')} for the plain loop",
        f"{clips / bound:,.0f} clips/s; {clips / bound / speed.median:.2f} of its time",
        f"100,000 clips, about what HMDB-51 tests on, in {_lasting(1e5 / speed.median)}",
    )


def _lasting(seconds: float) -> str:
    return f"{seconds:.1f} seconds" if seconds < 60 else f"{seconds / 60:,.1f} minutes"


def layer_operations(form: AttentionForm, clips: int) -> float:
    """Of the LSTM layers, the head and the attention's own products, forward."""
    gates = (C + H + (LAYERS - 1) * 2 * H) * 4 * H
    head = H * H + H * CLASSES
    looks = L * (H + C) if form == "location" else H * C + 2 * L * C
    return 2.0 * clips * T * (gates + head + looks)


def limits(products: list[float], reads: list[float], size: int) -> tuple[Figure, Figure]:
    """Operations and bytes a second, by the seconds of a product and of reading so many bytes."""
    rate = figure([OPERATIONS / taken for taken in products])
    return rate, figure([size / taken for taken in reads])


def training_work(form: AttentionForm, B: int, feature: int = 4) -> Work:
    """Forward, and back to the inputs and to the weights; the features get no gradient.

    feature: bytes of one, as it lies in memory.
    """
    projected = 2 * 2.0 * B * T * L * C * C if form == "context" else 0.0
    return Work(3 * layer_operations(form, B) + projected, 2.0 * feature * B * T * L * C)


def scoring_work(form: AttentionForm, clips: int) -> Work:
    """Forward; what a frame alone decides once for all clips that share it."""
    projected = 2.0 * (clips + T - 1) * L * C * C if form == "context" else 0.0
    return Work(layer_operations(form, clips) + projected, 4.0 * clips * T * L * C)
