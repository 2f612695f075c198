"""Which networks the compiled trainer takes: those of plain layers alone; whatever is changed about one is refused."""

import copy
from collections import OrderedDict
from functools import partial
from types import MethodType

import pytest
import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook, register_module_full_backward_hook
from torch.nn.utils import parametrizations, parametrize, prune
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from lab.ladders.rungs import find_rungs
from lab.native.describe import describe
from lab.search.notation import Notation
from model import ConvUnit, Dropout, SeparableUnit, filter_each, project

conv = partial(nn.Conv2d, bias=False)


def unit(convolution, norm=None, activation=None):
    return nn.Sequential(convolution, norm or nn.BatchNorm2d(6), activation or nn.ReLU())


def plain():
    """What every case below changes one thing about."""
    return nn.Sequential(
        unit(conv(1, 6, 3)),
        unit(conv(6, 6, 1)),
        nn.MaxPool2d(2),
        unit(nn.Sequential(filter_each(6, padding=1), project(6, 6))),
        nn.AdaptiveAvgPool2d(1),
        project(6, 10),
        nn.Flatten(),
    )


class Residual(nn.Sequential):
    def forward(self, maps):
        return maps + super().forward(maps)


class Frozen(nn.Sequential):
    def train(self, mode=True):
        return super().train(False)


class Convolution(nn.Conv2d):
    pass


class Norm(nn.BatchNorm2d):
    def forward(self, maps):
        return super().forward(2 * maps)


class Rectifier(nn.ReLU):
    def forward(self, maps):
        return super().forward(maps) - 1


class Pool(nn.MaxPool2d):
    pass


class Average(nn.AdaptiveAvgPool2d):
    pass


class Dropping(nn.Dropout):
    pass


class Halved(nn.Module):
    def forward(self, weight):
        return weight / 2


class Weight(nn.Parameter):
    pass


def put(place, layer):
    """A change: another layer, made by `layer`, at a place such as "0.1"."""

    def change(network):
        path, _, name = place.rpartition(".")
        network.get_submodule(path)[int(name)] = layer()

    return change


def on(place, action):
    """A change: something done to the module at a place; "" is the network."""
    return lambda network: action(network.get_submodule(place))


def own_method(name):
    return lambda module: setattr(module, name, MethodType(lambda self, *_: self, module))


def freeze(*names):
    def action(module):
        for name in names:
            module.get_parameter(name).requires_grad_(False)

    return action


def share(one, other, name):
    def change(network):
        setattr(network.get_submodule(other), name, getattr(network.get_submodule(one), name))

    return change


def share_memory(network):
    network[3][0][1].weight.data = network[1][0].weight.data


def share_bias(network):
    one, other = nn.Conv2d(1, 6, 3), nn.Conv2d(6, 6, 1)
    network[0][0], network[1][0], other.bias = one, other, one.bias


def frozen_bias(convolution):
    convolution.bias.requires_grad_(False)
    return convolution


def with_own_forward(module):
    own_method("forward")(module)
    return module


def hook(*_):
    pass


