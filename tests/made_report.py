"""A report of small runs whose class names would act if they could, and the page read again."""

import json
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import torch

from attnact.cache.features import FeatureCache
from attnact.page.write import write_page
from attnact.train.config import TrainConfig
from attnact.train.feed.store import open_store, videos_in
from attnact.train.loop import train
from attnact.train.runs import create_run

HOSTILE = ["</script><script>alert(1)</script>", "\"a\" & 'b' {{ 7 * 7 }}", "run|<img src=x>"]
CPU = torch.device("cpu")
CONFIG: dict[str, Any] = {"lstm_layers": 1, "hidden_size": 4, "epochs": 2, "batch_size": 8}
RUNS = {
    "first-fold1-seed0": {"fold": "1"},
    "first-fold2-seed0": {"fold": "2"},
    "even": {"fold": "1", "attention_penalty": 10.0, "validation": 0.15},
    "mean": {"fold": "1", "model": "average"},
}


class Page(HTMLParser):
    """Every tag with its attributes, and the text inside each element that has an id."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.scripts: list[str] = []
        self.tables: list[list[list[str]]] = []
        self._in, self._script = "", False
        self.source = file.read_text(encoding="utf-8")
        self.feed(self.source)
        self.data: dict[str, Any] = json.loads(self.scripts[0]) if len(self.scripts) > 1 else {}

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")
        elif tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
        self._in = tag if tag in ("script", "style", "td", "th") else self._in

    def handle_endtag(self, tag):
        self._in = "" if tag == self._in else self._in

    def handle_data(self, data):
        if self._in == "script":
            self.scripts[-1] += data
        elif self._in != "style":
            self.text += data
        if self._in in ("td", "th"):
            self.tables[-1][-1][-1] += data.strip()

    def all(self, tag: str, name: str) -> list[str | None]:
        return [
            attributes[name] for it, attributes in self.tags if it == tag and name in attributes
        ]


def train_runs(folder: Path, cache: FeatureCache, runs: dict[str, dict[str, Any]]) -> None:
    for name, choices in runs.items():
        config = TrainConfig(**{"validation": 0.0, **CONFIG, **choices})
        run = create_run(folder / name, config, cache)
        train(run, cache, open_store(cache, videos_in(cache, [config.fold]), "host", CPU))


def make_report(folder: Path, make_cache: Callable[..., FeatureCache], make_clip: Any) -> None:
    """Four runs in `runs` on a cache whose test videos are there, and the page of them."""
    cache = make_cache(folder / "small.h5", classes=HOSTILE, frames=lambda video: 33 + video)
    for video, path in enumerate(cache.paths[:6]):
        (folder / path).parent.mkdir(exist_ok=True)
        make_clip(folder / path, frames=33 + video, seed=video)
    train_runs(folder / "runs", cache, RUNS)
    (folder / "runs" / "sweep.csv").write_text("λ,accuracy %,a,b,seeds\n0,1.00,<b>2</b>,3,1\n")
    sweep = [{"penalty": 0, "values": [0.1, 0.2], "entropy": [3.0, 3.1], "spread": [0.5, 0.6]}]
    (folder / "runs" / "sweep.json").write_text(json.dumps(sweep))
    assert write_page([folder / "runs"], folder / "report.html", 24, CPU) == []
