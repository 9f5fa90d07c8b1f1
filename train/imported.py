"""A run whose model the released Theano code trained: to be evaluated and drawn, not resumed."""

from pathlib import Path

from attnact.cache.features import CHANNELS, FeatureCache
from attnact.errors import RunError
from attnact.model.checkpoint import Checkpoint, save_checkpoint
from attnact.released.model import load_released_model
from attnact.train.config import resolve
from attnact.train.runs import Run, create_run


def import_run(
    archive: Path, folder: Path, cache: FeatureCache, fold: str | None, inverse_temperature: float
) -> Run:
    """Makes a run in `folder` with the model of the archive and the recipe `released`.

    Args:
        archive: `model.npz`, as `actrec.py` saves it.
        folder: of the new run.
        cache: features to score; its classes are taken to stand in the model's order.
        fold: of the cache; None for its first.
        inverse_temperature: the option `temperature_inverse` that the model was trained with.

    Raises:
        RunError: the archive is damaged or does not fit the cache, or the folder holds a run.
    """
    model = load_released_model(archive, inverse_temperature)
    shape = model.config
    if shape.channels != CHANNELS:
        raise RunError(f"{archive}: sees {shape.channels} channels; feature cubes have {CHANNELS}")
    if shape.classes != len(cache.classes):
        raise RunError(
            f"{archive}: knows {shape.classes} classes, {cache.path} has {len(cache.classes)}"
        )
    choices = {
        "recipe": "released",
        "fold": fold,
        "attention_layers": shape.attention_layers,
        "hidden_size": shape.hidden_size,
    }
    run = create_run(folder, resolve(choices, cache), cache)
    features = {**cache.provenance, "model_imported_from": archive.name}
    save_checkpoint(run.model, Checkpoint(model, cache.classes, cache.multi_label, features))
    return run