FIRST, SECOND, HEAD = "0.0", "1.0", "5"
LAYERS = {
    "a unit of its own kind": (put("1", lambda: Residual(*unit(conv(6, 6, 1)))), "Residual.*forward"),
    "half a convolution of its own kind": (put("3.0", lambda: Residual(*plain()[3][0])), "Residual.*forward"),
    "a unit that stays in eval mode": (put("1", lambda: Frozen(*unit(conv(6, 6, 1)))), "Frozen.*train"),
    "no sequence": (put("1", lambda: nn.ModuleList(unit(conv(6, 6, 1)))), "ModuleList"),
    "identity": (put("2", nn.Identity), "Identity"),
    "a norm before the first convolution": (put("0", lambda: unit(nn.BatchNorm2d(1), conv(1, 6, 3))), "BatchNorm2d"),
    "two norms": (put("1", lambda: unit(conv(6, 6, 1)).append(nn.BatchNorm2d(6))), "BatchNorm2d"),
    "a norm behind two ReLUs": (
        put("1", lambda: unit(conv(6, 6, 1), nn.ReLU(), nn.ReLU()).append(nn.BatchNorm2d(6))),
        "BatchNorm2d",
    ),
    "ReLU behind a pooling": (put("2", lambda: nn.Sequential(nn.MaxPool2d(2), nn.ReLU())), "ReLU"),
    "dropout behind a pooling": (put("2", lambda: nn.Sequential(nn.MaxPool2d(2), nn.Dropout())), "Dropout"),
    "dropout on both sides of ReLU": (
        put("1", lambda: nn.Sequential(conv(6, 6, 1), nn.BatchNorm2d(6), nn.Dropout(), nn.ReLU(), nn.Dropout())),
        "Dropout",
    ),
    "dropout before normalisation": (put("1.0", lambda: nn.Sequential(conv(6, 6, 1), nn.Dropout())), "BatchNorm2d"),
    "dropout of the image": (put("0", lambda: nn.Sequential(nn.Dropout(), unit(conv(1, 6, 3)))), "Dropout"),
    "dropout twice": (put("1", lambda: unit(conv(6, 6, 1)).extend([nn.Dropout(), Dropout()])), "Dropout"),
    "dropout of classes, flattened": (put("6", lambda: nn.Sequential(nn.Flatten(), nn.Dropout())), "Flatten"),
    "subclass of dropout": (put("1", lambda: unit(conv(6, 6, 1)).append(Dropping(0.1))), "Dropping"),
    "dropout in place": (put("1", lambda: unit(conv(6, 6, 1)).append(nn.Dropout(0.1, inplace=True))), "inplace"),
    "dropout of whole channels": (put("1", lambda: unit(conv(6, 6, 1)).append(nn.Dropout2d(0.1))), "Dropout2d"),
    "dropout of all": (put("1", lambda: unit(conv(6, 6, 1)).append(nn.Dropout(1))), "Dropout.*drops all"),
    "dropout of nearly all": (put("1", lambda: unit(conv(6, 6, 1)).append(Dropout(1 - 1e-6))), "Dropout.*drops all"),
    "subclass of a convolution": (put(FIRST, lambda: Convolution(1, 6, 3, bias=False)), "Convolution"),
    "transposed convolution": (put(FIRST, lambda: nn.ConvTranspose2d(1, 6, 3, bias=False)), "ConvTranspose2d"),
    "reflected border": (put(FIRST, lambda: conv(1, 6, 3, padding=1, padding_mode="reflect")), "padding_mode"),
    "circular border": (put("3.0.0", lambda: conv(6, 6, 3, padding=1, padding_mode="circular", groups=6)), "padding_m"),
    "stride": (put(FIRST, lambda: conv(1, 6, 3, stride=2)), "stride"),
    "stride of a 1x1": (put(SECOND, lambda: conv(6, 6, 1, stride=2)), "stride"),
    "dilation": (put(FIRST, lambda: conv(1, 6, 3, dilation=2)), "dilation"),
    "wide padding": (put(FIRST, lambda: conv(1, 6, 3, padding=2)), "padding"),
    "padding of a 1x1": (put(SECOND, lambda: conv(6, 6, 1, padding=1)), "padding"),
    "padding in words": (put(FIRST, lambda: conv(1, 6, 3, padding="same")), "padding"),
    "padding along one side": (put(FIRST, lambda: conv(1, 6, 3, padding=(1, 0))), "padding"),
    "bias between two filters": (put("3.0.0", lambda: nn.Conv2d(6, 6, 3, padding=1, groups=6)), "bias"),
    "a frozen bias": (put(FIRST, lambda: frozen_bias(nn.Conv2d(1, 6, 3))), "bias.requires_grad"),
    "each channel by itself, not mixed": (put("1.0", lambda: conv(6, 6, 3, groups=6)), "groups"),
    "groups": (put(SECOND, lambda: conv(6, 6, 1, groups=2)), "groups"),
    "several filters a channel": (
        put("3.0", lambda: nn.Sequential(conv(6, 12, 3, groups=6), conv(12, 6, 1))),
        "out_ch",
    ),
    "oblong": (put(FIRST, lambda: conv(1, 6, (3, 1))), "kernel_size"),
    "5x5": (put(FIRST, lambda: conv(1, 6, 5, padding=2)), "kernel_size"),
    "channels that do not follow on": (put(SECOND, lambda: conv(5, 6, 1)), "in_channels"),
    "eps": (put("0.1", lambda: nn.BatchNorm2d(6, eps=1e-3)), "eps"),
    "momentum": (put("0.1", lambda: nn.BatchNorm2d(6, momentum=0.01)), "momentum"),
    "plain average of statistics": (put("0.1", lambda: nn.BatchNorm2d(6, momentum=None)), "momentum"),
    "no scale and shift": (put("0.1", lambda: nn.BatchNorm2d(6, affine=False)), "affine"),
    "no statistics": (put("0.1", lambda: nn.BatchNorm2d(6, track_running_stats=False)), "track_running_stats"),
    "subclass of a norm": (put("0.1", lambda: Norm(6)), "Norm"),
    "another norm": (put("0.1", lambda: nn.InstanceNorm2d(6, affine=True, track_running_stats=True)), "InstanceNorm"),
    "norms of other widths": (put("0.1", lambda: nn.BatchNorm2d(1)), "num_features"),
    "subclass of ReLU": (put("0.2", Rectifier), "Rectifier"),
    "another activation": (put("0.2", nn.ReLU6), "ReLU6"),
    "dilated pooling": (put("2", lambda: nn.MaxPool2d(2, dilation=2)), "dilation"),
    "pooling rounded up": (put("2", lambda: nn.MaxPool2d(2, ceil_mode=True)), "ceil_mode"),
    "average rounded up": (put("2", lambda: nn.AvgPool2d(2, ceil_mode=True)), "ceil_mode"),
    "average divided by 3": (put("2", lambda: nn.AvgPool2d(2, divisor_override=3)), "divisor_override"),
    "overlapping pooling": (put("2", lambda: nn.MaxPool2d(2, stride=1)), "stride"),
    "padded pooling": (put("2", lambda: nn.MaxPool2d(2, padding=1)), "padding"),
    "pooling by 3": (put("2", lambda: nn.AvgPool2d(3)), "kernel_size"),
    "subclass of pooling": (put("2", lambda: Pool(2)), "Pool"),
    "another pooling": (put("2", lambda: nn.LPPool2d(2, 2)), "LPPool2d"),
    "maps larger than 1x1 at the end": (put("4", lambda: nn.AdaptiveAvgPool2d(2)), "output_size"),
    "largest of all at the end": (put("4", lambda: nn.AdaptiveMaxPool2d(1)), "AdaptiveMaxPool2d"),
    "subclass of the last average": (put("4", lambda: Average(1)), "Average"),
    "part of the last map": (put("4", lambda: nn.AvgPool2d(11)), "kernel_size"),
    "a last average with a border": (put("4", lambda: nn.AvgPool2d(13, padding=2)), "padding"),
    "a last average divided by 3": (put("4", lambda: nn.AvgPool2d(13, divisor_override=3)), "divisor_override"),
    "a bias of two matrices": (put("1.0", lambda: nn.Conv2d(6, 10, 1)), "num_features"),
    "no average": (put("4", lambda: conv(6, 6, 1)), "in this place"),
    "an average twice": (put("4", lambda: nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.AvgPool2d(1))), "AvgPool2d"),
    "eleven classes": (put(HEAD, lambda: project(6, 11)), "Conv2d.* in this place"),
    "nine classes": (put(HEAD, lambda: project(6, 9)), "Conv2d.* in this place"),
    "two pixels each way of class maps": (
        put("4", lambda: nn.Sequential(nn.MaxPool2d(2), nn.AvgPool2d(2), conv(6, 6, 3, padding=1), conv(6, 6, 1))),
        "in this place",
    ),
    "another flattening": (put("6", lambda: nn.Flatten(-3)), "start_dim"),
    "nothing flattened": (put("6", nn.Softmax), "Softmax"),
}
ADDED = {
    "forward of the network": (on("", own_method("forward")), "forward"),
    "forward of a unit": (on("1", own_method("forward")), "forward"),
    "forward of a convolution": (on(FIRST, own_method("forward")), "forward"),
    "forward of a norm": (on("0.1", own_method("forward")), "forward"),
    "forward of ReLU": (on("0.2", own_method("forward")), "forward"),
    "forward of a pooling": (on("2", own_method("forward")), "forward"),
    "a norm that stays in eval mode": (on("0.1", own_method("train")), "train"),
    "a network that stays in eval mode": (on("", own_method("train")), "train"),
    "compiled by torch": (on("", lambda module: module.compile()), "compiled_call"),
    "forward hook": (on(FIRST, lambda module: module.register_forward_hook(hook)), "_forward_hooks"),
    "forward hook of a unit": (on("1", lambda module: module.register_forward_hook(hook)), "_forward_hooks"),
    "forward hook of the network": (on("", lambda module: module.register_forward_hook(hook)), "_forward_hooks"),
    "hook before a layer": (on("0.2", lambda module: module.register_forward_pre_hook(hook)), "_forward_pre_hooks"),
    "backward hook": (on("2", lambda module: module.register_full_backward_hook(hook)), "_backward_hooks"),
    "hook before the way back": (on("5", lambda m: m.register_full_backward_pre_hook(hook)), "_backward_pre_hooks"),
    "hook of a weight": (on(FIRST, lambda module: module.weight.register_hook(hook)), "hooks of weight"),
    "hook behind a gradient": (
        on("0.1", lambda module: module.bias.register_post_accumulate_grad_hook(hook)),
        "hooks of bias",
    ),
    "frozen filters": (on(FIRST, freeze("weight")), "weight.requires_grad"),
    "frozen shift": (on("3.1", freeze("bias")), "bias.requires_grad"),
    "frozen matrix": (on(HEAD, freeze("weight")), "weight.requires_grad"),
    "all frozen": (on("", lambda network: network.requires_grad_(False)), "requires_grad"),
    "double precision": (on("", lambda network: network.double()), "dtype"),
    "half precision": (on("0.1", lambda module: module.bfloat16()), "dtype"),
    "another class of weights": (on(FIRST, lambda m: setattr(m, "weight", Weight(m.weight.data))), "type of weight"),
    "parametrised": (
        on(FIRST, lambda module: parametrize.register_parametrization(module, "weight", Halved())),
        "ParametrizedConv2d",
    ),
    "weight norm": (on(FIRST, parametrizations.weight_norm), "ParametrizedConv2d"),
    "spectral norm": (on(SECOND, parametrizations.spectral_norm), "ParametrizedConv2d"),
    "spectral norm as it was": (on(SECOND, nn.utils.spectral_norm), "as usual"),
    "pruned": (on(SECOND, lambda module: prune.random_unstructured(module, "weight", 0.5)), "as usual"),
    "weight of the network": (on("", lambda m: m.register_parameter("own", nn.Parameter(torch.ones(1)))), "no layer"),
    "statistic of a unit": (on("1", lambda module: module.register_buffer("own", torch.ones(1))), "no layer"),
    "statistic of a convolution": (on(FIRST, lambda module: module.register_buffer("own", torch.ones(1))), "own"),
    "layer of a convolution": (on(FIRST, lambda module: module.add_module("own", nn.ReLU())), "_modules"),
    "statistics that are not kept": (
        on("0.1", lambda module: module.register_buffer("running_mean", torch.zeros(6), persistent=False)),
        "_non_persistent",
    ),
    "a unit twice": (lambda network: network.insert(2, network[1]), "shared"),
    "a norm for two": (lambda network: network[1].__setitem__(1, network[0][1]), "shared"),
    "a scale for two": (share("0.1", "1.1", "weight"), "shared"),
    "a statistic for two": (share("0.1", "1.1", "running_var"), "shared"),
    "a count for two": (share("0.1", "1.1", "num_batches_tracked"), "shared"),
    "scale and shift in one": (on("0.1", lambda module: setattr(module, "bias", module.weight)), "shared"),
    "filters of two convolutions": (share("1.0", "3.0.1", "weight"), "shared"),
    "memory of two filters": (share_memory, "shared"),
    "a bias for two": (share_bias, "shared"),
    "a bias that is a shift": (share("0.1", "0.0", "bias"), "shared"),
    "forward of dropout": (lambda network: network[1].append(with_own_forward(nn.Dropout())), "forward"),
}


