"""What is left of a network when training is over: what is linear becomes part of the convolution before it."""

import copy

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from lab.tracing.acting import blank_images, undisturbed

IDLE = (nn.Dropout, nn.Identity)  # leave everything as it is in eval mode


def fold(network):
    """The same network for eval mode alone, as a chain of its layers with all folded into one that can be.

    A normalisation right behind a convolution only scales and shifts what its channels give, so weights and a bias of
    the convolution can do it. One behind a ReLU stays. A 1x1 convolution right behind another convolution makes sums of
    sums; both are one, where that takes fewer weights. Dropout goes.

    Args:
        network: a chain of layers, each of which acts once, float32 (N, 1, 28, 28) to (N, 10); it stays as it is.

    Returns: nn.Sequential. Raises: ValueError naming the network, if it is no chain.
    """
    layers = [module for module in copy.deepcopy(network).eval().modules() if not list(module.children())]
    _require_chain(network, layers)
    folded = []
    for layer in layers:
        if isinstance(layer, nn.BatchNorm2d) and folded and isinstance(folded[-1], nn.Conv2d):
            folded[-1] = fuse_conv_bn_eval(folded[-1], layer)
        elif folded and _is_product(folded[-1], layer):
            folded[-1] = _multiply(folded[-1], layer)
        elif not isinstance(layer, IDLE):
            folded.append(layer)
    return nn.Sequential(*folded).requires_grad_(False)


def _is_product(first, second):
    """Whether two layers are convolutions that are one, with fewer weights."""
    if not all(isinstance(layer, nn.Conv2d) and layer.groups == 1 for layer in (first, second)):
        return False
    if second.kernel_size != (1, 1) or second.stride != (1, 1) or second.padding != (0, 0):
        return False
    separate = first.weight.numel() + second.weight.numel()
    return first.weight[0].numel() * second.out_channels < separate


def _multiply(first, second):
    """The convolution that does what two do one after the other, the second of which is 1x1."""
    product, mixing = copy.deepcopy(first), second.weight[:, :, 0, 0]
    product.out_channels = second.out_channels
    product.weight = nn.Parameter(torch.einsum("om,mihw->oihw", mixing, first.weight))
    shift = 0 if first.bias is None else mixing @ first.bias
    shift = shift if second.bias is None else shift + second.bias
    product.bias = nn.Parameter(shift) if torch.is_tensor(shift) else None
    return product


def stored_parameters(network):
    """How many numbers a trained network needs to give its answers, with its normalisations folded.

    Returns: int; None for a network that is no chain.
    """
    try:
        return sum(weight.numel() for weight in fold(network).parameters())
    except ValueError:
        return None


def _require_chain(network, layers):
    """Raise ValueError naming the network, unless its layers one after another do what it does."""
    with undisturbed(network):
        noise = torch.rand_like(blank_images(network))
        try:
            alike = torch.equal(nn.Sequential(*layers)(noise), network(noise))
        except RuntimeError:  # shapes that do not fit
            alike = False
    if not alike:
        raise ValueError(f"{type(network).__name__} is no chain of its layers: its normalisations cannot be folded")
