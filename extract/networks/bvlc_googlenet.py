"""Caffe's GoogLeNet, the network that the paper used, up to the output of inception 5b.

Layer by layer what models/bvlc_googlenet/deploy.prototxt of BVLC/caffe says, under the names that
it gives: the state dict of `BVLCGoogLeNet` holds `inception_3a/3x3_reduce.weight` and so on, which
is what Caffe's weights are called, so nothing needs renaming to be loaded.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, max_pool2d

# Output channels of the convolutions of each inception module, in deploy.prototxt's order:
# 1x1, 3x3_reduce, 3x3, 5x5_reduce, 5x5, pool_proj.
INCEPTIONS = {
    "inception_3a": (64, 96, 128, 16, 32, 32),
    "inception_3b": (128, 128, 192, 32, 96, 64),
    "inception_4a": (192, 96, 208, 16, 48, 64),
    "inception_4b": (160, 112, 224, 24, 64, 64),
    "inception_4c": (128, 128, 256, 24, 64, 64),
    "inception_4d": (112, 144, 288, 32, 64, 64),
    "inception_4e": (256, 160, 320, 32, 128, 128),
    "inception_5a": (256, 160, 320, 32, 128, 128),
    "inception_5b": (384, 192, 384, 48, 128, 128),
}
POOLED_AFTER = ("inception_3b", "inception_4e")  # pool3/3x3_s2, pool4/3x3_s2

MEAN_BGR = (104.0, 117.0, 123.0)  # transform_param of train_val.prototxt


class BVLCGoogLeNet(nn.Module):
    """Caffe's GoogLeNet from `data` to `inception_5b/output`; its classifiers are left out."""

    def __init__(self) -> None:
        super().__init__()
        self._add("conv1/7x7_s2", 3, 64, kernel=7, stride=2)
        self._add("conv2/3x3_reduce", 64, 64, kernel=1)
        self._add("conv2/3x3", 64, 192, kernel=3)
        channels = 192
        for name, (n1x1, reduce3x3, n3x3, reduce5x5, n5x5, pool_proj) in INCEPTIONS.items():
            self._add(f"{name}/1x1", channels, n1x1, kernel=1)
            self._add(f"{name}/3x3_reduce", channels, reduce3x3, kernel=1)
            self._add(f"{name}/3x3", reduce3x3, n3x3, kernel=3)
            self._add(f"{name}/5x5_reduce", channels, reduce5x5, kernel=1)
            self._add(f"{name}/5x5", reduce5x5, n5x5, kernel=5)
            self._add(f"{name}/pool_proj", channels, pool_proj, kernel=1)
            channels = n1x1 + n3x3 + n5x5 + pool_proj

    def forward(self, data: Tensor) -> Tensor:
        """Run the network: what `to_caffe` makes, (B, 3, H, W) → `inception_5b/output`.

        The output is (B, 1024, h, w) after ReLU, with h = w = 7 for images of 224 and 227 pixels.
        """
        x = self._convolve("conv1/7x7_s2", data)
        x = local_response_norm(_pool(x))  # pool1/3x3_s2, pool1/norm1
        x = self._convolve("conv2/3x3_reduce", x)
        x = self._convolve("conv2/3x3", x)
        x = _pool(local_response_norm(x))  # conv2/norm2, pool2/3x3_s2
        for name in INCEPTIONS:
            x = self._inception(name, x)
            if name in POOLED_AFTER:
                x = _pool(x)
        return x

    def _inception(self, name: str, x: Tensor) -> Tensor:
        # One convolution for the three 1x1 that read x was tried: it is no faster, for the parts
        # of its output must be copied apart again.
        n1x1 = self._convolve(f"{name}/1x1", x)
        n3x3 = self._convolve(f"{name}/3x3", self._convolve(f"{name}/3x3_reduce", x))
        n5x5 = self._convolve(f"{name}/5x5", self._convolve(f"{name}/5x5_reduce", x))
        pool = max_pool2d(x, kernel_size=3, stride=1, padding=1)
        return torch.cat([n1x1, n3x3, n5x5, self._convolve(f"{name}/pool_proj", pool)], dim=1)

    def _convolve(self, name: str, x: Tensor) -> Tensor:
        return torch.relu_(self.get_submodule(name)(x))

    def _add(self, name: str, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        # Every convolution of this network is padded so that it keeps the size of its input.
        padding = kernel // 2
        self.add_module(name, nn.Conv2d(inputs, outputs, kernel, stride, padding))


def to_caffe(pixels: Tensor) -> Tensor:
    """Make the network's input: RGB 0-255, (B, 3, H, W), → BGR minus its means, same shape."""
    # Channel by channel, for a tensor of means could not be made while a GPU records.
    return torch.cat([pixels[:, 2 - i : 3 - i] - MEAN_BGR[i] for i in range(3)], dim=1)


def local_response_norm(x: Tensor) -> Tensor:
    """Caffe's LRN across channels with local_size 5, alpha 1e-4, beta 0.75, k 1, shape kept.

    Channel c of x (B, C, H, W) is divided by s^0.75, where s = 1 + alpha / 5 · the sum of x² over
    channels c - 2 … c + 2. The sum is a 1x1 convolution with a banded matrix, which costs a
    quarter of what torch's own `local_response_norm` does with its average over a padded copy.
    """
    channels = x.shape[1]
    band = x.new_ones(channels, channels).tril(2).triu(-2)
    small = x * math.sqrt(1e-4 / 5)  # before it is squared, or float16 would overflow
    s = conv2d(small * small, band.view(channels, channels, 1, 1), bias=x.new_ones(channels))
    root = s.rsqrt()  # s^-0.75 = s^-0.5 · (s^-0.5)^0.5, cheaper than a power
    return root.sqrt().mul_(root).mul_(x)


def _pool(x: Tensor) -> Tensor:
    # Caffe rounds the size of a pooled map up; torch rounds down unless told.
    return max_pool2d(x, kernel_size=3, stride=2, ceil_mode=True)
