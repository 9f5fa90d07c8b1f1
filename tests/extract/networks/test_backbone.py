import hashlib

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn.functional import interpolate

from attnact.errors import WeightsError
from attnact.extract.networks import runtime
from attnact.extract.networks.backbone import BACKBONES, Backbone, load_backbone
from attnact.extract.networks.bvlc_googlenet import BVLCGoogLeNet, to_caffe
from attnact.extract.networks.googlenet import googlenet_trunk, to_torchvision
from attnact.extract.networks.weights import PUBLISHED, Published
from tests.servers import http_server


def some_frames(n: int, seed: int = 0) -> torch.Tensor:
    small = torch.rand(n, 3, 14, 14, generator=torch.Generator().manual_seed(seed))
    images = interpolate(255 * small, size=224, mode="bilinear").round()
    return images.permute(0, 2, 3, 1).to(torch.uint8).contiguous()


@pytest.fixture(scope="module")
def random_backbone() -> Backbone:
    return load_backbone("googlenet", "random", calibration=some_frames(2))


@pytest.fixture(scope="module")
def caffe(tmp_path_factory) -> Backbone:
    """Caffe's network with weights of no use."""
    path = tmp_path_factory.mktemp("weights") / "untrained.safetensors"
    save_file(BVLCGoogLeNet().state_dict(), path)
    return load_backbone("bvlc_googlenet", path)


def test_googlenet_is_its_trunk_on_frames_normalised_once(random_backbone, tmp_path):
    random_backbone.save(tmp_path / "weights.safetensors")
    trunk = googlenet_trunk()
    trunk.load_state_dict(load_file(tmp_path / "weights.safetensors"), assign=True)
    frames = some_frames(3, seed=1)
    with torch.no_grad():
        expected = trunk.double().eval()(to_torchvision(frames.permute(0, 3, 1, 2).double()))
    cubes = random_backbone(frames)
    assert cubes.shape == (3, 7, 7, 1024)
    assert cubes.dtype == torch.float32
    assert cubes.is_contiguous()
    # In float32 torchvision's own network, with these weights, is up to 1.3e-4 off as well.
    expected = expected.permute(0, 2, 3, 1).float()
    torch.testing.assert_close(cubes, expected, rtol=0, atol=3e-4)


def test_bvlc_googlenet_is_caffes_network_on_bgr_frames(shared):
    path = shared / "weights" / "bvlc_googlenet.safetensors"
    backbone = load_backbone("bvlc_googlenet", path)
    assert (backbone.name, backbone.weights) == ("bvlc_googlenet", "bvlc_googlenet.safetensors")
    assert not backbone.is_random
    assert backbone.device == torch.device("cpu")
    network = BVLCGoogLeNet()
    weights = load_file(path)
    network.load_state_dict({name: weights[name] for name in network.state_dict()})
    frames = some_frames(2)
    with torch.no_grad():
        expected = network(to_caffe(frames.permute(0, 3, 1, 2).float()))
    torch.testing.assert_close(backbone(frames), expected.permute(0, 2, 3, 1), rtol=0, atol=1e-4)


def test_cubes_for_a_cache_lie_in_memory_as_they_will_there(random_backbone):
    frames = some_frames(2)
    cubes = random_backbone.start(frames)()
    assert cubes.dtype == torch.float16
    assert cubes.permute(0, 3, 1, 2).is_contiguous()
    assert torch.equal(cubes, random_backbone(frames).half())


@pytest.mark.parametrize("name", BACKBONES)
def test_the_size_of_a_batch_does_not_matter(name, random_backbone, caffe, monkeypatch):
    backbone = random_backbone if name == "googlenet" else caffe
    frames = some_frames(5)
    whole = backbone(frames)
    monkeypatch.setattr(runtime, "FRAMES_AT_ONCE", 2)
    torch.testing.assert_close(backbone(frames), whole, rtol=0, atol=3e-4)
    torch.testing.assert_close(backbone(frames[3:4])[0], whole[3], rtol=0, atol=3e-4)
    assert backbone(frames[:0]).shape == (0, 7, 7, 1024)


def test_frames_that_do_not_lie_in_one_piece_are_read_right(random_backbone):
    frames = some_frames(4)
    wide = frames.permute(1, 2, 3, 0).contiguous().permute(3, 0, 1, 2)[::2]
    torch.testing.assert_close(random_backbone(wide), random_backbone(frames[::2].clone()))


