"""A network run by OpenVINO, which is an extra: `pip install 'attnact[openvino]'`."""

import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from queue import SimpleQueue
from typing import Any

import openvino
import torch
from openvino import opset1
from openvino.frontend import FrontEndManager
from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder
from openvino.preprocess import PrePostProcessor
from torch import Tensor, nn
from torch.nn.functional import pad

from attnact.errors import UnsupportedError
from attnact.extract.frames.resize import FRAME_SIDE
from attnact.extract.networks.runtime import Wait
from attnact.vocabulary import Precision

TYPES = {
    "float32": openvino.Type.f32,
    "bfloat16": openvino.Type.bf16,
    "float16": openvino.Type.f16,
}


class OpenVINORunner:
    """Runs a network on the CPU, as many passes at a time as OpenVINO finds best.

    Each pass is of `size` frames, zeros added to the last: a graph of fixed shape is faster, and a
    frame gets the same cube in whatever batch it comes. With `float32` cubes are float32, else
    float16, to which they are rounded in the graph.

    Raises UnsupportedError where the processor does not know the precision.
    """

    def __init__(self, network: nn.Module, precision: Precision, size: int) -> None:
        model = _converted(network, size)
        if precision != "float32":
            steps = PrePostProcessor(model)
            steps.output().tensor().set_element_type(TYPES["float16"])
            model = steps.build()
        # Threads are not bound to cores, for they share them with the decoders.
        options = {
            "INFERENCE_PRECISION_HINT": TYPES[precision],
            "PERFORMANCE_HINT": "THROUGHPUT",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "ENABLE_CPU_PINNING": False,
        }
        compiled = _core().compile_model(model, "CPU", options)
        if compiled.get_property("INFERENCE_PRECISION_HINT") != TYPES[precision]:
            raise UnsupportedError(f"OpenVINO cannot run in {precision} on this processor")
        passes = compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")
        self._network = network  # whose memory holds the weights
        self._size = size
        self._idle: SimpleQueue[Any] = SimpleQueue()
        for _ in range(passes):
            self._idle.put(compiled.create_infer_request())
        self._threads = ThreadPoolExecutor(passes, "network")

    def start(self, frames: Tensor) -> Wait:
        """Begin with frames; see `Runner`."""
        parts = torch.split(frames.cpu(), self._size)
        made = [self._threads.submit(self._run, part) for part in parts]
        return lambda: torch.cat([part.result() for part in made])

    def _run(self, frames: Tensor) -> Tensor:
        missing = self._size - len(frames)
        whole = pad(frames, (0, 0, 0, 0, 0, 0, 0, missing)).contiguous()
        request = self._idle.get()
        try:
            made = request.infer({0: whole.numpy()}, share_inputs=True)
        finally:
            self._idle.put(request)
        return torch.from_numpy(made[0])[: len(frames)]


def multiplies_bfloat16() -> bool:
    """Say whether the processor multiplies in bfloat16."""
    return "BF16" in _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


@cache
def _core() -> openvino.Core:
    """The one core of this process, which lasts as long.

    Where the processor has AMX, OpenVINO moves the stack on which signals arrive into memory of its
    own, and takes that away with the last core: the next Ctrl-C would crash Python.
    """
    return openvino.Core()


def _converted(network: nn.Module, size: int) -> openvino.Model:
    # Not with `openvino.convert_model`, which does the same and tells its makers that it was used.
    # What is traced holds for any size; a small one is quick.
    example = torch.zeros(1, 64, 64, 3, dtype=torch.uint8)
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # torch no longer likes to trace, and its tracing warns
        trace: Any = torch.jit.trace
        # As a function: of a module the tracer rebuilds each part, which takes 0.3 s more.
        traced = trace(lambda frames: network(frames), example, check_trace=False)
        decoder = TorchScriptPythonDecoder(traced)
        frontend = FrontEndManager().load_by_framework("pytorch")
        model = frontend.convert(frontend.load(decoder))
    model.reshape([size, FRAME_SIDE, FRAME_SIDE, 3])
    _forget_where_maxima_lie(model)
    steps = PrePostProcessor(model)
    steps.input().tensor().set_element_type(openvino.Type.u8)
    return steps.build()


def _forget_where_maxima_lie(model: openvino.Model) -> None:
    """Make each pooling give its maxima alone, and not their places too, which nobody reads.

    They are written all the same, which took 7 % of the time of a pass.
    """
    for pooling in model.get_ops():
        if pooling.get_type_name() != "MaxPool":
            continue
        told = pooling.get_attributes()
        plain = opset1.max_pool(
            pooling.input_value(0),
            told["strides"],
            told["pads_begin"],
            told["pads_end"],
            told["kernel"],
            told["rounding_type"].removesuffix("_torch"),
        )
        # Torch rounds up as others do, but for a last window that would begin beyond the image.
        if plain.output(0).partial_shape == pooling.output(0).partial_shape:
            pooling.output(0).replace(plain.output(0))
