"""The released code's model, held by what it computed itself; and its archives as runs of ours."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from attnact import cli
from attnact.errors import RunError
from attnact.model.checkpoint import load_checkpoint
from attnact.model.models import build_model
from attnact.released.model import load_released_model, released_shape, released_weights
from attnact.train.imported import import_run
from attnact.train.loss import clip_loss
from attnact.train.optimizer import ReleasedAdam

REFERENCES = ["released_context", "released_context_deep"]
OPTIONS = {  # alpha_c and temperature_inverse
    "released_context": (1.0, 1.0),
    "released_context_deep": (0.7, 2.0),
}


def close(found: torch.Tensor, expected: Any) -> None:
    """Within 1e-5 of the largest value; single values may be far smaller than their rounding."""
    found, expected = found.detach().numpy(), np.asarray(expected)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


def part(file: Any, kind: str) -> dict[str, Any]:
    return {name[len(kind) + 1 :]: file[name] for name in file if name.startswith(f"{kind}/")}


@pytest.mark.parametrize("name", REFERENCES)
def test_maps_probabilities_cost_gradients_and_three_steps(name: str, shared: Path) -> None:
    file = np.load(shared / f"reference/{name}.npz")
    penalty, sharpness = OPTIONS[name]
    assert f"'temperature_inverse': {sharpness}" in str(file["options"])
    X, y, mask = (torch.from_numpy(file[key]).transpose(0, 1) for key in ("x", "y", "mask"))
    shape = released_shape(part(file, "param"), sharpness, locations=X.shape[2])
    model = build_model(shape).eval()  # its dropout was off
    model.load_state_dict(released_weights(part(file, "param")))

    scores, maps = model(X, mask)
    close(maps, file["alphas"].transpose(1, 0, 2))
    close(scores.softmax(-1), file["probs"].transpose(1, 0, 2))
    assert scores.softmax(-1).sum(1).argmax(1).tolist() == file["preds"].tolist()

    optimizer = ReleasedAdam(model.parameters(), lr=2e-4, weight_decay=2e-5)
    grads, after = (released_weights(part(file, kind)) for kind in ("grad", "after3"))
    for step, expected in enumerate(file["adam_costs"]):
        scores, maps = model(X, mask)
        loss = clip_loss(scores, maps, y[:, 0], mask, "mean")
        clips = (loss.cross_entropy + penalty * loss.penalty).sum()
        decay = 1e-5 * sum(theta.square().sum() for theta in model.parameters())
        assert (clips + decay).item() == pytest.approx(expected, rel=1e-5)
        if step == 0:
            assert loss.cross_entropy.sum().item() == pytest.approx(float(file["nll"]), rel=1e-5)
            (
                slopes := dict(
                    zip(
                        grads,
                        torch.autograd.grad(
                            clips + decay,
                            [model.get_parameter(key) for key in grads],
                            retain_graph=True,
                        ),
                        strict=True,
                    )
                )
            )
            for key, slope in slopes.items():
                if key != "attention.scores.bias":  # no map depends on it: theirs is rounding
                    close(slope, grads[key])
        optimizer.zero_grad()
        clips.backward()
        optimizer.step()
    for key, theta in model.named_parameters():
        # Adam's steps are as long where a slope is nearly 0; which way is a matter of rounding.
        slope = np.abs(np.asarray(grads[key]))
        steep = slope > 1e-5 * slope.max()
        assert steep.mean() > 0.25 or key == "attention.scores.bias"  # dead units have no slope
        if key != "attention.scores.bias":
            close(theta[steep], after[key][steep])


def archive(path: Path, classes: int = 3, **extra: Any) -> dict[str, Any]:
    """A model.npz of the released code for real feature cubes, with 4 units."""
    random = np.random.default_rng(0)
    C, H, D = 1024, 4, 5
    shapes = {
        "ff_state_W": (C, H), "ff_state_b": (H,), "ff_memory_W": (C, H), "ff_memory_b": (H,),
        "decoder_W": (C, 4 * H), "decoder_U": (H, 4 * H), "decoder_b": (4 * H,),
        "decoder_Wc_att": (C, C), "decoder_Wd_att": (H, C), "decoder_b_att": (C,),
        "decoder_U_att": (C, 1), "decoder_c_tt": (1,),
        "ff_logit_lstm_W": (H, D), "ff_logit_lstm_b": (D,),
        "ff_logit_W": (D, classes), "ff_logit_b": (classes,),
    }  # fmt: skip
    content = {name: random.normal(0, 0.1, s).astype(np.float32) for name, s in shapes.items()}
    content |= extra
    np.savez(path, history_errs=np.zeros((2, 2)), **content)
    return content


def theano(p: dict[str, Any], x: Any) -> Any:
    """Probabilities (T, N) of one clip (T, L, C) in testing, written from its `build_model`."""
    sigmoid = lambda a: 1 / (1 + np.exp(-a))  # noqa: E731
    p = {name: value.astype(np.float64) for name, value in p.items()}
    mean = x.mean((0, 1))
    h, c = (np.tanh(mean @ p[f"ff_{s}_W"] + p[f"ff_{s}_b"]) for s in ("state", "memory"))
    probabilities = []
    for frame in x:
        seen = np.tanh(frame @ p["decoder_Wc_att"] + p["decoder_b_att"] + h @ p["decoder_Wd_att"])
        e = (seen @ p["decoder_U_att"] + p["decoder_c_tt"])[:, 0]
        glimpse = np.exp(e) / np.exp(e).sum() @ frame
        gates = glimpse @ p["decoder_W"] + h @ p["decoder_U"] + p["decoder_b"]
        i, f, o, g = np.split(gates, 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        logit = np.tanh(0.5 * h @ p["ff_logit_lstm_W"] + p["ff_logit_lstm_b"]) * 0.5
        logit = logit @ p["ff_logit_W"] + p["ff_logit_b"]
        probabilities.append(np.exp(logit) / np.exp(logit).sum())
    return np.array(probabilities)


def test_an_archive_becomes_a_run(tmp_path: Path, make_cache: Any) -> None:
    cache = make_cache(tmp_path / "c.h5", videos=6)
    content = archive(tmp_path / "model.npz", len(cache.classes))
    run = import_run(tmp_path / "model.npz", tmp_path / "run", cache, None, 1.0)
    checkpoint = load_checkpoint(run.model)
    assert checkpoint.features["model_imported_from"] == "model.npz"
    assert checkpoint.classes == cache.classes
    assert (run.config.recipe, run.config.hidden_size) == ("released", 4)
    X = torch.rand(1, 4, 49, 1024)
    scores, _ = checkpoint.model(X, torch.ones(1, 4))
    close(scores[0].softmax(-1), theano(content, X[0].double().numpy()))


def test_an_archive_is_imported_and_scored_by_command(
    tmp_path: Path, make_cache: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = make_cache(tmp_path / "features" / "c.h5", videos=6)
    archive(tmp_path / "model.npz", len(cache.classes))
    monkeypatch.chdir(tmp_path)
    for arguments in (["import-released-model", "model.npz"], ["evaluate", "runs/c/released"]):
        result = CliRunner().invoke(cli.main, arguments)
        assert (result.exit_code, "runs/c/released" in result.stdout) == (0, True), result.stderr
    assert Path("runs/c/released/confusion.png").is_file()
    report = CliRunner().invoke(cli.main, ["report", "runs/c/released", "--videos", "0"])
    assert (report.exit_code, report.stderr) == (0, "")
    again = CliRunner().invoke(cli.main, ["train", "--resume", "runs/c/released"])
    assert (again.exit_code, "not what it takes to train it" in again.stderr) == (1, True)


def test_temperature(tmp_path: Path) -> None:
    archive(tmp_path / "model.npz")
    X, mask = torch.rand(1, 2, 49, 1024), torch.ones(1, 2)
    _, soft = load_released_model(tmp_path / "model.npz", 1.0)(X, mask)
    _, sharp = load_released_model(tmp_path / "model.npz", 3.0)(X, mask)
    torch.testing.assert_close(sharp[:, 0], (soft[:, 0] ** 3 / (soft[:, 0] ** 3).sum()))


def test_what_does_not_fit_is_refused(tmp_path: Path, make_cache: Any) -> None:
    cache = make_cache(tmp_path / "c.h5", videos=6)
    archive(tmp_path / "classes.npz", classes=7)
    archive(tmp_path / "sel.npz", decoder_W_sel=np.zeros(3))
    archive(tmp_path / "shape.npz", decoder_b=np.zeros(3, np.float32))
    np.savez(tmp_path / "other.npz", weights=np.zeros(3))
    np.savez(tmp_path / "pickle.npz", ff_state_W=np.array([{}], dtype=object))
    (tmp_path / "empty.npz").write_bytes(b"")
    for name, words in (
        ("classes", "knows 7 classes"),
        ("sel", "selector=True"),
        ("shape", "damaged"),
        ("other", "not a model of the released code"),
        ("pickle", "not an archive"),
        ("empty", "not an archive"),
        ("none", "no such file"),
    ):
        with pytest.raises(RunError, match=words):
            import_run(tmp_path / f"{name}.npz", tmp_path / "run", cache, None, 1.0)
    assert not (tmp_path / "run").exists()
