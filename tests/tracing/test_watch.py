"""Networks as readers write them against gradients: the square that is claimed is the one that they see, or none is."""

import random

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lab.tracing.receptive_field import receptive_field, trace_layers

CHANNELS = 3


class Between(nn.Module):
    """Layers, and before each but the first one something that is no layer."""

    def __init__(self, layers, steps):
        super().__init__()
        self.layers, self.steps = nn.ModuleList(layers), steps
        self.scale = nn.Parameter(torch.randn(1, CHANNELS, 1, 1))
        self.gate, self.norm = nn.Sigmoid(), nn.BatchNorm2d(CHANNELS)

    def forward(self, maps):
        maps = self.layers[0](maps * 1)
        for layer, step in zip(self.layers[1:], self.steps, strict=True):
            maps = layer(step(self, maps))
        return maps


def in_place(network, maps):
    maps += 0.1
    maps.mul_(network.scale)
    return F.leaky_relu_(maps, 0.1)


def assigned(network, maps):
    maps[:, :2] *= 2
    return maps


STEPS = {  # each leaves pixels where they are
    "nothing": lambda network, maps: maps,
    "relu": lambda network, maps: F.relu(maps),
    "torch.relu": lambda network, maps: torch.relu(maps),
    "relu_": lambda network, maps: F.relu_(maps),
    "clamp": lambda network, maps: maps.clamp(-1, 6),
    "gelu": lambda network, maps: F.gelu(maps),
    "hardtanh": lambda network, maps: F.hardtanh(maps, -5, 5),
    "softplus": lambda network, maps: F.softplus(maps),
    "dropout": lambda network, maps: F.dropout(maps, 0.5, training=network.training),
    "dropout that never stops": lambda network, maps: F.dropout(maps, 0.1),
    "log_softmax": lambda network, maps: F.log_softmax(maps, dim=1),
    "scale": lambda network, maps: maps * network.scale + 1,
    "numbers": lambda network, maps: (maps - 0.13) / 0.31,
    "swish": lambda network, maps: maps * torch.sigmoid(maps),
    "swish of a module": lambda network, maps: maps * network.gate(maps),
    "normalisation twice": lambda network, maps: network.norm(network.norm(maps)),
    "F.batch_norm": lambda network, maps: F.batch_norm(maps, network.norm.running_mean, network.norm.running_var),
    "noise": lambda network, maps: maps + 0.1 * torch.randn_like(maps),
    "same view": lambda network, maps: maps.contiguous().view(maps.size(0), CHANNELS, *maps.shape[2:]),
    "channels": lambda network, maps: torch.cat([maps[:, 1:], maps[:, :1].relu()], dim=1),
    "where": lambda network, maps: torch.where(maps > 0, maps, 0.1 * maps),
    "layout": lambda network, maps: maps.contiguous(memory_format=torch.channels_last).clone(),
    "in place": in_place,
    "in place on channels": assigned,
}
LAYERS = [
    lambda given: nn.Conv2d(given, CHANNELS, 3),
    lambda given: nn.Conv2d(given, CHANNELS, 2, stride=2, padding=1),
    lambda given: nn.Conv2d(given, CHANNELS, 3, dilation=2, padding="same"),
    lambda given: nn.Conv2d(given, CHANNELS, 3, padding=1, padding_mode="reflect"),
    lambda given: nn.Conv2d(given, CHANNELS, 5, padding=2, padding_mode="replicate"),
    lambda given: nn.Conv2d(given, CHANNELS, 1),
    lambda given: nn.Sequential(nn.Conv2d(given, CHANNELS, 1), nn.MaxPool2d(2)),
    lambda given: nn.Sequential(
        nn.Conv2d(given, CHANNELS, 3, padding=1), nn.PReLU(), nn.AvgPool2d(3, 2, ceil_mode=True)
    ),
]


def seen_by(network, side, place):
    """First and last row and column of a side x side image on which the output at a place (row, column) depends."""
    images = torch.randn(24, 1, side, side, dtype=torch.float64, requires_grad=True)
    network(images)[:, :, place, place].sum().backward()
    reached = images.grad.abs().sum((0, 1)).nonzero()
    return reached.amin(0).tolist(), reached.amax(0).tolist()


def assert_sees_its_square(network):
    """In the middle exactly the square, at the corner nothing outside it."""
    layers, field = trace_layers(network), receptive_field(network)
    jumps = [1, *(layer.jump for layer in layers)]
    start = -sum(jump * (layer.padding or 0) for jump, layer in zip(jumps, layers, strict=False))
    network.double().eval()
    side = 3 * field + 3 * jumps[-1]
    with torch.no_grad():
        centre = network(torch.zeros(1, 1, side, side, dtype=torch.float64)).shape[-1] // 2
    first = start + centre * jumps[-1]
    assert first >= 0
    assert first + field <= side
    assert seen_by(network, side, centre) == ([first] * 2, [first + field - 1] * 2)
    lowest, highest = seen_by(network, side, 0)
    assert min(lowest) >= start
    assert max(highest) < start + field


