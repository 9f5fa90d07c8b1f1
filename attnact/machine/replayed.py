"""Work on a GPU that is recorded once and replayed, as a CUDA graph.

Launching thousands of small kernels from Python takes longer than running them. What is recorded
must not wait for the GPU, nor depend on what the tensors hold.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from attnact.errors import UnsupportedError

SWITCH = "ATTNACT_CUDA_GRAPHS"


def replays(device: torch.device) -> bool:
    """Whether work on this device is recorded: on a GPU, unless its user said no."""
    return device.type == "cuda" and os.environ.get(SWITCH) != "0"


class Replayed:
    """A function of tensors on a GPU, whose kernels are replayed.

    What libraries set up at first may not be recorded: a first call runs the function as it is, the
    next one records, if it has the same shapes. From then on calls of other shapes run as they are.

    function: makes a tensor; and gradients, if there are weights.
    weights: whose `grad` it makes, which is to be None before each call.
    still: how many of the first tensors lie at the same place whenever it is called, and are read
        there; one that does not is worked on as it is. Of the others it reads copies.
    """

    def __init__(
        self,
        function: Callable[..., Tensor],
        device: torch.device,
        weights: Iterable[nn.Parameter] = (),
        still: int = 0,
    ) -> None:
        self._function, self._device, self._weights = function, device, list(weights)
        self._still = still
        self._graph: torch.cuda.CUDAGraph | None = None
        self._seen: list[Tensor] = []  # by the graph, always at the same place
        self._made = torch.empty(0)
        self._gradients: list[Tensor | None] = []

    def __call__(self, *tensors: Tensor) -> Tensor:
        """What the function makes, to be read before the next call, which may write it there again.

        Raises UnsupportedError where the kernels cannot be recorded.
        """
        with torch.cuda.device(self._device):
            if not self._fits(tensors):
                if self._graph is not None:
                    return self._function(*tensors)
                copies = [tensor.clone() for tensor in tensors[self._still :]]
                self._seen = [*tensors[: self._still], *copies]
                return self._aside()
            for place, tensor in list(zip(self._seen, tensors, strict=True))[self._still :]:
                place.copy_(tensor)
            if self._graph is None:
                self._graph = self._record()
            for weight, gradient in zip(self._weights, self._gradients, strict=True):
                weight.grad = gradient
            self._graph.replay()
            return self._made

    def _fits(self, tensors: Sequence[Tensor]) -> bool:
        """Whether these have the shapes that the graph sees, and the still ones are in place."""
        if [it.shape for it in tensors] != [it.shape for it in self._seen]:
            return False
        still = zip(tensors[: self._still], self._seen[: self._still], strict=True)
        return all(tensor.is_set_to(place) for tensor, place in still)

    def _aside(self) -> Tensor:
        """The function as it is, on the stream that will record it."""
        current, aside = torch.cuda.current_stream(), _recording_stream(self._device)
        aside.wait_stream(current)
        with torch.cuda.stream(aside):
            made = self._function(*self._seen)
        current.wait_stream(aside)
        return made

    def _record(self) -> torch.cuda.CUDAGraph:
        graph, aside = torch.cuda.CUDAGraph(), _recording_stream(self._device)
        first: BaseException | None = None
        cause: BaseException | None = None
        try:
            # What other threads do meanwhile, which bring the next batch, is none of the graph's.
            with (
                torch.cuda.stream(aside),
                torch.cuda.graph(graph, stream=aside, capture_error_mode="thread_local"),
            ):
                try:
                    self._made = self._function(*self._seen)
                except BaseException as error:
                    first = error  # for torch raises another as it ends what has failed
                    raise
        except RuntimeError as error:
            cause = first or error
            no_memory = isinstance(cause, torch.cuda.OutOfMemoryError)
            if no_memory or not isinstance(cause, RuntimeError):
                raise cause from None
            reason = str(cause).splitlines()[0]
            raise UnsupportedError(
                f"{self._device}: what it does cannot be recorded ({reason}); "
                f"set {SWITCH}=0 to do without"
            ) from cause
        finally:
            first = cause = None  # an error that its own frame holds keeps all that the frame has
        # As recording begins, torch before 2.12 writes where the random numbers stand. What replays
        # write there comes after.
        torch.cuda.current_stream().wait_stream(aside)
        self._gradients = [weight.grad for weight in self._weights]
        return graph


@cache
def _recording_stream(device: torch.device) -> Any:
    """One for all recordings on the device: each would keep memory for its products for ever.

    Of another priority than the rest: of each torch has 32 in turn, and what another thread did on
    the same one would be recorded, too.
    """
    return torch.cuda.Stream(device, priority=-1)  # type: ignore[no-untyped-call]
