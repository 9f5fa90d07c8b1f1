"""What runs a network, and that it comes out the same whatever runs it."""

import os
import subprocess
import sys
from itertools import islice

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from attnact.errors import UnsupportedError
from attnact.extract.frames.resize import resize
from attnact.extract.frames.video import read_frames
from attnact.extract.networks import openvino_runner, runtime
from attnact.extract.networks.backbone import likeness, load_backbone
from attnact.extract.networks.runtime import FRAMES_AT_ONCE, How, choose, make_runner
from attnact.vocabulary import Precision

CPU, GPU = torch.device("cpu"), torch.device("cuda")


class Small(nn.Module):
    """As quick as a network from frames to feature cubes can be."""

    def __init__(self) -> None:
        super().__init__()
        self.convolve = nn.Conv2d(3, 1024, 32, stride=32)
        generator = torch.Generator().manual_seed(0)
        nn.init.normal_(self.convolve.weight, std=0.1, generator=generator)
        nn.init.zeros_(self.convolve.bias)

    def forward(self, frames: Tensor) -> Tensor:
        pixels = frames.permute(0, 3, 1, 2).float() / 255
        made = self.convolve(pixels.to(self.convolve.weight.dtype))
        return torch.relu(made).contiguous()


def some_frames(count: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, 224, 224, 3), dtype=torch.uint8, generator=generator)


def runner(how: How) -> runtime.Runner:
    return make_runner(Small().eval().requires_grad_(False), how, CPU)


@pytest.mark.parametrize("name", ["torch", "openvino"])
@pytest.mark.parametrize(("precision", "alike"), [("float32", 1e-6), ("bfloat16", 1e-4)])
def test_every_runner_computes_the_network(name, precision: Precision, alike: float):
    if precision == "bfloat16" and name == "openvino" and not openvino_runner.multiplies_bfloat16():
        pytest.skip("this processor does not multiply in bfloat16")
    frames = some_frames(FRAMES_AT_ONCE + 3)
    with torch.no_grad():
        exact = Small().double()(frames).float()
    run = runner(How(name, precision))
    made = run.start(frames)()
    assert made.shape == (len(frames), 1024, 7, 7)
    assert 1 - likeness(made.float(), exact) < alike
    assert run.start(frames[:0])().shape == (0, 1024, 7, 7)


@pytest.mark.parametrize("name", ["torch", "openvino"])
def test_frames_under_way_at_once_keep_apart(name):
    run, frames = runner(How(name, "float32")), some_frames(12)
    alone = run.start(frames)()
    waits = [run.start(frames[i : i + 4]) for i in (0, 4, 8)]
    torch.testing.assert_close(torch.cat([wait() for wait in waits]), alone)


INTERRUPTED = """
import gc, signal
from attnact.extract.networks.openvino_runner import multiplies_bfloat16
from tests.extract.networks.test_runtime import How, runner

multiplies_bfloat16()
runs = [runner(How("openvino", "float32")) for _ in range(2)]
while runs:
    runs.pop(0)
    gc.collect()
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    print("heard")
"""


