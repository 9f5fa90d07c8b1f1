"""torchvision's GoogLeNet up to the output of inception 5b, and weights drawn at random for it."""

from collections import OrderedDict
from types import ModuleType

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

HEAD = ("avgpool", "dropout", "fc")  # what torchvision's network computes from inception 5b


def import_torchvision() -> ModuleType:
    """Import torchvision, also where its compiled operators cannot be loaded.

    The wheel of the package registry is built for CUDA. Beside a CPU-only torch its library of
    operators does not load, and the import dies as it describes two of them to torch ("operator
    torchvision::nms does not exist"). Nothing here calls an operator, so to declare these two,
    without any code behind them, is enough. It is done only once an import has failed for want of
    them: where they are there, they stay what they are.

    Raises ImportError where torchvision is missing, and whatever else its import raises.
    """
    try:
        import torchvision
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        for operator in ("nms", "qnms"):
            signature = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            torch.library.define(f"torchvision::{operator}", signature)
        import torchvision
    module: ModuleType = torchvision
    return module


def googlenet_trunk() -> nn.Sequential:
    """Build torchvision's GoogLeNet without its head, on the meta device: shapes, no numbers.

    Takes what `to_torchvision` makes, (B, 3, 224, 224), and gives the output of inception 5b after
    ReLU, (B, 1024, 7, 7). The names in its state dict are torchvision's own.
    """
    models = import_torchvision().models
    # On the meta device no weight is drawn, so that torch's global random state stays untouched.
    with torch.device("meta"):
        network = models.GoogLeNet(aux_logits=False, init_weights=False)
    children = [(name, child) for name, child in network.named_children() if name not in HEAD]
    return nn.Sequential(OrderedDict(children))


def to_torchvision(pixels: Tensor) -> Tensor:
    """Make the network's input: RGB 0-255, (B, 3, H, W), → -1 … 1, same shape.

    torchvision's weights want x = (pixels / 255 - mean) / std with ImageNet's mean and std, and
    then `transform_input` makes x · std / 0.5 + (mean - 0.5) / 0.5 of it: the second undoes the
    first, and pixels / 127.5 - 1 is left. This one step stands for both.
    """
    return pixels / 127.5 - 1


def random_googlenet(calibration: Tensor, seed: int) -> dict[str, Tensor]:
    """Draw weights for `googlenet_trunk` and calibrate its batch norms; returns its state dict.

    calibration: RGB 0-255, (n, 3, 224, 224), on the CPU; a few dozen frames, run as one batch.
    Depends on the two arguments alone. Without calibration the activations of a random network
    shrink or grow from layer to layer until every frame looks the same; with it each channel of
    each layer has mean 0 and variance 1 over these frames, as a trained network's roughly has.
    """
    trunk = googlenet_trunk().to_empty(device="cpu").eval()
    # He's start from a generator of our own: torchvision's would draw from the global random state,
    # and slowly. The scale of the weights does not matter before a calibrated batch norm.
    generator = torch.Generator().manual_seed(seed)
    for module in trunk.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()
            module.register_forward_pre_hook(_calibrate)
    with torch.no_grad():
        trunk(to_torchvision(calibration))
    state = trunk.state_dict()
    return {name: state[name] for name in state if not name.endswith("num_batches_tracked")}


def _calibrate(norm: nn.Module, inputs: tuple[Tensor]) -> None:
    # In float64, so that a sum in the order of another number of threads rounds to the same bits.
    variance, mean = torch.var_mean(inputs[0].double(), dim=(0, 2, 3))
    norm.running_mean, norm.running_var = mean.float(), variance.float()


def fold_batch_norms(trunk: nn.Module) -> None:
    """Fold every batch norm of a trunk in eval mode into its convolution: a fifth faster."""
    for module in trunk.modules():
        conv, norm = getattr(module, "conv", None), getattr(module, "bn", None)
        if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            module.conv = fuse_conv_bn_eval(conv, norm)
            module.bn = nn.Identity()
