"""The closed form against gradients: which input pixels does one output pixel really depend on?"""

import copy
import inspect

import pytest
import torch
from torch import nn

import model
from lab.tracing.receptive_field import layer_table, receptive_field, trace_layers, trace_units

NETWORKS = [
    network
    for network in vars(model).values()
    if inspect.isclass(network) and issubclass(network, nn.Sequential) and network.__module__ == "model"
    if network not in (model.ConvUnit, model.SeparableUnit)
]

# name: network, receptive field, jump, both worked out by hand
SMALL = {
    "dilated": (nn.Sequential(nn.Conv2d(1, 2, 3, dilation=2), nn.Conv2d(2, 2, 3, dilation=3, groups=2)), 11, 1),
    "strided": (nn.Sequential(nn.Conv2d(1, 4, 5, stride=2, padding=2), nn.Conv2d(4, 2, 3, stride=2)), 9, 4),
    "gaps": (nn.Sequential(nn.Conv2d(1, 2, 1, stride=3), nn.Conv2d(2, 2, 2)), 4, 3),
    "same": (nn.Sequential(nn.Conv2d(1, 2, 5, padding="same"), nn.Conv2d(2, 2, 3, padding="valid")), 7, 1),
    "overlapping pools": (nn.Sequential(nn.MaxPool2d(3, stride=2, padding=1), nn.AvgPool2d(3, stride=1)), 7, 2),
    "average head": (nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.AvgPool2d(2), nn.AvgPool2d(13)), 28, 26),
    "cropped": (nn.Sequential(nn.ZeroPad2d(-1), nn.Conv2d(1, 2, 3), nn.ZeroPad2d(1), nn.MaxPool2d(2)), 4, 2),
    "norm first": (nn.Sequential(nn.BatchNorm2d(1), nn.Conv2d(1, 2, 3), nn.LeakyReLU(), nn.Softmax(dim=1)), 3, 1),
}


def footprint(layers, image_size, step=0):
    """First and last input row and column on which the central output pixel, or one `step` beside it, depends.

    Every weight is one and max pooling becomes average pooling, so that no contribution can cancel or lose.
    """
    network = copy.deepcopy(layers).double().eval().requires_grad_(False)
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.MaxPool2d):
                setattr(parent, name, nn.AvgPool2d(child.kernel_size, child.stride, child.padding))
            elif isinstance(child, nn.Conv2d):
                nn.init.ones_(child.weight)
            elif not list(child.children()) and not isinstance(child, nn.AvgPool2d | nn.ZeroPad2d):
                setattr(parent, name, nn.Identity())
    image = torch.ones(1, 1, image_size, image_size, dtype=torch.float64, requires_grad=True)
    out = network(image)
    centre = out.shape[-1] // 2 + step
    assert out.shape[-1] >= 3
    out[0, :, centre, centre].sum().backward()
    reached = image.grad[0, 0].nonzero()
    (top, left), (bottom, right) = reached.amin(0).tolist(), reached.amax(0).tolist()
    assert min(top, left) > 0, "cut by the border: enlarge the image"
    assert max(bottom, right) < image_size - 1, "cut by the border: enlarge the image"
    return top, bottom, left, right


def assert_footprint(layers, field, jump):
    image_size = 2 * field + 4 * jump + 8  # a crop may have taken some
    top, bottom, left, right = footprint(layers, image_size)
    assert (bottom - top + 1, right - left + 1) == (field, field)
    assert footprint(layers, image_size, step=1) == (top + jump, bottom + jump, left + jump, right + jump)


def with_plain_pooling(network):
    """Adaptive pooling as the one that it is at 28 pixels: on the larger images of `footprint` it would be another."""
    kernels = {layer.name: layer.kernel for layer in trace_layers(network)}
    return nn.Sequential(
        *(
            nn.AvgPool2d(kernels[name]) if isinstance(layer, nn.AdaptiveAvgPool2d) else layer
            for name, layer in network.named_children()
        )
    )


@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.__name__)
def test_every_unit_of_every_network_sees_what_gradients_reach(network):
    network = with_plain_pooling(network())
    for depth, unit in enumerate(trace_units(network), start=1):
        layers = nn.Sequential(*list(network)[:depth])
        assert_footprint(layers, unit.receptive_field, trace_layers(layers)[-1].jump)


@pytest.mark.parametrize("name", SMALL)
def test_small_networks_by_hand_and_by_gradient(name):
    network, field, jump = SMALL[name]
    assert receptive_field(network) == field
    assert trace_layers(network)[-1].jump == jump
    assert_footprint(network, field, jump)


def test_dilated_max_pooling_counts_its_gaps():
    assert receptive_field(nn.Sequential(nn.MaxPool2d(2, stride=2, dilation=3), nn.Conv2d(1, 1, 2))) == 6


@pytest.mark.parametrize("pool", [nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d])
@pytest.mark.parametrize(("wanted", "kernel"), [(1, 24), ((6, 6), 4), ((24, 24), 1)])
def test_adaptive_pooling_is_pooling_with_its_kernel(pool, wanted, kernel):
    convolutions = [nn.Conv2d(1, 2, 3), nn.Conv2d(2, 2, 3)]
    adaptive, plain = nn.Sequential(*convolutions, pool(wanted)), nn.Sequential(*convolutions, nn.AvgPool2d(kernel))
    last = trace_layers(adaptive)[-1]
    assert (last.kernel, last.stride, last.padding) == (kernel, kernel, 0)
    assert trace_units(adaptive) == trace_units(plain)
    assert_footprint(plain, last.receptive_field, last.jump)


