"""Files of backbone weights: fetched, read, and held against the network they are for.

Weights are a dict of float32 tensors on the CPU, by the names of the network's own state dict.
"""

import hashlib
import http.client
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import safetensors.torch
import torch
from torch import Tensor, nn

from attnact.errors import WeightsError
from attnact.extract.networks.caffemodel import read_caffemodel
from attnact.machine.files import part_beside, publish
from attnact.machine.progress import progress


class Published(NamedTuple):
    """A backbone's published weights: what to call them, and what their digest starts with."""

    label: str
    url: str
    algorithm: str
    digest: str


PUBLISHED = {
    # torchvision's GoogLeNet_Weights.IMAGENET1K_V1, which has its digest in its name
    "googlenet": Published(
        "IMAGENET1K_V1",
        "https://download.pytorch.org/models/googlenet-1378be20.pth",
        "sha256",
        "1378be20",
    ),
    # models/bvlc_googlenet/readme.md of BVLC/caffe
    "bvlc_googlenet": Published(
        "bvlc_googlenet.caffemodel",
        "http://dl.caffe.berkeleyvision.org/bvlc_googlenet.caffemodel",
        "sha1",
        "405fc5acd08a3bb12de8ee5e23a96bec22f08204",
    ),
}
SECONDS_OF_SILENCE = 30  # after which a server is given up


def published_file(name: str) -> Path:
    """Say where the published weights of the backbone lie once fetched: torch.hub's own folder."""
    return Path(torch.hub.get_dir(), "checkpoints", PUBLISHED[name].url.rsplit("/", 1)[1])


def fetch_published(name: str) -> Path:
    """Fetch the published weights of the backbone, unless they lie there already.

    The file gets its name only once it is whole and its digest is right. Raises WeightsError where
    it cannot be had.
    """
    _, url, algorithm, digest = PUBLISHED[name]
    path = published_file(name)
    if path.is_file():
        return path
    part = part_beside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _download(url, part)
        if not hashlib.new(algorithm, part.read_bytes()).hexdigest().startswith(digest):
            raise OSError(f"the {algorithm} of what came is not {digest}")
        publish(part, path)
    except (OSError, http.client.HTTPException) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()  # it holds the connection
        reason = getattr(error, "reason", error)
        advice = f"put that file at {path}, or give a file with --weights FILE"
        raise WeightsError(f"cannot fetch {url} ({reason}): {advice}") from error
    finally:
        part.unlink(missing_ok=True)
    return path


def _download(url: str, path: Path) -> None:
    with urllib.request.urlopen(url, timeout=SECONDS_OF_SILENCE) as answer, path.open("wb") as file:
        total = (answer.length or 0) / 1e6
        with progress(f"fetching {url}", total, "MB") as advance:
            while chunk := answer.read(1 << 20):
                advance(file.write(chunk) / 1e6, "")


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a file of tensors by name: .safetensors, .pth, .pt or .caffemodel.

    Nothing of the file is executed. Raises WeightsError where it is missing or not what its name
    says.
    """
    if not path.is_file():
        raise WeightsError(f"no weights at {path}: check the path given with --weights")
    reader = READERS.get(path.suffix)
    if reader is None:
        raise WeightsError(f"cannot tell what {path} is: weights are {', '.join(READERS)}")
    try:
        tensors = reader(path)
    except WeightsError:
        raise
    except Exception as error:  # torch.load and safetensors raise a dozen kinds between them
        raise WeightsError(
            f"cannot read {path} as a {path.suffix} file of tensors: fetch or save it again"
        ) from error
    if not isinstance(tensors, Mapping) or not all(map(torch.is_tensor, tensors.values())):
        raise WeightsError(f"{path} is no dict of tensors: save the network's state dict alone")
    return {str(name): tensor for name, tensor in tensors.items()}


def _read_torch(path: Path) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return tensors


READERS: dict[str, Callable[[Path], dict[str, Tensor]]] = {
    ".safetensors": safetensors.torch.load_file,
    ".pth": _read_torch,
    ".pt": _read_torch,
    ".caffemodel": read_caffemodel,
}


def fit(
    tensors: dict[str, Tensor], network: nn.Module, spare: tuple[str, ...], path: Path
) -> dict[str, Tensor]:
    """Pick what the network wants from tensors read from path, as float32, in its own order.

    Names that start with one of `spare` belong to parts that are not run and are let go. Raises
    WeightsError where a tensor is missing, is one too many, has another shape, or holds a number
    that is none.
    """
    # Batch norms count batches while they are trained; some files hold the counts, some do not.
    count = "num_batches_tracked"
    shapes = {n: t.shape for n, t in network.state_dict().items() if not n.endswith(count)}
    found = {n: t for n, t in tensors.items() if not (n.endswith(count) or n.startswith(spare))}
    advice = "give weights of the chosen --backbone (Caffe's are for bvlc_googlenet)"
    for name in dict.fromkeys([*shapes, *found]):
        if name not in found:
            raise WeightsError(f"{path} lacks {name}: {advice}")
        if name not in shapes:
            raise WeightsError(f"{path} holds {name}, which the network has no place for: {advice}")
        if found[name].shape != shapes[name]:
            shape, due = tuple(found[name].shape), tuple(shapes[name])
            raise WeightsError(f"{path} holds {name} of shape {shape}, not {due}: {advice}")
        if not found[name].isfinite().all():
            raise WeightsError(f"{path} holds NaN or infinity in {name}: fetch or save it again")
    return {name: found[name].float().contiguous() for name in shapes}


def digest(weights: dict[str, Tensor]) -> str:
    """Compute the SHA-256, in hex, of the names, shapes and little-endian bytes of weights."""
    sha = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        sha.update(f"{name} {tuple(tensor.shape)}\n".encode())
        sha.update(tensor.numpy().astype("<f4").tobytes())
    return sha.hexdigest()
