import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.nn.functional import interpolate

from attnact.extract.networks.googlenet import (
    fold_batch_norms,
    googlenet_trunk,
    import_torchvision,
    random_googlenet,
    to_torchvision,
)


def pixels(n: int, seed: int = 0) -> torch.Tensor:
    small = torch.rand(n, 3, 14, 14, generator=torch.Generator().manual_seed(seed))
    return interpolate(255 * small, size=224, mode="bilinear").round()


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    return random_googlenet(pixels(2), seed=0)


@pytest.fixture
def trunk(state) -> nn.Module:
    trunk = googlenet_trunk()
    trunk.load_state_dict(state, assign=True)
    return trunk.double().eval()  # so that nothing hides behind float32's rounding


def reference(state: dict[str, torch.Tensor], images: torch.Tensor) -> torch.Tensor:
    """What torchvision itself computes at inception 5b, run as its documentation tells."""
    models = import_torchvision().models
    network = models.GoogLeNet(transform_input=True, aux_logits=False, init_weights=False)
    assert not network.load_state_dict(state, strict=False).unexpected_keys
    seen = []
    network.inception5b.register_forward_hook(lambda module, inputs, output: seen.append(output))
    preset = models.GoogLeNet_Weights.IMAGENET1K_V1.transforms()
    mean, std = (torch.tensor(x).double().view(3, 1, 1) for x in (preset.mean, preset.std))
    with torch.no_grad():
        network.double().eval()((images.double() / 255 - mean) / std)
    return seen[0]


def test_computes_what_torchvision_does(state, trunk):
    images = pixels(2, seed=1)
    with torch.no_grad():
        found = trunk(to_torchvision(images.double()))
    assert found.shape == (2, 1024, 7, 7)
    torch.testing.assert_close(found, reference(state, images), rtol=0, atol=1e-4)


def test_folding_batch_norms_changes_nothing(trunk):
    images = to_torchvision(pixels(1, seed=1).double())
    with torch.no_grad():
        before = trunk(images)
        fold_batch_norms(trunk)
        torch.testing.assert_close(trunk(images), before, rtol=0, atol=1e-9)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in trunk.modules())


def test_input_is_minus_one_to_one():
    ends = torch.tensor([0.0, 127.5, 255.0]).view(1, 3, 1, 1)
    assert to_torchvision(ends).flatten().tolist() == [-1, 0, 1]


def test_random_weights_depend_on_seed_and_frames_alone(state):
    torch.manual_seed(7)
    before = torch.get_rng_state()
    again = random_googlenet(pixels(2), seed=0)
    assert torch.equal(torch.get_rng_state(), before)
    assert again.keys() == state.keys()
    assert all(torch.equal(again[name], state[name]) for name in state)
    assert not torch.equal(
        random_googlenet(pixels(2), seed=1)["conv1.conv.weight"], state["conv1.conv.weight"]
    )
    other = random_googlenet(pixels(2, seed=9), seed=0)
    assert torch.equal(other["conv1.conv.weight"], state["conv1.conv.weight"])
    assert not torch.equal(other["conv1.bn.running_mean"], state["conv1.bn.running_mean"])


def test_calibrated_layers_are_standard_on_their_frames(trunk):
    moments = []

    def note(module, inputs, output):
        moments.append((output.mean((0, 2, 3)).abs().max(), output.var((0, 2, 3)).median()))

    for module in trunk.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_hook(note)
    with torch.no_grad():
        trunk(to_torchvision(pixels(2).double()))
    assert len(moments) == 57
    for mean, variance in moments:
        assert mean < 1e-3
        assert variance == pytest.approx(1, abs=0.05)


IMPORT = """
import sys
import torch
import attnact.extract.networks.backbone
assert "torchvision" not in sys.modules
from attnact.extract.networks.googlenet import googlenet_trunk, import_torchvision
assert len(googlenet_trunk()) == 16
assert import_torchvision() is sys.modules["torchvision"]
torch.ops.torchvision.nms, torch.ops.torchvision.qnms
"""

# As on a machine whose torchvision fits its torch: there the operators have code behind them.
OPERATORS_THERE = """
import torch
signature = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
for operator in ("nms", "qnms"):
    torch.library.define(f"torchvision::{operator}", signature)
    torch.library.impl(f"torchvision::{operator}", "cpu", lambda dets, scores, threshold: scores)
"""

STILL_THERE = """
assert torch.ops.torchvision.nms(torch.zeros(1, 4), torch.ones(1), 0.5).item() == 1
"""


@pytest.mark.parametrize("script", [IMPORT, OPERATORS_THERE + IMPORT + STILL_THERE])
def test_torchvision_is_mended_only_where_it_is_broken(script, pytestconfig):
    subprocess.run(
        [sys.executable, "-W", "error", "-c", script], check=True, cwd=pytestconfig.rootpath
    )


def test_another_failure_to_import_is_not_hidden(monkeypatch):
    class Broken:
        def find_spec(self, name, path=None, target=None):
            if name == "torchvision":
                raise RuntimeError("something else")

    monkeypatch.delitem(sys.modules, "torchvision")
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    with pytest.raises(RuntimeError, match="something else"):
        import_torchvision()