@pytest.mark.parametrize("name", STEPS)
def test_what_leaves_pixels_in_place_is_seen_through(name):
    torch.manual_seed(0)
    network = Between([nn.Conv2d(1, CHANNELS, 3), nn.Conv2d(CHANNELS, CHANNELS, 3, stride=2, padding=1)], [STEPS[name]])
    assert receptive_field(network) == 5
    assert_sees_its_square(network)


@pytest.mark.parametrize("seed", range(20))
def test_networks_see_the_square_that_is_claimed(seed):
    draw = random.Random(seed)
    torch.manual_seed(seed)
    chosen = draw.choices(LAYERS, k=4)
    layers = [chosen[0](1), *(make(CHANNELS) for make in chosen[1:])]
    assert_sees_its_square(Between(layers, [STEPS[name] for name in draw.choices(list(STEPS), k=3)]))


def minus_mean(network, maps):
    maps -= maps.mean((2, 3), keepdim=True)
    return maps


def behind_torchs_back(network, maps):
    maps.data -= maps.data.mean()
    return maps


def shifted_by_a_buffer(network, maps):
    buffer = maps.new_zeros(*maps.shape[:2], 28, 28)
    before, behind = buffer[:, :, :26, :26], buffer[:, :, 2:, 2:]
    before.copy_(maps)
    return behind


def through_numpy(network, maps):
    return torch.from_numpy(maps.detach().numpy()[:, :, ::-1].copy())


def decided_by_a_number(network, maps):
    return maps if maps[0, 0, 0, 0] > 0 else -maps


