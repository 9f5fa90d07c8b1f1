"""Every choice of a training run, written once: the command line and the files come from here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin, get_type_hints

from attnact.errors import RunError
from attnact.vocabulary import (
    AttentionForm,
    BatchLoss,
    ClipForm,
    DropoutForm,
    InitialWeights,
    ModelKind,
    Optimizer,
    PenaltyForm,
    Recipe,
    TrainPrecision,
    Vote,
)

if TYPE_CHECKING:
    from attnact.cache.features import FeatureCache

CLIP_FRAMES = 30  # T; the paper's blocks


@dataclass(frozen=True)
class TrainConfig:
    """What a run does; `resolve` fills in what the recipe and the data set decide.

    The words beside each type are the help of the command line's option of that name.
    """

    recipe: Annotated[Recipe, "Where every choice not made here comes from."] = "paper"
    fold: Annotated[str, "To train and test on.  [default: the cache's first]"] = ""
    seed: Annotated[int, "Of whatever is drawn: weights, dropout, clips, held-out videos."] = 0
    model: Annotated[ModelKind, "The paper's model, or a baseline of its Table 1."] = "attention"
    attention: Annotated[AttentionForm, "Attention from the state alone, or the frame too."] = (
        "location"
    )
    attention_layers: Annotated[int, "Affine layers on the features in context attention."] = 1
    lstm_layers: Annotated[int, "Stacked LSTM layers, 1 to 5."] = 3
    hidden_size: Annotated[int, "Hidden size H of each LSTM layer; 1024 for HMDB-51."] = 512
    dropout: Annotated[float, "Share of the units dropped."] = 0.5
    dropout_form: Annotated[DropoutForm, "Which connections are dropped, and how."] = "paper"
    attention_penalty: Annotated[float, "λ: how hard attention is pushed to look everywhere."] = 0.0
    penalty_form: Annotated[PenaltyForm, "Sum over locations (paper) or mean (released code)."] = (
        "sum"
    )
    weight_decay: Annotated[float, "γ: weight of Σθ² in the loss."] = 1e-5
    batch_loss: Annotated[BatchLoss, "How the losses of a batch's clips become one."] = "mean"
    initial_weights: Annotated[InitialWeights, "torch's own, or the released code's."] = "torch"
    optimizer: Annotated[Optimizer, "Adam, or Adam as the released code runs it."] = "adam"
    learning_rate: Annotated[float, "Step size of Adam."] = 1e-3
    batch_size: Annotated[int, "Clips a step."] = 128
    precision: Annotated[TrainPrecision, "Of the products while training."] = "float32"
    epochs: Annotated[int, "Passes over the training clips, at most."] = 15
    validation: Annotated[float, "Share of the groups held out to choose the epoch; 0: none."] = (
        0.15
    )
    fps: Annotated[float, "Frame rate of the clips: every 1st, 2nd, 5th cached frame."] = 30.0
    test_fps: Annotated[
        float | None, "Frame rate of the scored clips.  [default: as in training]"
    ] = None
    train_stride: Annotated[int, "Frames between the starts of training clips."] = 1
    clips_per_video: Annotated[
        int | None, "How many of them a video and epoch, drawn anew.  [default: all]"
    ] = None
    test_stride: Annotated[int, "Frames between the starts of scored clips."] = 1
    clip_form: Annotated[ClipForm, "Where clips begin; whether their repeats count."] = "paper"
    scored_steps: Annotated[int, "Steps at the end of a clip that make its scores."] = CLIP_FRAMES
    vote: Annotated[Vote, "How the clips of a video become its scores."] = "mean"

    def __post_init__(self) -> None:
        """Raises ValueError for a value of the wrong kind, or out of range."""
        _check(self)


# What the released Theano code does where it differs from the paper (`src/actrec.py`).
_RELEASED: Mapping[str, Any] = {
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
# What its scripts choose for each data set (`scripts/evaluate_*.py`).
_RELEASED_FOR: Mapping[str, Mapping[str, Any]] = {
    "hmdb51": {"attention_layers": 3, "scored_steps": 16},
    "hollywood2": {"scored_steps": 16, "vote": "mean"},
}
# The paper's, on a fifth of its training clips, for neighbours share 29 of 30 frames. It is the
# cheapest of those tried that lies within the noise of the paper's (docs/performance.md).
_FAST: Mapping[str, Any] = {"train_stride": 5}
_HIDDEN_SIZES: Mapping[str, int] = {"ucf11": 512, "hmdb51": 1024, "hollywood2": 512}  # section 4.2


def resolve(choices: Mapping[str, Any], cache: "FeatureCache") -> TrainConfig:
    """The config of a run: what the user chose, else the recipe, else what fits the data set.

    Raises:
        RunError: the cache has no such fold.
        ValueError: a choice of the wrong kind, or out of range.
    """
    chosen = {name: value for name, value in choices.items() if value is not None}
    recipe: Mapping[str, Any] = {}
    if chosen.get("recipe") == "released":
        recipe = {**_RELEASED, **_RELEASED_FOR.get(cache.name, {})}
    elif chosen.get("recipe") == "fast":
        recipe = _FAST
    decided = {"hidden_size": _HIDDEN_SIZES.get(cache.name, 512), **recipe, **chosen}
    decided.setdefault("fold", next(iter(cache.folds), ""))
    config = TrainConfig(**decided)
    if config.fold not in cache.folds:
        known = ", ".join(cache.folds) or "none"
        if config.fold == "all":
            known += "; `attnact sweep-lambda --lambdas 0 --folds all` trains a run on each"
        raise RunError(f"{cache.path}: no fold {config.fold!r}; it has {known}")
    return config


# What each model does not read.
_ATTENTION_ALONE = ("attention", "attention_layers", "attention_penalty", "penalty_form")
_LSTM_ALONE = ("lstm_layers", "hidden_size", "dropout", "dropout_form")
_UNREAD: Mapping[str, Sequence[str]] = {
    "attention": (),
    "average": _ATTENTION_ALONE,
    "max": _ATTENTION_ALONE,
    "softmax": (*_ATTENTION_ALONE, *_LSTM_ALONE),
}


def idle(config: TrainConfig) -> list[str]:
    """The choices that the model of the run does not read."""
    names = list(_UNREAD[config.model])
    if config.attention == "location" and config.model == "attention":
        names.append("attention_layers")
    return names


def effective(config: TrainConfig) -> TrainConfig:
    """The config with its default for each choice that the model of the run does not read."""
    usual = TrainConfig()
    return replace(config, **{name: getattr(usual, name) for name in idle(config)})


def unread(choices: Mapping[str, Any], config: TrainConfig) -> list[str]:
    """What the user chose, other than its default, and the model of the run does not read."""
    usual = TrainConfig()
    return [name for name in idle(config) if choices.get(name) not in (None, getattr(usual, name))]


_WIDER: Mapping[Any, Any] = {
    float: (int, float),
    float | None: (int, float, type(None)),
    int | None: (int, type(None)),
}


def _check(config: TrainConfig) -> None:
    for name, kind in get_type_hints(TrainConfig).items():
        value = getattr(config, name)
        if get_origin(kind) is Literal:
            words = get_args(kind)
            _require(value in words, f"{name} must be one of {', '.join(words)}")
        else:
            # True is a 1 to Python, and not to torch.
            fits = isinstance(value, _WIDER.get(kind, kind)) and not isinstance(value, bool)
            _require(fits, f"{name} must be of the kind {getattr(kind, '__name__', kind)}")
    for name in ("attention_layers", "hidden_size", "batch_size", "epochs"):
        _require(getattr(config, name) >= 1, f"{name} must be at least 1")
    few = config.clips_per_video
    _require(few is None or few >= 1, "clips_per_video must be at least 1")
    for name in ("train_stride", "test_stride"):
        _require(getattr(config, name) >= 1, f"{name} must be at least 1 frame")
    for name in ("attention_penalty", "weight_decay"):
        _require(getattr(config, name) >= 0, f"{name} must not be negative")
    _require(0 <= config.seed < 1 << 32, "seed must be at least 0 and below 2^32")
    _require(1 <= config.scored_steps <= CLIP_FRAMES, f"scored_steps must be 1 to {CLIP_FRAMES}")
    seeing = config.model == "attention" or not config.attention_penalty
    _require(seeing, f"attention_penalty must be 0: the {config.model} model has no attention")
    _require(1 <= config.lstm_layers <= 5, "lstm_layers must be 1 to 5")
    _require(0 <= config.dropout < 1, "dropout must be at least 0 and below 1")
    _require(0 <= config.validation < 1, "validation must be at least 0 and below 1")
    _require(config.learning_rate > 0, "learning_rate must be above 0")
    _require(config.fps > 0, "fps must be above 0")
    _require(config.test_fps is None or config.test_fps > 0, "test_fps must be above 0")


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise ValueError(message)
