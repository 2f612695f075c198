"""What each layer of a network sees of its input, in closed form.

With jump, the distance in input pixels between neighbouring outputs, starting as 1 and 1:

    receptive_field_out = receptive_field_in + (kernel - 1) * dilation * jump_in
    jump_out            = jump_in * stride

Padding changes the size of a map, never these two. Source: Araujo, Norris & Sim 2019, "Computing receptive
fields of convolutional neural networks", Distill.
"""

from dataclasses import dataclass
from typing import NamedTuple

import pandas
import torch
from torch import nn

WINDOWS = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)
ADAPTIVE = (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
ACTIVATIONS = tuple(getattr(nn.modules.activation, name) for name in nn.modules.activation.__all__)
NORMS = (nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm, nn.GroupNorm, nn.LayerNorm)
PIXELWISE = (*ACTIVATIONS, *NORMS, nn.modules.dropout._DropoutNd, nn.Identity)


@dataclass(frozen=True)
class Layer:
    """One leaf module as it acted on an image; jump and receptive field in pixels of the input.

    Kernel, stride and padding are None for a layer that works pixel by pixel or only reshapes. A dilated
    kernel is given without its gaps, which count in the receptive field only.
    """

    name: str  # module path, as in `network.named_modules()`
    kind: str  # class name
    out_channels: int
    out_size: int
    kernel: int | None
    stride: int | None
    padding: int | None
    jump: int
    receptive_field: int
    parameters: int  # a module that acts twice counts once


class Unit(NamedTuple):
    """What comes out of one direct child of a network."""

    out_channels: int
    out_size: int
    receptive_field: int


def trace_layers(network, image_size=28):
    """Follow one blank image through the network and describe every leaf module that it passes.

    The network's modes, statistics and gradients, and torch's random numbers, stay as they are.

    Args:
        network: one chain of modules, from float (N, C, image_size, image_size), with C as its first
            convolution expects it. Convolutions, pooling, activations, dropout and Identity at any size;
            Flatten and Linear once the map is 1x1. Adaptive pooling counts as pooling with the kernel that
            it has at this image size. Normalisation counts as pixelwise: statistics are not followed.
        image_size: side length in pixels.

    Returns: list of Layer, in the order in which they act.
    Raises: ValueError naming the layer, if its receptive field has no square closed form, or if something
        other than a module (a sum, a branch, a functional call) acts between it and the layer before.
    """
    modules = dict(network.named_modules())
    leaves = {module: name for name, module in modules.items() if not list(module.children())}
    channels = next((module.in_channels for module in modules.values() if isinstance(module, nn.Conv2d)), 1)
    like = next(network.parameters(), torch.empty(0))
    image = torch.zeros(1, channels, image_size, image_size, dtype=like.dtype, device=like.device)
    layers, last = [], image

    def record(module, inputs, output):
        nonlocal last
        label = f"layer {leaves[module]!r} ({type(module).__name__})"
        if len(inputs) != 1 or inputs[0] is not last or not isinstance(output, torch.Tensor):
            raise ValueError(f"{label} does not take just what the layer before gave; only chains can be traced")
        *shown, dilation = _geometry(module, label, inputs[0], output) or (None, None, None, 1)
        kernel, stride = shown[0] or 1, shown[1] or 1
        jump, field = (layers[-1].jump, layers[-1].receptive_field) if layers else (1, 1)
        seen = any(layer.name == leaves[module] for layer in layers)
        parameters = 0 if seen else sum(parameter.numel() for parameter in module.parameters())
        made = (leaves[module], type(module).__name__, output.shape[1], _size(output))
        layers.append(Layer(*made, *shown, jump * stride, field + (kernel - 1) * dilation * jump, parameters))
        last = output

    modes = {module: module.training for module in modules.values()}
    hooks = [module.register_forward_hook(record) for module in leaves]
    try:
        network.eval()
        with torch.no_grad():
            result = network(image)
    finally:
        for hook in hooks:
            hook.remove()
        for module, mode in modes.items():
            module.training = mode
    if result is not last:
        raise ValueError(f"{type(network).__name__} does not return just what its last layer gave")
    return layers


def receptive_field(network, image_size=28):
    """Side length, in input pixels, of the square that one final output sees; raises as `trace_layers`."""
    return trace_layers(network, image_size)[-1].receptive_field


def trace_units(network, image_size=28):
    """One Unit per direct child of the network, in the order in which they act; raises as `trace_layers`."""
    last_of_child = {layer.name.split(".")[0]: layer for layer in trace_layers(network, image_size)}
    return [Unit(layer.out_channels, layer.out_size, layer.receptive_field) for layer in last_of_child.values()]


def layer_table(network, image_size=28, detail=False):
    """Lay out the trace as a table, indexed by module path.

    Args:
        detail: one row per leaf module; otherwise one per convolution, pooling and linear layer, with the
            parameters of the normalisation behind it added to its own. Either way the column adds up.

    Returns: DataFrame with columns layer, kernel, stride, padding, out (channels x height x width), jump,
        receptive field, parameters.
    Raises: as `trace_layers`.
    """
    layers = trace_layers(network, image_size)
    table = pandas.DataFrame(
        {
            "layer": layer.kind,
            **{key: getattr(layer, key) if layer.kernel else "" for key in ("kernel", "stride", "padding")},
            "out": f"{layer.out_channels}x{layer.out_size}x{layer.out_size}",
            **{key.replace("_", " "): getattr(layer, key) for key in ("jump", "receptive_field", "parameters")},
        }
        for layer in layers
    ).set_index(pandas.Index([layer.name for layer in layers], name="module"))
    if detail:
        return table
    owner = (table["kernel"] != "").cumsum().clip(lower=1)
    table["parameters"] = table.groupby(owner)["parameters"].transform("sum")
    return table[table["kernel"] != ""].infer_objects()


def _geometry(module, label, given, output):
    """(kernel, stride, padding, dilation) of a layer that has them, None of one that leaves pixels in place."""
    where = f"{_size(given)}x{_size(given)}"
    if isinstance(module, WINDOWS):
        kernel, dilation = _side(module.kernel_size, label), _side(getattr(module, "dilation", 1), label)
        same = {"same": (kernel - 1) * dilation // 2, "valid": 0}  # torch pads an odd rest at the far end
        padding = same[module.padding] if isinstance(module.padding, str) else _side(module.padding, label)
        return kernel, _side(module.stride, label), padding, dilation
    if isinstance(module, ADAPTIVE):
        sides = tuple(output.shape[2:])
        if given.shape[-1] % sides[-1] or len(set(sides)) > 1:
            raise ValueError(f"{label} pools {where} to {sides}; only a square that divides it evenly is traced")
        kernel = given.shape[-1] // sides[-1]
        return kernel, kernel, 0, 1
    if isinstance(module, nn.Linear) and given.ndim == 2:
        return 1, 1, 0, 1
    if isinstance(module, nn.Flatten) and _size(given) == 1 and output.ndim == 2:
        return None
    along_channels = getattr(module, "dim", 1) in (1, -3) or _size(given) == 1  # Softmax and the like
    if isinstance(module, PIXELWISE) and given.shape[2:] == output.shape[2:] and along_channels:
        return None
    raise ValueError(f"{label} on a {where} map moves pixels in a way that is not traced")


def _side(value, label):
    sides = set(value) if isinstance(value, tuple) else {value}
    if len(sides) > 1:
        raise ValueError(f"{label} has {value} where only squares are traced")
    return sides.pop()


def _size(activations):
    return activations.shape[-1] if activations.ndim == 4 else 1
