"""Trained networks as the drawing page reads them: a list of operations, and their weights in one text."""

import base64
import json

import numpy as np
import torch
from torch import nn

SHAPE = (1, 28, 28)


def fold(network):
    """The layers of a network in eval mode, as few operations as possible: what batch normalisation stores is folded.

    A normalisation that follows a convolution becomes part of it, one that follows a ReLU a scale and a shift.

    Args:
        network: a chain of convolutions, normalisations, ReLUs, poolings and dropout, float32 (N, 1, 28, 28) to
            (N, 10).

    Returns: list of pairs of a description, a dictionary with its `kind`, and a list of weights as float64 tensors: of
        "conv" kernel (out, in / groups, size, size) and, if `bias`, shift (out,); of "affine" scale and shift
        (channels,); of "relu", "maxpool" and "mean", the average over all places, none.
    Raises: ValueError naming a layer that is not known.
    """
    operations, maps = [], torch.zeros(1, *SHAPE)
    for layer in (module for module in network.eval().modules() if not list(module.children())):
        before, maps = maps, layer(maps)
        if isinstance(layer, nn.BatchNorm2d) and operations and operations[-1][0]["kind"] == "conv":
            operations[-1] = _absorb(*operations[-1], *_scale_and_shift(layer))
        elif not isinstance(layer, (nn.Dropout, nn.Flatten, nn.Identity)):
            operations.append(_operation(layer, before, maps))
    return operations


def _operation(layer, before, after):
    """One layer by itself, given what enters and what leaves it."""
    if isinstance(layer, nn.Conv2d):
        size, padding = layer.kernel_size[0], layer.padding[0]
        described = {
            "kind": "conv",
            "inputs": layer.in_channels,
            "outputs": layer.out_channels,
            "size": size,
            "padding": padding,
            "groups": layer.groups,
            "bias": layer.bias is not None,
        }
        usual = nn.Conv2d(layer.in_channels, layer.out_channels, size, padding=padding, groups=layer.groups)
        if all(
            getattr(layer, name) == getattr(usual, name) for name in ("kernel_size", "stride", "padding", "dilation")
        ):
            return described, [weight.detach().double() for weight in (layer.weight, layer.bias) if weight is not None]
    elif isinstance(layer, nn.BatchNorm2d):
        return {"kind": "affine", "channels": layer.num_features}, [*_scale_and_shift(layer)]
    elif isinstance(layer, nn.ReLU):
        return {"kind": "relu"}, []
    elif isinstance(layer, nn.MaxPool2d) and layer.kernel_size == layer.stride and not layer.padding:
        return {"kind": "maxpool", "size": layer.kernel_size}, []
    elif after.shape[2:] == (1, 1) and _averages_all(layer, before):
        return {"kind": "mean"}, []
    raise ValueError(f"{layer} is not a layer that the drawing page knows")


def _averages_all(layer, before):
    """Whether it is a pooling that takes the mean over the whole map."""
    if isinstance(layer, nn.AvgPool2d):
        return layer.kernel_size in (before.shape[2], tuple(before.shape[2:]))
    return isinstance(layer, nn.AdaptiveAvgPool2d)


def _scale_and_shift(norm):
    scale = norm.weight.detach().double() / (norm.running_var.double() + norm.eps).sqrt()
    return scale, norm.bias.detach().double() - norm.running_mean.double() * scale


def _absorb(described, weights, scale, shift):
    """A convolution that scales and shifts what it gives."""
    kernel, *bias = weights
    shift = shift + bias[0] * scale if bias else shift
    return described | {"bias": True}, [kernel * scale[:, None, None, None], shift]


def as_script(name, network, words):
    """A script that puts a folded network and what is said of it into `NETWORKS` under its name."""
    operations = fold(network)
    numbers = torch.cat([weight.flatten() for _, weights in operations for weight in weights] or [torch.zeros(0)])
    packed = base64.b64encode(numbers.numpy().astype(np.dtype("<f4")).tobytes()).decode()
    content = {"operations": [described for described, _ in operations], "weights": packed, **words}
    return f"(globalThis.NETWORKS ??= {{}})[{json.dumps(name)}] = {json.dumps(content)};\n"
