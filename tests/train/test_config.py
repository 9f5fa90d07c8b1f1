"""Where each choice of a run comes from, and what is refused."""

import math
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from attnact.errors import RunError
from attnact.model.models import ModelConfig, build_model
from attnact.train.config import CLIP_FRAMES, TrainConfig, resolve, unread

CACHE: Any = SimpleNamespace(name="ucf11", path=Path("x.h5"), folds={"groups": [], "loo1": []})


def of(name: str) -> Any:
    return SimpleNamespace(**{**vars(CACHE), "name": name})


def test_paper() -> None:
    """Sections 3 and 4 of the paper, where it says."""
    config = resolve({}, CACHE)
    assert CLIP_FRAMES == 30
    assert (config.recipe, config.fold, config.attention) == ("paper", "groups", "location")
    assert (config.lstm_layers, config.dropout, config.dropout_form) == (3, 0.5, "paper")
    assert (config.attention_penalty, config.penalty_form) == (0, "sum")
    assert (config.weight_decay, config.epochs, config.validation) == (1e-5, 15, 0.15)
    assert (config.batch_size, config.fps, config.train_stride) == (128, 30, 1)
    assert (config.clip_form, config.vote) == ("paper", "mean")


def test_released() -> None:
    config = resolve({"recipe": "released"}, CACHE)
    differs = {
        "recipe": "released",
        "attention": "context",
        "lstm_layers": 1,
        "dropout_form": "released",
        "penalty_form": "mean",
        "batch_loss": "sum",
        "initial_weights": "released",
        "optimizer": "released",
        "learning_rate": 2e-4,
        "clip_form": "released",
        "vote": "majority",
    }
    assert config == replace(resolve({}, CACHE), **differs)


@pytest.mark.parametrize(
    ("name", "layers", "steps", "vote"),
    [("ucf11", 1, 30, "majority"), ("hmdb51", 3, 16, "majority"), ("hollywood2", 1, 16, "mean")],
)
def test_released_for_each_data_set(name: str, layers: int, steps: int, vote: str) -> None:
    """As its evaluate_ucf11.py, evaluate_hmdb51gln.py and evaluate_mAP.py choose."""
    config = resolve({"recipe": "released"}, of(name))
    assert (config.attention_layers, config.scored_steps, config.vote) == (layers, steps, vote)


@pytest.mark.parametrize("model", ["average", "max", "softmax"])
def test_no_penalty_without_attention(model: str) -> None:
    assert resolve({"model": model}, CACHE).attention_penalty == 0
    with pytest.raises(ValueError, match="attention_penalty must be 0"):
        resolve({"model": model, "attention_penalty": 1.0}, CACHE)


@pytest.mark.parametrize(
    ("choices", "names"),
    [
        ({"attention": "context", "attention_layers": 2, "hidden_size": 8}, []),
        ({"attention_layers": 2}, ["attention_layers"]),
        ({"model": "max", "attention": "context", "lstm_layers": 1}, ["attention"]),
        ({"model": "softmax", "lstm_layers": 1, "epochs": 2}, ["lstm_layers"]),
        ({"model": "softmax", "attention": "location", "hidden_size": 512}, []),
        ({"model": "average", "recipe": "released"}, []),
    ],
)
def test_what_a_model_does_not_read(choices: dict[str, Any], names: list[str]) -> None:
    """Of what was chosen; the defaults that the config of a run spells out are no choices."""
    assert unread(choices, resolve(choices, CACHE)) == names


@pytest.mark.parametrize("kind", ["average", "max", "softmax"])
@pytest.mark.parametrize("name", ["attention", "attention_layers", "lstm_layers", "dropout_form"])
def test_a_model_is_the_same_whatever_it_does_not_read(kind: str, name: str) -> None:
    """Held against the model itself: its parameters and what it computes."""
    usual: dict[str, Any] = {"classes": 2, "kind": kind, "hidden_size": 4, "channels": 3}
    other = {"attention": "context", "attention_layers": 2, "lstm_layers": 1}
    other["dropout_form"] = "released"
    X, mask = torch.rand(2, 3, 49, 3), torch.ones(2, 3)
    scores = []
    for choice in ({}, {name: other[name]}):
        torch.manual_seed(0)
        model = build_model(ModelConfig(**usual, **choice))
        scores.append(model(X, mask)[0])
    config = resolve({"model": kind}, CACHE)
    assert torch.equal(*scores) == bool(unread({name: other[name]}, config))


