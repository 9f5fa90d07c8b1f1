from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import local_response_norm as torch_local_response_norm

from attnact.extract.networks.bvlc_googlenet import BVLCGoogLeNet, local_response_norm, to_caffe


@pytest.fixture(scope="module")
def weights(shared: Path) -> dict[str, torch.Tensor]:
    return load_file(shared / "weights" / "bvlc_googlenet.safetensors")


def test_agrees_with_caffe(shared, weights):
    with np.load(shared / "weights" / "bvlc_googlenet_reference.npz") as file:
        data, output, prob = (
            torch.from_numpy(file[name]) for name in ("data", "inception_5b/output", "prob")
        )
    network = BVLCGoogLeNet()
    network.load_state_dict({name: weights[name] for name in network.state_dict()})
    with torch.inference_mode():
        found = network(data)
    torch.testing.assert_close(found, output, rtol=0, atol=1e-4)
    pooled = found.mean(dim=(2, 3))  # pool5/7x7_s1, then the classifier that the module leaves out
    logits = pooled @ weights["loss3/classifier.weight"].T + weights["loss3/classifier.bias"]
    torch.testing.assert_close(logits.softmax(dim=1), prob, rtol=0, atol=1e-5)


def test_has_caffes_names_and_shapes(weights):
    shapes = {name: tensor.shape for name, tensor in BVLCGoogLeNet().state_dict().items()}
    assert shapes == {n: t.shape for n, t in weights.items() if not n.startswith("loss3/")}


@pytest.mark.parametrize("size", [224, 227])
def test_gives_seven_by_seven_locations(size):
    with torch.inference_mode():
        output = BVLCGoogLeNet()(torch.zeros(1, 3, size, size))
    assert output.shape == (1, 1024, 7, 7)
    assert (output >= 0).all()


@pytest.mark.parametrize("channels", [1, 4, 64, 192])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 300.0])
def test_lrn_is_torchs(channels, scale):
    x = torch.randn(2, channels, 5, 3, generator=torch.Generator().manual_seed(channels)) * scale
    expected = torch_local_response_norm(x, size=5, alpha=1e-4, beta=0.75, k=1.0)
    torch.testing.assert_close(local_response_norm(x), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize(("dtype", "off"), [(torch.float16, 4e-3), (torch.bfloat16, 3e-2)])
def test_lrn_of_large_activations_does_not_overflow(dtype, off):
    x = torch.full((1, 8, 1, 1), 2000.0)  # whose square is beyond float16
    expected = torch_local_response_norm(x, size=5, alpha=1e-4, beta=0.75, k=1.0)
    found = local_response_norm(x.to(dtype)).float()
    torch.testing.assert_close(found, expected, rtol=off, atol=0)


def test_lrn_is_caffes_formula():
    x = torch.randn(7, generator=torch.Generator().manual_seed(0)) * 100
    expected = []
    for c in range(7):
        near = [float(x[i]) ** 2 for i in range(max(0, c - 2), min(7, c + 3))]
        expected.append(float(x[c]) / (1 + 1e-4 / 5 * sum(near)) ** 0.75)
    found = local_response_norm(x.view(1, 7, 1, 1)).flatten()
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6)


def test_input_is_bgr_minus_means():
    pixels = torch.tensor([200.0, 100.0, 50.0]).view(1, 3, 1, 1)
    assert to_caffe(pixels).flatten().tolist() == [50 - 104, 100 - 117, 200 - 123]
