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
from torch import Tensor, nn
from torch.nn.functional import local_response_norm

from attnact.extract import bvlc_googlenet
from attnact.extract.googlenet import import_torchvision

SIDE, BATCH = 224, 32


def torchvisions() -> tuple[nn.Module, Callable[[Tensor], Tensor]]:
    """The network up to inception 5b, and its transform."""
    vision = import_torchvision()
    network = vision.models.GoogLeNet(aux_logits=False, init_weights=False)
    network.avgpool = network.dropout = network.fc = nn.Identity()
    mean, std = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    return (
        network,
        lambda x: (x / 255 - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None],
    )


def caffes(weights: str) -> tuple[nn.Module, Callable[[Tensor], Tensor]]:
    """The network with torch's own normalisation, and its transform."""
    bvlc_googlenet.local_response_norm = lambda x: local_response_norm(x, 5, 1e-4, 0.75, 1.0)
    network = bvlc_googlenet.BVLCGoogLeNet()
    network.load_state_dict(safetensors.torch.load_file(weights), strict=False)
    return network, lambda x: x.flip(1) - torch.tensor(bvlc_googlenet.MEAN_BGR)[:, None, None]


def read(path: str) -> np.ndarray:
    """The frames of a clip, (n, 224, 224, 3)."""
    with av.open(path) as container:
        frames = [frame.to_image().resize((SIDE, SIDE), 2) for frame in container.decode(video=0)]
    return np.stack([np.asarray(frame) for frame in frames])


def main(backbone: str, weights: str, out: Path, videos: list[str]) -> None:
    """Make the features of the videos."""
    network, transform = torchvisions() if backbone == "googlenet" else caffes(weights)
    network.eval()
    count, start = 0, time.perf_counter()
    with h5py.File(out, "w") as file, torch.no_grad():
        features = file.create_dataset("features", (0, 7, 7, 1024), maxshape=(None, 7, 7, 1024))
        for video in videos:
            frames = torch.from_numpy(read(video)).permute(0, 3, 1, 2).float()
            for batch in transform(frames).split(BATCH):
                made = network(batch).reshape(len(batch), 1024, 7, 7).permute(0, 2, 3, 1)
                features.resize(count + len(batch), axis=0)
                features[count:] = made.numpy()
                count += len(batch)
    print(count, time.perf_counter() - start)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), sys.argv[4:])