def test_the_fast_recipe_is_the_papers_on_a_fifth_of_the_clips() -> None:
    fast, paper = (resolve({"recipe": recipe}, CACHE) for recipe in ("fast", "paper"))
    assert replace(fast, recipe="paper", train_stride=1) == paper
    assert fast.train_stride == 5
    assert resolve({"recipe": "fast", "train_stride": 3}, CACHE).train_stride == 3


@pytest.mark.parametrize(
    ("name", "hidden_size"), [("ucf11", 512), ("hmdb51", 1024), ("hollywood2", 512), ("mine", 512)]
)
@pytest.mark.parametrize("recipe", ["paper", "released", "fast"])
def test_hidden_size_of_the_data_set(name: str, hidden_size: int, recipe: str) -> None:
    assert resolve({"recipe": recipe}, of(name)).hidden_size == hidden_size


def test_choices_win() -> None:
    choices = {"hidden_size": 8, "lstm_layers": 2, "fold": "loo1", "vote": "mean"}
    config = resolve({"recipe": "released", "seed": None, **choices}, of("hmdb51"))
    assert choices.items() <= asdict(config).items()
    assert (config.attention, config.seed) == ("context", 0)


@pytest.mark.parametrize("fold", ["1", "", "Groups"])
def test_unknown_fold(fold: str) -> None:
    with pytest.raises(RunError, match=rf"x.h5: no fold '{fold}'; it has groups, loo1"):
        resolve({"fold": fold}, CACHE)


def test_all_folds_are_for_a_sweep() -> None:
    with pytest.raises(RunError, match="`attnact sweep-lambda --lambdas 0 --folds all`"):
        resolve({"fold": "all"}, CACHE)


def test_a_cache_without_folds() -> None:
    with pytest.raises(RunError, match=r"x\.h5: no fold ''; it has none"):
        resolve({}, SimpleNamespace(**{**vars(CACHE), "folds": {}}))  # type: ignore[arg-type]


OUT_OF_RANGE = {
    "attention_layers": [0, -1],
    "lstm_layers": [0, 6],
    "hidden_size": [0],
    "batch_size": [0],
    "epochs": [0, -3],
    "train_stride": [0],
    "test_stride": [0],
    "seed": [-1],
    "attention_penalty": [-0.1, math.nan],
    "weight_decay": [-1e-9, math.nan],
    "learning_rate": [0, -1e-3, math.nan],
    "dropout": [-0.1, 1, math.nan],
    "validation": [-0.1, 1, math.nan],
    "fps": [0, -30, math.nan],
    "test_fps": [0, -30, math.nan],
}
WRONG_KIND = {
    "attention": ["both", None, 1],
    "recipe": ["", "PAPER"],
    "dropout_form": ["none"],
    "penalty_form": ["max"],
    "clip_form": ["dropped"],
    "vote": ["median"],
    "hidden_size": [3.5, "8"],
    "epochs": ["15"],
    "fps": ["30"],
    "test_fps": ["30"],
    "fold": [1],
}
WRONG = [
    (name, value)
    for wrong in (OUT_OF_RANGE, WRONG_KIND)
    for name, values in wrong.items()
    for value in values
]


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_wrong_values_are_named(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{name} must"):
        TrainConfig(**{name: value})
    if value is not None:  # which means that nothing was chosen
        with pytest.raises(ValueError, match=f"^{name} must"):
            resolve({name: value}, CACHE)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("lstm_layers", [1, 5]),
        ("dropout", [0, 0.99]),
        ("validation", [0.0, 0.5]),
        ("attention_penalty", [0, 10]),
        ("weight_decay", [0]),
    ],
)
def test_ends_of_the_ranges(name: str, values: list[Any]) -> None:
    assert [getattr(resolve({name: value}, CACHE), name) for value in values] == values


def test_what_is_written_reads_back() -> None:
    config = resolve({"recipe": "released", "seed": 3}, CACHE)
    assert TrainConfig(**asdict(config)) == config


def test_a_change_is_checked_too() -> None:
    with pytest.raises(ValueError, match=r"^attention_penalty must"):
        replace(TrainConfig(), attention_penalty=-1.0)
