"""The loop that people write to make features: what `attnact features` is measured against.

    python -m tests.bench.extraction_peer googlenet|bvlc_googlenet WEIGHTS OUT VIDEO...

A clip is decoded, transformed, run through the network in float32 as it comes, and appended to an
HDF5 file; then the next. Prints the frames and the seconds from the first clip to the last, without
the start of the process. WEIGHTS are of Caffe's network; torchvision's is as it is initialised.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import av
import h5py
import numpy as np
import safetensors.torch
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import local_response_norm

from attnact.extract.networks import bvlc_googlenet
from attnact.extract.networks.googlenet import import_torchvision

SIDE, BATCH = 224, 32
Transform = Callable[[Image.Image], Tensor]  # of a frame, to (3, 224, 224)


def torchvisions() -> tuple[nn.Module, Transform]:
    """The network up to inception 5b, and its transform, as torchvision's pages have it."""
    vision = import_torchvision()
    network = vision.models.GoogLeNet(aux_logits=False, init_weights=False)
    network.avgpool = network.dropout = network.fc = nn.Identity()
    transforms = vision.transforms
    steps = [
        transforms.Resize((SIDE, SIDE)),
        transforms.ToTensor(),
        transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    ]
    return network, transforms.Compose(steps)


def caffes(weights: str) -> tuple[nn.Module, Transform]:
    """The network with torch's own normalisation, and Caffe's transform."""
    bvlc_googlenet.local_response_norm = lambda x: local_response_norm(x, 5, 1e-4, 0.75, 1.0)
    network = bvlc_googlenet.BVLCGoogLeNet()
    network.load_state_dict(safetensors.torch.load_file(weights), strict=False)
    mean = np.array(bvlc_googlenet.MEAN_BGR, np.float32)

    def transform(image: Image.Image) -> Tensor:
        bgr = np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BILINEAR))[..., ::-1]
        return torch.from_numpy(np.ascontiguousarray((bgr - mean).transpose(2, 0, 1)))

    return network, transform


def read(path: str, transform: Transform) -> Tensor:
    """The frames of a clip, (n, 3, 224, 224)."""
    with av.open(path) as container:
        return torch.stack([transform(frame.to_image()) for frame in container.decode(video=0)])


def main(backbone: str, weights: str, out: Path, videos: list[str]) -> None:
    """Make the features of the videos."""
    network, transform = torchvisions() if backbone == "googlenet" else caffes(weights)
    network.eval()
    count, start = 0, time.perf_counter()
    with h5py.File(out, "w") as file, torch.no_grad():
        features = file.create_dataset("features", (0, 7, 7, 1024), maxshape=(None, 7, 7, 1024))
        for video in videos:
            for batch in read(video, transform).split(BATCH):
                made = network(batch).reshape(len(batch), 1024, 7, 7).permute(0, 2, 3, 1)
                features.resize(count + len(batch), axis=0)
                features[count:] = made.numpy()
                count += len(batch)
    print(count, time.perf_counter() - start)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), sys.argv[4:])