def test_ctrl_c_is_heard_after_openvino_has_gone():
    """With AMX, OpenVINO takes the stack away on which signals arrive."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", INTERRUPTED]
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (0, "heard\n"), result.stderr


def test_openvino_makes_a_cube_the_same_bits_in_any_batch():
    precision = "bfloat16" if openvino_runner.multiplies_bfloat16() else "float32"
    run, frames = runner(How("openvino", precision)), some_frames(11)
    whole = run.start(frames)()
    for first, last in ((0, 1), (2, 11), (9, 11)):
        assert torch.equal(run.start(frames[first:last])(), whole[first:last])


@pytest.mark.parametrize(
    ("pooling", "outputs"),
    [
        (nn.MaxPool2d(3, stride=1, padding=1), 1),
        (nn.MaxPool2d(3, stride=2, ceil_mode=True), 1),
        # Of 226 pixels with the padding: a 76th window would begin in it, and torch has 75.
        (nn.MaxPool2d(2, stride=3, padding=1, ceil_mode=True), 2),
    ],
)
def test_openvino_pools_as_torch_does_and_writes_no_places(pooling: nn.MaxPool2d, outputs: int):
    class Pooled(nn.Module):
        def forward(self, frames: Tensor) -> Tensor:
            return pooling(frames.permute(0, 3, 1, 2).float()).contiguous()

    frames = some_frames(2)
    made = openvino_runner.OpenVINORunner(Pooled(), "float32", 2).start(frames)()
    assert torch.equal(made, Pooled()(frames))
    graph = openvino_runner._converted(Pooled(), 2)
    found = [node for node in graph.get_ops() if node.get_type_name() == "MaxPool"]
    assert [node.get_output_size() for node in found] == [outputs]


def test_auto_is_the_fastest_that_is_there(monkeypatch):
    monkeypatch.setattr(runtime, "_multiplies_bfloat16", lambda *arguments: True)
    assert choose("auto", "auto", CPU) == ("openvino", "bfloat16")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert choose("auto", "auto", GPU) == ("torch", "float16")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (6, 1))
    assert choose("auto", "auto", GPU) == ("torch", "float32")
    assert choose("torch", "float16", CPU) == ("torch", "float16")
    monkeypatch.setattr(runtime, "_multiplies_bfloat16", lambda *arguments: False)
    assert choose("auto", "auto", CPU) == ("openvino", "float32")
    monkeypatch.setattr(runtime, "find_spec", lambda name: None)
    assert choose("auto", "auto", CPU) == ("torch", "float32")


def test_what_is_not_there_is_refused(monkeypatch):
    with pytest.raises(ValueError, match="OpenVINO runs on the CPU here, not on cuda"):
        choose("openvino", "auto", GPU)
    monkeypatch.setattr(runtime, "find_spec", lambda name: None)
    with pytest.raises(UnsupportedError, match=r"missing; pip install 'attnact\[openvino\]'"):
        choose("openvino", "auto", CPU)


def test_a_precision_that_openvino_does_not_keep_is_refused(monkeypatch):
    class Core:
        """As on a processor without it: another is taken, without a word."""

        def compile_model(self, *arguments: object) -> "Core":
            return self

        def get_property(self, name: str) -> object:
            return openvino_runner.TYPES["float32"]

    monkeypatch.setattr(openvino_runner, "_core", Core)
    with pytest.raises(UnsupportedError, match="cannot run in float16 on this processor"):
        runner(How("openvino", "float16"))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_caffes_features_of_real_frames_stay_right(shared, precision: Precision):
    if precision == "bfloat16" and not openvino_runner.multiplies_bfloat16():
        pytest.skip("this processor does not multiply in bfloat16")
    clip = shared / "videos" / "ut_interaction" / "0_1_4.avi"
    some = np.stack(list(islice(read_frames(clip), 0, None, 20)))
    frames = torch.from_numpy(resize(some, "squash"))
    weights = shared / "weights" / "bvlc_googlenet.safetensors"
    exact = load_backbone("bvlc_googlenet", weights)(frames)
    fast = load_backbone("bvlc_googlenet", weights, runtime="openvino", precision=precision)
    made = fast(frames)
    assert made.dtype == torch.float32
    if precision == "float32":
        torch.testing.assert_close(made, exact, rtol=0, atol=2e-4)
    else:
        assert likeness(made, exact) >= 0.9995
    assert torch.equal(fast.start(frames)(), made.half())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_a_recorded_graph_computes_the_network():
    network = Small().eval().requires_grad_(False)
    frames = some_frames(8)
    with torch.no_grad():
        exact = Small().double()(frames).float()
    run = make_runner(network, How("torch", "float32"), GPU)
    # As it is, recorded, replayed, of another size.
    for part in (frames, frames.flip(0), frames, frames[:3]):
        made = run.start(part.pin_memory())()
        expected = exact.flip(0) if part is not frames and len(part) == 8 else exact[: len(part)]
        torch.testing.assert_close(made, expected, rtol=0, atol=1e-4)