@pytest.mark.parametrize(("change", "reason"), [*LAYERS.values(), *ADDED.values()], ids=[*LAYERS, *ADDED])
def test_what_is_not_as_usual_is_refused_by_name(change, reason):
    network = plain()
    describe(network)
    change(network)
    with pytest.raises(NotImplementedError, match=f"it does not know .*{reason}"):
        describe(network)


def test_the_last_convolution_shares_all_of_itself_or_nothing():
    network = Notation("c10 r10 G")
    network[1][0] = network[-2]
    first, last = describe(network)[1:]
    assert (first["weight"], first["pointwise"]) == (last["weight"], last["pointwise"])
    other = Notation("c10 r10 G")
    other[1][0].weight = other[-2].weight
    with pytest.raises(NotImplementedError, match="shared"):
        describe(other)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda network: nn.ModuleList(network), "ModuleList"),
        (lambda network: Residual(*network), "Residual.*forward"),
        (lambda network: Frozen(*network), "Frozen.*train"),
        (lambda network: network[1:], "in_channels"),
        (lambda network: network[2:], "MaxPool2d"),
        (lambda network: network[4:], "AdaptiveAvgPool2d"),
        (lambda network: network[5:], "in_channels"),
        (lambda network: network[:-1], "in this place"),
        (lambda network: network.append(nn.Softmax(1)), "in this place"),
    ],
)
def test_a_network_of_another_form_is_refused(change, reason):
    with pytest.raises(NotImplementedError, match=f"it does not know .*{reason}"):
        describe(change(plain()))


