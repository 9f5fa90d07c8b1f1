"""The benchmarks' figures and limits, and that the page has a place for each table."""

import re
from importlib import import_module
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from attnact.extract.frames.video import read_frames
from attnact.model.models import AttentionLSTM, ModelConfig
from attnact.train.config import TrainConfig
from tests.bench import __main__ as bench
from tests.bench import extraction
from tests.bench.growth import GRID, Shape, Videos, draw, fit, terms
from tests.bench.hmdb51 import hmdb51
from tests.bench.measuring import figure, ratio
from tests.bench.training import scoring_work, training_work


def test_a_figure_is_the_median_with_its_spread() -> None:
    assert figure([3.0, 1.0, 2.5]).text("s", digits=1) == "2.5 (1.0–3.0) s"
    assert figure([2e9]).text("GFLOP/s", 1e9) == "2 (2–2) GFLOP/s"
    assert ratio([4.0, 6.0], [2.0, 2.0]).median == 2.5


@pytest.mark.parametrize("form", ["location", "context"])
def test_the_operations_of_the_bound_are_those_that_torch_counts(form) -> None:
    """Within 5 %: the start state and a few small products are left out of the bound."""
    # In float64, for the counter does not know of the products that float32 has made.
    model = AttentionLSTM(ModelConfig(51, attention=form, dropout=0.0)).double()
    X, mask = torch.zeros(2, 30, 49, 1024).double(), torch.ones(2, 30)
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        model(X, mask)
    shared = scoring_work(form, 2).operations
    shared += 2.0 * (2 * 30 - 31) * 49 * 1024**2 if form == "context" else 0  # here they share none
    assert counter.get_total_flops() == pytest.approx(shared, rel=0.05)
    with FlopCounterMode(display=False) as counter:
        model(X, mask)[0].sum().backward()
    assert counter.get_total_flops() == pytest.approx(training_work(form, 2).operations, rel=0.05)


def test_the_papers_training_is_told_from_a_part_of_it() -> None:
    """On a CPU, where the bench itself leaves it out."""
    small = TrainConfig(fold="1", hidden_size=4, lstm_layers=1, batch_size=8)
    row = hmdb51(small, videos=2, part=10)
    assert re.fullmatch(r"\d+\.\d \(.*\) minutes", row.ours)
    assert row.note == ("132 clips an epoch; 190 frames as uint8 on the device; from 14 clips")


@pytest.mark.parametrize(
    ("rates", "told"),
    [
        # Of all cores decode 0.1 ms a frame and write 0.3; of a GPU network and resize 0.05 each.
        ((20_000, 3_333, 10_000, 20_000), "the cores are shared: decode 25%, write 75%; 2,500"),
        ((2_000, 3_333, 10_000, 2_000), "the GPU, which runs the network and resizes: 1,000"),
    ],
)
def test_what_binds_on_a_gpu(rates: Any, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extraction, "DEVICE", torch.device("cuda"))
    assert extraction.binding(*rates).startswith(told)


def test_the_law_finds_what_made_the_times() -> None:
    law = np.array([3e-12, 2e-10, 5e-9])
    taken = [figure([float(law @ terms(shape))]) for shape in GRID]
    np.testing.assert_allclose(fit([terms(shape) for shape in GRID], taken), law, rtol=1e-6)
    assert terms(Shape(clips=64))[0] == 2 * terms(Shape())[0]


def test_clips_of_any_length_are_drawn(tmp_path) -> None:
    for frames in (5, 90):
        clips = draw(tmp_path / f"{frames}", Videos(2, frames))
        assert [len(list(read_frames(clip))) for clip in clips] == [frames] * 2


@pytest.mark.parametrize("section", bench.SECTIONS)
def test_every_section_has_its_rows_and_its_place(section: str) -> None:
    assert callable(import_module(f"tests.bench.{section}").rows)
    page = bench.PAGE.read_text(encoding="utf-8")
    for device in ("", " on a GPU"):
        assert page.count(f"<!-- bench: {section}{device} -->\n") == 1


def test_a_table_takes_its_place_and_leaves_the_rest(tmp_path, monkeypatch) -> None:
    page = tmp_path / "page.md"
    other = "b\n<!-- bench: x -->\n<!-- end -->\n"
    page.write_text(f"a\n<!-- bench: cache -->\nold\n<!-- end -->\n{other}")
    monkeypatch.setattr(bench, "PAGE", page)
    bench.write("cache", "new \\1")
    assert page.read_text() == f"a\n<!-- bench: cache -->\nnew \\1\n<!-- end -->\n{other}"