WRONG = {  # name: what moves or mixes pixels, and what the message names
    "in place": (minus_mean, "'mean'"),
    "data": (behind_torchs_back, "'mean'"),
    "std": (lambda network, maps: maps / maps.std(), "'std'"),
    "softmax over pixels": (lambda network, maps: F.softmax(maps, dim=-1), "'_softmax'"),
    "softmax over images": (lambda network, maps: F.softmax(maps, dim=0), "'_softmax'"),
    "normalize": (lambda network, maps: F.normalize(maps, dim=2), "'linalg_vector_norm'"),
    "layer_norm": (lambda network, maps: F.layer_norm(maps, maps.shape[1:]), "'native_layer_norm'"),
    "batch statistics": (lambda network, maps: F.batch_norm(maps, None, None, training=True), "'native_batch_norm'"),
    "cumsum": (lambda network, maps: maps.cumsum(-1), "'cumsum'"),
    "slice": (lambda network, maps: maps[:, :, 1:], "'slice'"),
    "index": (lambda network, maps: maps[:, :, [1, 0]], "'index'"),
    "roll": (lambda network, maps: maps.roll(3, -1), "'roll'"),
    "flip": (lambda network, maps: maps.flip(-1), "'flip'"),
    "transpose": (lambda network, maps: maps.transpose(2, 3), "'transpose'"),
    "transpose_": (lambda network, maps: maps.transpose_(2, 3), "'transpose_'"),
    "pad": (lambda network, maps: F.pad(maps, (1, 1, 1, 1)), "'constant_pad_nd'"),
    "other view": (lambda network, maps: maps.reshape(maps.size(0), -1, 13, 13), "'view'"),
    "max_pool2d": (lambda network, maps: F.max_pool2d(maps, 2), "'max_pool2d_with_indices'"),
    "conv2d": (lambda network, maps: F.conv2d(maps, network.layers[1].weight), "'convolution'"),
    "interpolate": (lambda network, maps: F.interpolate(maps, scale_factor=2), "'upsample_nearest2d'"),
    "out": (lambda network, maps: torch.add(maps, 1, out=torch.empty_like(maps)), "'add' writes into"),
    "buffer": (shifted_by_a_buffer, "'copy_' writes into"),
    "numpy": (through_numpy, "'numpy'"),
    "item": (decided_by_a_number, "'item'"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_may_move_or_mix_pixels_is_refused_by_name(name):
    step, message = WRONG[name]
    network = Between([nn.Conv2d(1, CHANNELS, 3), nn.Conv2d(CHANNELS, CHANNELS, 3)], [step])
    with pytest.raises(ValueError, match=f"Between.*{message}"):
        trace_layers(network)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


class Pair(nn.Module):
    """Two layers, for networks that join them in their own ways."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 1, 3, padding=1), nn.Conv2d(1, 1, 3, padding=1)


class Residual(Pair):
    def forward(self, maps):
        maps = self.first(maps)
        return maps + self.second(maps)


class TwoPaths(Pair):
    def forward(self, maps):
        return self.second(maps) * self.first(maps)


class NotTheLast(Pair):
    def forward(self, maps):
        maps = self.first(maps)
        self.second(maps)
        return maps


class Two(Pair):
    def forward(self, maps):
        return self.first(maps), maps


class PastItsHooks(Pair):
    def forward(self, maps):
        return self.second(self.first.forward(maps))


class Sharpened(nn.Conv2d):
    def forward(self, maps):
        return super().forward(maps) - maps.mean()


class Mirrored(nn.Conv2d):
    def _conv_forward(self, maps, weight, bias):
        return super()._conv_forward(maps.flip(-1), weight, bias)


class MeanFree(nn.ReLU):
    def forward(self, maps):
        return super().forward(maps - maps.mean())


def with_hook(register, hook):
    network = nn.Sequential(nn.Conv2d(1, 1, 3), nn.Conv2d(1, 1, 3))
    getattr(network[1], register)(hook)
    return network


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (Residual(), "'add' joins tensors from before and after a layer"),
        (TwoPaths(), r"'first' \(Conv2d\) does not take just what the layer before gave"),
        (NotTheLast(), "NotTheLast does not return just what its last layer gave"),
        (Two(), "returns a tuple"),
        (PastItsHooks(), "'convolution'"),
        (nn.Sequential(Sharpened(1, 1, 3)), r"'0' \(Sharpened\).*'convolution'"),
        (nn.Sequential(Mirrored(1, 1, 3)), r"'0' \(Mirrored\).*'flip'"),
        (nn.Sequential(nn.Conv2d(1, 1, 3), MeanFree()), r"'1' \(MeanFree\).*'mean'"),
        (with_hook("register_forward_hook", lambda module, given, output: output.roll(1, 2)), "'roll'"),
        (with_hook("register_forward_pre_hook", lambda module, given: given[0].roll(1, 2)), "'roll'"),
        (nn.Sequential(nn.Conv2d(1, 1, 3, padding=1, padding_mode="circular")), "padding_mode='circular'"),
        (nn.Sequential(nn.Conv2d(1, 1, 3, padding=2, padding_mode="reflect")), "padding_mode='reflect'"),
        (nn.Sequential(nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4)), r"'1' \(GroupNorm\)"),
        (nn.Sequential(nn.InstanceNorm2d(1)), r"'0' \(InstanceNorm2d\)"),
        (nn.Sequential(nn.BatchNorm2d(1, track_running_stats=False)), r"'0' \(BatchNorm2d\)"),
        (nn.Sequential(nn.Conv2d(1, 4, 3), nn.PixelShuffle(2)), r"'1' \(PixelShuffle\)"),
        (nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReflectionPad2d(1)), r"'1' \(ReflectionPad2d\)"),
        (nn.Sequential(nn.Conv2d(1, 4, 3), nn.ZeroPad2d((1, 2, 1, 1))), r"'1' \(ZeroPad2d\) has"),
        (nn.Sequential(nn.Conv2d(1, 4, 3), nn.LazyConv2d(4, 3)), r"'1' \(LazyConv2d\) is lazy.*input channels"),
        (nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(8, 4, 3)), "Sequential cannot be used on blank images"),
    ],
    ids=lambda value: "" if isinstance(value, str) else type(value).__name__,
)
def test_networks_that_are_no_chain_of_known_layers_are_refused(network, message):
    with pytest.raises(ValueError, match=message):
        trace_layers(network)


class Wide(nn.Conv2d):
    """A reader's shorthand, which changes nothing."""

    def __init__(self, given, made):
        super().__init__(given, made, kernel_size=5)


@pytest.mark.parametrize(
    ("network", "field"),
    [
        (nn.Sequential(nn.MaxPool2d([2, 2]), nn.AvgPool2d((2,)), nn.Conv2d(1, 1, [3, 3])), 12),
        (nn.Sequential(Wide(1, 1), nn.Conv2d(1, 1, 3, padding_mode="circular")), 7),
        (nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Conv2d(1, 1, 3)), nn.ReLU(inplace=True)), 3),
        (nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 1, 3)), 3),
        (nn.Sequential(nn.Conv2d(1, 4, 28), nn.Flatten(), nn.LayerNorm(4), nn.Linear(4, 10), nn.Softmax(-1)), 28),
        (with_hook("register_forward_hook", lambda module, given, output: output.relu()), 5),
    ],
    ids=lambda value: "",
)
def test_more_that_is_seen_through(network, field):
    assert receptive_field(network) == field


def test_the_weight_decides_how_large_a_kernel_is():
    network = nn.Sequential(nn.Conv2d(1, 1, 5), nn.Conv2d(1, 1, 5))
    network[1].weight = nn.Parameter(torch.randn(1, 1, 3, 3))
    assert [layer.kernel for layer in trace_layers(network)] == [5, 3]
    assert_sees_its_square(network)


def test_what_is_drawn_on_the_way_is_given_back():
    network = Between([nn.Conv2d(1, CHANNELS, 3), nn.Conv2d(CHANNELS, CHANNELS, 3)], [STEPS["noise"]])
    before = torch.get_rng_state()
    trace_layers(network)
    assert torch.equal(torch.get_rng_state(), before)