@pytest.mark.parametrize(
    ("pad", "layer"),
    [
        (nn.ZeroPad2d((1, 2, 1, 2)), "ZeroPad2d"),
        (nn.ZeroPad2d(3), "ZeroPad2d"),  # more than the kernel reaches
        (nn.ZeroPad2d(-13), "ZeroPad2d"),  # leaves two pixels
        (nn.ConstantPad2d(-2, 0.0), "ConstantPad2d"),
    ],
)
def test_a_padding_that_is_not_known_is_refused(pad, layer):
    with pytest.raises(NotImplementedError, match=f"it does not know {layer}"):
        describe(nn.Sequential(pad, *plain()))


def test_zeros_around_what_is_left_of_an_image_are_refused():
    """The convolution would read zeros where the image goes on."""
    known = Notation("i24 c4p M c5 G")
    with pytest.raises(NotImplementedError, match=r"it does not know ZeroPad2d\(\(-2"):
        describe(known)
    assert describe(Notation("i24 c4 M c5 G"))[0]["padding"] == -2


@pytest.mark.parametrize("layers", ["c4 " * 14 + "G", "c4 M c4 M c4 M c4 G", "c4 " * 13 + "c4p M M G", "c4 M M c4 G"])
def test_maps_never_vanish(layers):
    with pytest.raises(NotImplementedError, match="in this place"):
        describe(Notation(layers))


