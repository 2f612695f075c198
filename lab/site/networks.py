"""Trained networks as the drawing page reads them: a list of operations, and their weights in one text."""

import base64
import copy
import json

import numpy as np
import torch
from torch import nn

from lab.tracing.folding import fold

SHAPE = (1, 28, 28)


def operations_of(network):
    """The layers of a network in eval mode, as few operations as possible; what its normalisations store is folded.

    Args:
        network: a chain of convolutions, normalisations, ReLUs, poolings and dropout, float32 (N, 1, 28, 28) to
            (N, 10); it stays as it is.

    Returns: list of pairs of a description, a dictionary with its `kind`, and a list of weights as float64 tensors: of
        "conv" kernel (out, in / groups, size, size) and, if `bias`, shift (out,); of "affine", a normalisation behind
        a ReLU, scale and shift (channels,); of "relu", "maxpool" and "mean", the average over all places, none.
    Raises: ValueError naming a layer that is not known, or the network if it is no chain.
    """
    operations, maps = [], torch.zeros(1, *SHAPE, dtype=torch.float64)
    for layer in fold(copy.deepcopy(network).double()):
        before, maps = maps, layer(maps)
        if not isinstance(layer, nn.Flatten):
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
            return described, [weight for weight in (layer.weight, layer.bias) if weight is not None]
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
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    return scale, norm.bias - norm.running_mean * scale


def as_script(name, network, words):
    """A script that puts a folded network and what is said of it into `NETWORKS` under its name."""
    operations = operations_of(network)
    numbers = torch.cat([weight.flatten() for _, weights in operations for weight in weights] or [torch.zeros(0)])
    packed = base64.b64encode(numbers.numpy().astype(np.dtype("<f4")).tobytes()).decode()
    content = {"operations": [described for described, _ in operations], "weights": packed, **words}
    return f"(globalThis.NETWORKS ??= {{}})[{json.dumps(name)}] = {json.dumps(content)};\n"
