"""Which networks the compiled trainer knows, and what it is told of them.

A layer is known if a fresh one of torch's could stand in for it: of the very type, with every setting as usual, no hook
and no method of its own, and weights that are float32 and trained. So what is unheard of is refused, not overlooked.
"""

import inspect
from functools import partial

import numpy as np
import torch
from torch import nn
from torch.nn.modules.module import _has_any_global_hook
from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks

from lab.data import CLASSES

SIDE = 28
FULL, SEPARABLE, POINTWISE = range(3)  # see unit.h
NONE, MAX, AVERAGE, GLOBAL = range(4)
POOLS = {nn.MaxPool2d: MAX, nn.AvgPool2d: AVERAGE}
TENSORS_OF_A_NORM = 5  # scale, shift, mean, variance, number of batches
PLAIN = {"device": "cpu", "dtype": torch.float32}
TRAITS = ("shape", "dtype", "layout", "device", "requires_grad")  # of a tensor


def describe(network):
    """Units as int64 (units, 10), see `Description` in unit.h, and the offset of the last matrix.

    Raises: NotImplementedError naming the layer that the compiled trainer does not know, and why.
    """
    if _has_any_global_hook() or _global_optimizer_pre_hooks or _global_optimizer_post_hooks:
        raise NotImplementedError("torch has hooks that are called by every layer or optimiser")
    with torch.random.fork_rng(devices=[]):  # the usual layers draw weights that nobody needs
        return _describe(network)


def norms(network):
    """The batch normalisations, in the order of the units."""
    return [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]


def _describe(network):
    layers = _parts(network)
    _require(network, len(layers) > 3)
    *body, average, matrix, flatten = layers
    offsets = _offsets(network)
    units, channels, side, statistics = [], 1, SIDE, 0
    for layer in body:
        if type(layer) in POOLS:
            _require_usual(layer, type(layer)(2))
            side //= 2
            _require(layer, units and units[-1]["post"] == NONE and side)
            units[-1]["post"] = POOLS[type(layer)]
        else:
            unit = _describe_unit(layer, channels, offsets) | {"statistics": statistics}
            units.append(unit)
            channels, side = unit["outputs"], side - (0 if unit["kind"] == POINTWISE else 2 - 2 * unit["padding"])
            _require(layer, side > 0)
            statistics += 2 * channels
    _require_usual(average, nn.AdaptiveAvgPool2d(1))
    _require(average, units and units[-1]["post"] == NONE)
    _require_usual(matrix, nn.Conv2d(channels, CLASSES, 1, bias=False, **PLAIN))
    _require_usual(flatten, nn.Flatten())
    units[-1]["post"] = GLOBAL
    head = offsets[id(matrix.weight)]
    _require_own_weights(network, units, head)
    return np.array([list(unit.values()) for unit in units], dtype=np.int64), head


def _describe_unit(layer, inputs, offsets):
    parts = _parts(layer)
    _require(layer, len(parts) == 3)
    convolution, norm, activation = parts
    filters = _parts(convolution) if isinstance(convolution, nn.Sequential) else [convolution]
    _require(layer, len(filters) in (1, 2))
    for one in filters:
        _require(one, type(one) is nn.Conv2d)
    first, last = filters[0], filters[-1]
    outputs, padding = last.out_channels, int(first.padding == (1, 1))
    make = partial(nn.Conv2d, bias=False, **PLAIN)
    if len(filters) == 2:
        kind, usual = SEPARABLE, [make(inputs, inputs, 3, padding=padding, groups=inputs), make(inputs, outputs, 1)]
    elif first.kernel_size == (3, 3):
        kind, usual = FULL, [make(inputs, outputs, 3, padding=padding)]
    else:
        kind, usual = POINTWISE, [make(inputs, outputs, 1)]
    usual += [nn.BatchNorm2d(outputs, **PLAIN), nn.ReLU(getattr(activation, "inplace", False))]
    for part, expected in zip([*filters, norm, activation], usual, strict=True):
        _require_usual(part, expected)
    return {
        "kind": kind,
        "inputs": inputs,
        "outputs": outputs,
        "padding": padding,
        "post": NONE,
        "weight": offsets[id(first.weight)],
        "pointwise": offsets[id(last.weight)],
        "scale": offsets[id(norm.weight)],
        "shift": offsets[id(norm.bias)],
    }


def _offsets(network):
    """Where each weight begins among all of them, by its identity."""
    offsets, weights = {}, 0
    for parameter in network.parameters():
        offsets[id(parameter)] = weights
        weights += parameter.numel()
    return offsets


def _require_own_weights(network, units, head):
    """Units may share a convolution as a whole; no other weight or statistic, and all belong to a layer."""
    filters = {unit[name] for unit in units for name in ("weight", "pointwise")}
    convolutions = sum(type(module) is nn.Conv2d for module in network.modules())
    tensors = {tensor.untyped_storage().data_ptr() for tensor in (*network.parameters(), *network.buffers())}
    if head in filters or not len(filters) + 1 == convolutions == len(tensors) - TENSORS_OF_A_NORM * len(units):
        raise NotImplementedError("it does not know weights that are shared like this, or that belong to no layer")


def _parts(layer):
    """The layers of an nn.Sequential, or of a subclass that changes nothing about how one works."""
    _require(layer, isinstance(layer, nn.Sequential))
    usual = nn.Sequential()
    methods = dict(inspect.getmembers(nn.Sequential, inspect.isfunction)) | {"__init__": None}
    found = {name: method and getattr(type(layer), name) for name, method in methods.items()}
    found |= {name: value for name, value in _traits(layer).items() if hasattr(usual, name)}
    expected = methods | _traits(usual)
    _require_same(layer, found | {"_modules": None}, expected | {"_modules": None})
    return list(layer)


def _require_usual(layer, usual):
    _require(layer, type(layer) is type(usual))
    _require_same(layer, _traits(layer), _traits(usual))


def _require_same(layer, found, expected):
    for name in expected | found:
        one, other = found.get(name), expected.get(name)
        _require(layer, type(one) is type(other) and one == other, f": its {name} is not as usual")


def _traits(layer):
    """All that there is to a layer, by name, but for the values of its weights and statistics."""
    traits = {name: value for name, value in vars(layer).items() if name not in ("_parameters", "_buffers", "training")}
    for name, tensor in (layer._parameters | layer._buffers).items():
        traits |= {f"{name}.{trait}": getattr(tensor, trait, None) for trait in TRAITS}
        hooks = [getattr(tensor, kind, None) for kind in ("_backward_hooks", "_post_accumulate_grad_hooks")]
        traits |= {f"type of {name}": type(tensor), f"hooks of {name}": any(hooks)}
    return traits


def _require(layer, known, reason=" in this place"):
    if not known:
        inner = [type(part).__name__ for part in getattr(layer, "_modules", {}).values()]
        name = f"{type(layer).__name__}({', '.join(inner)})" if inner else str(layer)
        raise NotImplementedError(f"it does not know {name}{reason}")