@pytest.mark.parametrize(
    "register",
    [
        register_module_forward_hook,
        register_module_full_backward_hook,
        register_optimizer_step_pre_hook,
        register_optimizer_step_post_hook,
    ],
)
def test_hooks_of_everything_are_refused(register):
    handle = register(hook)
    try:
        with pytest.raises(NotImplementedError, match="hooks"):
            describe(plain())
    finally:
        handle.remove()
    describe(plain())


class Labelled(nn.Sequential):
    """Knows more than an nn.Sequential, and works as one."""

    def __init__(self, *layers):
        super().__init__(*layers)
        self.widths = [6, 6]
        self.register_parameter("unused", None)

    def width(self):
        return max(self.widths)


@pytest.mark.parametrize(
    "same",
    [
        copy.deepcopy,
        lambda network: Labelled(*(Labelled(*part) if len(list(part.children())) == 3 else part for part in network)),
        lambda network: nn.Sequential(OrderedDict((f"layer {name}", part) for name, part in network.named_children())),
        lambda network: network.to(memory_format=torch.channels_last),
        lambda network: network.eval(),
        lambda network: nn.Sequential(*network[:2], nn.MaxPool2d(2, 2), *network[3:]),
        lambda network: nn.Sequential(
            unit(conv(1, 6, (3, 3)), nn.BatchNorm2d(6, 1e-5, 0.1), nn.ReLU(inplace=True)), *network[1:]
        ),
        lambda network: nn.Sequential(*network[:3], SeparableUnit(6, 6, padding=1), *network[4:]),
        lambda network: nn.Sequential(network),
        lambda network: nn.Sequential(*network[0], *network[1:3], nn.Sequential(nn.Sequential(*network[3:]))),
        lambda network: nn.Sequential(*network[:4], nn.AvgPool2d(13), *network[5:]),
        lambda network: nn.Sequential(*network[:4], nn.AvgPool2d(13, stride=2), *network[5:]),
        lambda network: nn.Sequential(network[0].append(nn.Dropout(1e-6)), *network[1:]),
        lambda network: nn.Sequential(*network[0][:2], nn.Dropout(1e-6), network[0][2], *network[1:]),
    ],
)
def test_what_works_the_same_is_described_the_same(same):
    network = plain()
    assert describe(same(network)) == describe(network)