@pytest.mark.parametrize(
    "frames",
    [
        torch.zeros(1, 3, 224, 224, dtype=torch.uint8),
        torch.zeros(224, 224, 3, dtype=torch.uint8),
        torch.zeros(1, 224, 224, 3),
        torch.zeros(1, 240, 320, 3, dtype=torch.uint8),
    ],
)
def test_refuses_what_are_no_frames(random_backbone, frames):
    with pytest.raises(ValueError, match="a backbone takes frames"):
        random_backbone(frames)
    with pytest.raises(ValueError, match="a backbone takes frames"):
        load_backbone("googlenet", "random", calibration=frames)


def test_random_weights_do_not_collapse(random_backbone):
    assert random_backbone.is_random
    assert random_backbone.weights == "random (seed 0), batch norms calibrated on 2 frames"
    cubes = random_backbone(some_frames(3, seed=5))
    assert 0.3 < (cubes > 0).float().mean() < 0.7
    assert (cubes[0] - cubes[1]).abs().mean() > 0.1 * cubes.mean()
    assert (cubes[0, 0, 0] - cubes[0, 6, 6]).abs().mean() > 0.1 * cubes.mean()


def test_random_weights_come_of_seed_and_frames(random_backbone):
    frames = some_frames(2)
    assert load_backbone("googlenet", "random", calibration=frames).digest == random_backbone.digest
    other_frames = load_backbone("googlenet", "random", calibration=frames[:1])
    assert random_backbone.digest != other_frames.digest
    assert other_frames.weights == "random (seed 0), batch norms calibrated on 1 frames"


def test_saved_weights_are_the_same_when_loaded(random_backbone, caffe, tmp_path):
    for backbone in (random_backbone, caffe):
        path = tmp_path / f"{backbone.name}.safetensors"
        backbone.save(path)
        loaded = load_backbone(backbone.name, path)
        assert loaded.digest == backbone.digest
        assert torch.equal(loaded(some_frames(2)), backbone(some_frames(2)))
        assert loaded.is_random == backbone.is_random
        assert list(tmp_path.iterdir()) == [path]
        path.unlink()


def test_saved_random_weights_stay_marked(random_backbone, tmp_path):
    path = tmp_path / "harmless.safetensors"
    random_backbone.save(path)
    assert load_backbone("googlenet", str(path)).weights == random_backbone.weights


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("resnet",), "no backbone 'resnet': choose one of googlenet, bvlc_googlenet"),
        (("bvlc_googlenet", "random", "cpu", some_frames(1)), "random weights are for googlenet"),
        (("googlenet", "random"), "need frames to calibrate on"),
        (("googlenet", "random", "cpu", some_frames(0)), "need frames to calibrate on"),
    ],
)
def test_refuses_arguments_that_do_not_fit(arguments, why):
    with pytest.raises(ValueError, match=why):
        load_backbone(*arguments)


def test_refuses_the_other_networks_weights(random_backbone, caffe, tmp_path):
    random_backbone.save(tmp_path / "a.safetensors")
    with pytest.raises(WeightsError, match=r"a.safetensors lacks conv1/7x7_s2.weight: "):
        load_backbone("bvlc_googlenet", tmp_path / "a.safetensors")
    caffe.save(tmp_path / "b.safetensors")
    with pytest.raises(WeightsError, match=r"b.safetensors lacks conv1.conv.weight: "):
        load_backbone("googlenet", tmp_path / "b.safetensors")


def test_fetches_torchvisions_weights(random_backbone, tmp_path, monkeypatch):
    """The file as torchvision made it: with auxiliary classifiers, a head, and counters."""
    random_backbone.save(tmp_path / "state.safetensors")
    state = load_file(tmp_path / "state.safetensors")
    state.update({"aux1.fc1.weight": torch.zeros(1), "aux2.fc1.weight": torch.zeros(1)})
    state.update({"fc.bias": torch.ones(1000), "conv1.bn.num_batches_tracked": torch.tensor(9)})
    torch.save(state, tmp_path / "published.pth")
    body = (tmp_path / "published.pth").read_bytes()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with http_server(body) as web:
        digest = hashlib.sha256(body).hexdigest()[:8]
        published = Published("V1", web.url + ".pth", "sha256", digest)
        monkeypatch.setitem(PUBLISHED, "googlenet", published)
        fetched = load_backbone("googlenet")
    assert load_backbone("googlenet").digest == fetched.digest == random_backbone.digest
    assert fetched.weights == "V1"
    assert not fetched.is_random
