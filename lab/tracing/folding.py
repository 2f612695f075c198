"""What is left of a network when training is over: normalisations become part of the convolutions before them."""

import copy

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from lab.tracing.acting import blank_images, undisturbed

IDLE = (nn.Dropout, nn.Identity)  # leave everything as it is in eval mode


def fold(network):
    """The same network for eval mode alone, as a chain of its layers with every normalisation folded that can be.

    A normalisation right behind a convolution only scales and shifts what its channels give, so weights and a bias of
    the convolution can do it. One behind a ReLU stays. Dropout goes.

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
        elif not isinstance(layer, IDLE):
            folded.append(layer)
    return nn.Sequential(*folded).requires_grad_(False)


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