@pytest.mark.parametrize("dropout", [nn.Dropout(0.25), Dropout(0.25)])
def test_dropout_on_either_side_of_relu_is_described_the_same(dropout):
    """Both keep the sign of what they keep."""
    one, other = plain(), plain()
    one[1] = nn.Sequential(conv(6, 6, 1), nn.BatchNorm2d(6), dropout, nn.ReLU())
    other[1] = nn.Sequential(conv(6, 6, 1), nn.BatchNorm2d(6), nn.ReLU(), dropout)
    assert describe(one) == describe(other)
    assert describe(one)[1]["dropped"] == 2**14


ABSENT = dict.fromkeys(["bias", "scale", "shift", "statistics"], -1)
BARE = {"separable": False, "size": 1, "inputs": 1, "outputs": 6, "padding": 0, "side": 28, "weight": 0, "pointwise": 0}
BARE |= ABSENT | {"relu_first": False, "relu_last": False, "dropped": 0, "post": 0}
NORMED = {"scale": 6, "shift": 12, "statistics": 0}


@pytest.mark.parametrize(
    ("layers", "there"),
    [
        ([conv(1, 6, 1)], {}),
        ([nn.Conv2d(1, 6, 1)], {"bias": 6}),
        ([conv(1, 6, 1), nn.ReLU()], {"relu_first": True}),
        ([conv(1, 6, 1), nn.ReLU(), nn.ReLU()], {"relu_first": True, "relu_last": True}),
        ([conv(1, 6, 1), nn.BatchNorm2d(6)], NORMED),
        ([ConvUnit(1, 6, 1, after="norm relu")], NORMED | {"relu_last": True}),
        ([ConvUnit(1, 6, 1, after="norm dropout relu", dropout=0.5)], NORMED | {"relu_last": True, "dropped": 2**15}),
        ([ConvUnit(1, 6, 1, after="relu norm")], NORMED | {"relu_first": True}),
        (
            [ConvUnit(1, 6, 1, after="relu norm dropout", bias=True, dropout=0.25)],
            {"bias": 6, "scale": 12, "shift": 18, "statistics": 0, "relu_first": True, "dropped": 2**14},
        ),
        ([conv(1, 6, 1), nn.Dropout(0.5)], {"dropped": 2**15}),
    ],
)
def test_what_belongs_to_a_convolution_is_told(layers, there):
    unit, head = describe(nn.Sequential(*layers, nn.AvgPool2d(28), project(6, 10, bias=True), nn.Flatten()))
    assert unit == BARE | {"post": 3} | there
    start = sum(weight.numel() for layer in layers for weight in layer.parameters())
    classes = {"inputs": 6, "outputs": 10, "side": 1, "weight": start, "pointwise": start, "bias": start + 60}
    assert head == BARE | classes


