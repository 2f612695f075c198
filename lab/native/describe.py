"""Which networks the compiled trainer knows, and how they are described to it."""

import torch
from torch import nn
from torch.nn.modules.module import _has_any_global_hook
from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks

from lab.native.seam import SIDE
from lab.tracing.usual import layers_of, require_known, require_own_weights, require_usual
from lab.training.data import CLASSES
from model import Dropout

SIZES = (1, 1), (3, 3), (7, 7)  # of kernels
NONE, MAX, AVERAGE, GLOBAL = range(4)  # see unit.h
DROPOUTS = (nn.Dropout, Dropout)
POOLS = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d)
ABSENT = -1  # in place of an offset
RATES = 2**16  # that dropout can tell apart, see model.Dropout
PLAIN = {"device": "cpu", "dtype": torch.float32}


def describe(network):
    """Units as dictionaries, see `Description` in unit.h.

    Raises: NotImplementedError naming the layer that the compiled trainer does not know, and why.
    """
    if _has_any_global_hook() or _global_optimizer_pre_hooks or _global_optimizer_post_hooks:
        raise NotImplementedError("torch has hooks that are called by every layer or optimiser")
    with torch.random.fork_rng(devices=[]):  # the usual layers draw weights that nobody needs
        return _describe(network)


def norms(network):
    """The batch normalisations, in the order of the units."""
    return [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]


def dropped_of(layer):
    """How many activations out of RATES a layer drops; 0 if it is not dropout."""
    return round(layer.p * RATES) if isinstance(layer, nn.Dropout) else 0


def _describe(network):
    *body, flatten = layers_of(network)
    require_known(network, body)
    last, offsets = body[-1], _offsets(network)
    units, channels, side, statistics = [], 1, SIDE, 0
    while body:
        layer = body[0]
        if type(layer) in POOLS:
            post, side = _describe_pool(body.pop(0), side)
            require_known(layer, units and units[-1]["post"] == NONE and side)
            units[-1]["post"] = post
        else:
            units.append(unit := _take_unit(body, channels, side, offsets))
            channels, side = unit["outputs"], unit["side"]
            require_known(layer, side > 0)
            if unit["scale"] != ABSENT:
                unit["statistics"], statistics = statistics, statistics + 2 * channels
    require_known(last, side == 1 and channels == CLASSES)
    require_usual(flatten, nn.Flatten())
    require_own_weights(network)
    return units


def _describe_pool(layer, side):
    """What kind of pooling a layer is on maps of `side` pixels each way, and how many it leaves."""
    if type(layer) is nn.AdaptiveAvgPool2d:
        require_usual(layer, nn.AdaptiveAvgPool2d(1))
        return GLOBAL, 1
    if type(layer) is nn.AvgPool2d and layer.kernel_size == side:
        require_usual(layer, nn.AvgPool2d(side, layer.stride))  # it has one window, so it never strides
        return GLOBAL, 1
    require_usual(layer, type(layer)(2))
    return MAX if type(layer) is nn.MaxPool2d else AVERAGE, side // 2


def _take_unit(layers, inputs, side, offsets):
    """Take a convolution and what belongs to it from the front of a list of layers; describe it.

    It reads maps of `inputs` channels and `side` pixels each way.
    """
    taken = []

    def take(*kinds):
        if not layers or type(layers[0]) not in kinds:
            return None
        taken.append(layers.pop(0))
        return taken[-1]

    pad = take(nn.ZeroPad2d)
    require_known(pad or layers[0], layers and type(layers[0]) is nn.Conv2d)
    first = last = take(nn.Conv2d)
    further = pad.padding[0] if pad else 0  # below zero it cuts pixels off; zeros around what is left are not known
    size = first.kernel_size[0] if first.kernel_size in SIZES else 3
    if size == 3 and first.groups == inputs > 1 and layers and getattr(layers[0], "kernel_size", None) == (1, 1):
        last = take(nn.Conv2d) or first
    separable, padding = last is not first, int(first.padding == (1, 1) and size > 1)
    relu_first, norm = take(nn.ReLU), take(nn.BatchNorm2d)
    dropout = take(*DROPOUTS)  # it may come first, since what is scaled or dropped has the same sign before and after
    relu_last = take(nn.ReLU)
    dropout = dropout or take(*DROPOUTS)
    outputs, biased = last.out_channels, last.bias is not None
    usual = {first: nn.Conv2d(inputs, outputs, size, padding=padding, bias=biased, **PLAIN)}
    if separable:
        usual = {first: nn.Conv2d(inputs, inputs, 3, padding=padding, groups=inputs, bias=False, **PLAIN)}
        usual |= {last: nn.Conv2d(inputs, outputs, 1, bias=biased, **PLAIN)}
    usual |= {relu: nn.ReLU(relu.inplace) for relu in (relu_first, relu_last) if relu}
    usual |= {norm: nn.BatchNorm2d(outputs, **PLAIN), pad: nn.ZeroPad2d(further)}
    usual |= {dropout: type(dropout)(dropout.p)} if dropout else {}
    for part in taken:
        require_usual(part, usual[part])
    require_known(pad, further * padding >= 0 and further + padding < size)
    padding += further
    require_known(dropout, dropped_of(dropout) < RATES, ": it drops all")
    return {
        "separable": separable,
        "size": 1 if separable else size,
        "inputs": inputs,
        "outputs": outputs,
        "padding": padding,
        "side": side + 2 * padding - size + 1,
        "weight": offsets[id(first.weight)],
        "pointwise": offsets[id(last.weight)],
        "bias": offsets.get(id(last.bias), ABSENT),
        "relu_first": relu_first is not None,
        "scale": offsets[id(norm.weight)] if norm else ABSENT,
        "shift": offsets[id(norm.bias)] if norm else ABSENT,
        "statistics": ABSENT,
        "relu_last": relu_last is not None,
        "dropped": dropped_of(dropout),
        "post": NONE,
    }


def _offsets(network):
    """Where each weight begins among all of them, by its id."""
    offsets, weights = {}, 0
    for parameter in network.parameters():
        offsets[id(parameter)] = weights
        weights += parameter.numel()
    return offsets