def test_image_size_decides_what_global_pooling_sees():
    network = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 10))
    assert [receptive_field(network, size) for size in (8, 28)] == [10, 30]


def test_tutorial_003_table_multiplied_by_the_jump_twice():
    """The published column follows jump * (rf + kernel - 1); the rule adds (kernel - 1) * jump to rf."""
    unit = model.partial(model.ConvUnit, after="norm relu")
    network = nn.Sequential(
        unit(1, 8),
        unit(8, 16),
        nn.MaxPool2d(2),
        unit(16, 8, kernel_size=1),
        unit(8, 10),
        unit(10, 16),
        unit(16, 16),
        unit(16, 16, padding=1),
        nn.AvgPool2d(6),
    )
    layers = [layer for layer in trace_layers(network) if layer.kernel]
    published, jump = [1], 1
    for layer in layers[:-1]:
        published.append(jump * (published[-1] + layer.kernel - 1))
        jump = layer.jump
    assert published[1:] == [3, 5, 6, 12, 28, 60, 124, 252]
    assert [layer.receptive_field for layer in layers] == [3, 5, 6, 6, 10, 14, 18, 22, 32]


def test_table_shows_layers_with_a_kernel_or_all():
    network = model.NormedSkeleton(dropout=0.1)
    table, detail = layer_table(network), layer_table(network, detail=True)
    assert list(table.columns) == [
        *("layer", "kernel", "stride", "padding"),
        *("out", "jump", "receptive field", "parameters"),
    ]
    assert list(table.loc["4.0"]) == ["Conv2d", 3, 1, 0, "10x10x10", 2, 10, 740]
    assert list(detail.loc["4.1"]) == ["BatchNorm2d", "", "", "", "10x10x10", 2, 10, 20]
    assert len(table) == 8
    assert list(detail.index) == [name for name, module in network.named_modules() if not list(module.children())]
    total = sum(parameter.numel() for parameter in network.parameters())
    assert table["parameters"].sum() == detail["parameters"].sum() == total
    first_norm = SMALL["norm first"][0]
    assert layer_table(first_norm)["parameters"].tolist() == [2 + 20]


def test_shared_parameters_count_once():
    mix = nn.Conv2d(4, 4, 3)
    assert [layer.parameters for layer in trace_layers(nn.Sequential(nn.Conv2d(1, 4, 1), mix, mix))] == [8, 148, 0]


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.after = nn.Conv2d(1, 1, 3, padding=1), nn.ReLU()

    def forward(self, image):
        return self.after(image + self.inner(image))


class Functional(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Conv2d(1, 1, 3)

    def forward(self, image):
        return nn.functional.max_pool2d(self.inner(image), 2)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (nn.Sequential(nn.ConvTranspose2d(1, 1, 3)), r"'0' \(ConvTranspose2d\)"),
        (nn.Sequential(nn.Upsample(scale_factor=2)), r"'0' \(Upsample\)"),
        (nn.Sequential(nn.Conv2d(1, 1, 3), nn.Flatten(), nn.Linear(676, 10)), r"'1' \(Flatten\) on a 26x26 map"),
        (nn.Sequential(nn.Conv2d(1, 1, 3), nn.Linear(26, 26)), r"'1' \(Linear\) on a 26x26 map"),
        (nn.Sequential(nn.Softmax(dim=-1)), r"'0' \(Softmax\)"),
        (nn.Sequential(nn.GLU()), r"'0' \(GLU\)"),
        (nn.Sequential(nn.Conv2d(1, 1, (3, 1))), r"'0' \(Conv2d\) has \(3, 1\)"),
        (nn.Sequential(nn.MaxPool2d(2, stride=(2, 1))), r"'0' \(MaxPool2d\) has \(2, 1\)"),
        (nn.Sequential(nn.Conv2d(1, 1, 3, padding=(1, 0))), r"'0' \(Conv2d\) has \(1, 0\)"),
        (nn.Sequential(nn.AdaptiveAvgPool2d(5)), r"'0' \(AdaptiveAvgPool2d\) pools 28x28 to \(5, 5\)"),
        (nn.Sequential(nn.AdaptiveMaxPool2d((1, 2))), r"'0' \(AdaptiveMaxPool2d\) pools 28x28 to \(1, 2\)"),
        (nn.Sequential(nn.MaxPool2d(2, return_indices=True)), r"'0' \(MaxPool2d\)"),
        (nn.Sequential(nn.Identity(), Residual()), r"'1.after' \(ReLU\)"),
        (Functional(), "Functional"),
    ],
    ids=lambda value: "" if isinstance(value, nn.Module) else value.replace("\\", ""),
)
def test_what_has_no_closed_form_is_refused_by_name(network, message):
    with pytest.raises(ValueError, match=message):
        trace_layers(network)
    assert not any(module._forward_hooks for module in network.modules())
    assert all(module.training for module in network.modules())


def test_tracing_leaves_no_trace():
    network = model.OneByOne(dropout=0.5).double()
    network[1].eval()  # a mode of its own must survive
    modes = [module.training for module in network.modules()]
    state = copy.deepcopy(network.state_dict())
    random_state = torch.get_rng_state()
    trace_layers(network)
    assert [module.training for module in network.modules()] == modes
    assert torch.equal(torch.get_rng_state(), random_state)
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())
    assert not any(module._forward_hooks for module in network.modules())


def test_tracing_follows_the_device_and_type_of_the_network():
    network = model.OneByOne()
    expected = trace_layers(network)
    assert trace_layers(network.to(torch.bfloat16)) == expected
    assert trace_layers(network.to("meta")) == expected