@pytest.mark.parametrize(
    ("layers", "last"),
    [
        ([project(6, 10), nn.AvgPool2d(12)], {"side": 12, "post": 3}),
        ([project(6, 10), nn.AdaptiveAvgPool2d(1)], {"side": 12, "post": 3}),
        ([conv(6, 10, 3, padding=1), nn.AdaptiveAvgPool2d(1)], {"size": 3, "padding": 1, "side": 12, "post": 3}),
        ([nn.AvgPool2d(2), nn.MaxPool2d(2)], None),
        ([nn.AvgPool2d(2), conv(6, 6, 3, padding=1), nn.MaxPool2d(2), conv(6, 10, 3)], {"size": 3, "side": 1}),
        ([conv(6, 6, 3, padding=1), nn.MaxPool2d(2), conv(6, 6, 1), nn.MaxPool2d(2), conv(6, 10, 7)], None),
        ([conv(6, 6, 3), conv(6, 6, 3), conv(6, 6, 1), conv(6, 10, 7), nn.AvgPool2d(2)], {"size": 7, "side": 2}),
        ([nn.AvgPool2d(12), conv(6, 10, 3, padding=1)], {"size": 3, "padding": 1, "side": 1}),
        ([conv(6, 6, 3), conv(6, 6, 1), conv(6, 6, 3), nn.ReLU(), nn.AvgPool2d(8), conv(6, 10, 7)], None),
        ([conv(6, 6, 7), conv(6, 10, 3), nn.AvgPool2d(2), nn.ReLU()], None),
        ([conv(6, 6, 7), conv(6, 10, 3), nn.AvgPool2d(2)], None),
    ],
)
def test_whatever_leaves_one_pixel_for_each_class_ends_a_network(layers, last):
    """`last` is what is told of the last convolution; None where something else is left."""
    network = nn.Sequential(conv(1, 6, 3, padding=1), nn.MaxPool2d(2), conv(6, 6, 3), *layers, nn.Flatten())
    if last is None:
        with pytest.raises(NotImplementedError, match="it does not know"):
            describe(network)
    else:
        assert describe(network)[-1].items() >= (last | {"outputs": 10}).items()


def test_published_networks_are_known():
    compiled = [recipe for rung in find_rungs() for recipe in rung.recipes.values() if recipe.compiled]
    assert len(compiled) > 80
    for recipe in compiled:
        assert len(describe(recipe.specimen())) > 3
    on_pages = [recipe for rung in find_rungs() for recipe in rung.page_recipes.values()]
    assert all(recipe.compiled for recipe in on_pages if recipe.parameters < 50_000)


def test_random_numbers_stay_as_they_are():
    network = plain()
    before = torch.get_rng_state()
    describe(network)
    assert torch.equal(torch.get_rng_state(), before)
