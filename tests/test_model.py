"""Every network against the fact sheet of its source, and the fast dropout against torch's."""

import inspect
import json
import re
from pathlib import Path

import numpy
import pytest
import torch
from scipy import stats
from torch import nn

import model
from lab.tracing.receptive_field import layer_table, receptive_field, trace_layers, trace_units

FACTS = json.loads((Path(__file__).parent / "facts.json").read_text())
NETWORKS = [
    network
    for network in vars(model).values()
    if inspect.isclass(network) and issubclass(network, nn.Sequential) and network.__module__ == "model"
    if network not in (model.ConvUnit, model.SeparableUnit)
]
RATES = [0.03, 0.1, 0.25, 0.5]
SHAPES = [(1,), (3,), (4099,), (5, 7), (2, 3, 5, 7), (3, 5, 9, 9)]

by_facts = pytest.mark.parametrize("facts", FACTS, ids=lambda facts: facts["source"][0])
by_network = pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.__name__)
by_rate = pytest.mark.parametrize("rate", RATES)


def build(facts):
    return getattr(model, facts["class"])(**facts["arguments"])


# --------------------------------------------------------------------------------- networks and facts


def describe(module):
    """One leaf module in the words of the fact sheet."""
    if isinstance(module, nn.Conv2d):
        (kernel, _), (stride, _), (padding, _) = module.kernel_size, module.stride, module.padding
        return ("conv2d", module.in_channels, module.out_channels, kernel, stride, padding, module.bias is not None)
    if isinstance(module, nn.MaxPool2d | nn.AvgPool2d):
        return (type(module).__name__.lower(), module.kernel_size, module.stride, module.padding)
    if isinstance(module, nn.BatchNorm2d):
        return ("bn", module.num_features)
    if isinstance(module, nn.Dropout):
        return ("dropout", module.p)
    return (type(module).__name__.lower(),)


def expected_layers(facts):
    for layer in facts["layers"]:
        if layer["op"] == "conv2d":
            yield ("conv2d", *(layer[key] for key in ("in", "out", "kernel", "stride", "padding", "bias")))
        else:
            yield (layer["op"], *(layer[key] for key in ("kernel", "stride", "padding")))
        for follower in layer.get("post", []):
            name, _, rate = follower.partition(":")
            yield {"bn": ("bn", layer.get("out")), "relu": ("relu",), "dropout": ("dropout", float(rate or 0))}[name]
    yield ("flatten",)


def test_facts_cover_every_source_step_once():
    sources = [source for facts in FACTS for source in facts["source"]]
    assert len(sources) == len(set(sources)) == 36


@by_facts
def test_parameters_are_those_of_the_source(facts):
    assert sum(parameter.numel() for parameter in build(facts).parameters()) == facts["parameters"]


@by_facts
def test_layers_act_in_the_order_of_the_source(facts):
    leaves = [describe(module) for module in build(facts).modules() if not list(module.children())]
    assert leaves == list(expected_layers(facts))


@by_facts
def test_output_is_ten_logits_per_image(facts):
    network = build(facts)
    for memory_format in (torch.contiguous_format, torch.channels_last):
        logits = network(torch.randn(2, 1, 28, 28).to(memory_format=memory_format))
        assert logits.shape == (2, 10)
        assert not torch.allclose(logits.exp().sum(1), torch.ones(2)), "these are log-probabilities"


@by_facts
def test_traced_layers_are_those_of_the_source(facts):
    columns = ["kernel", "stride", "padding", "jump", "receptive field", "parameters"]
    keys = ["kernel", "stride", "padding", "jump", "rf", "params"]
    table = layer_table(build(facts))
    assert table[columns].to_numpy().tolist() == [[layer[key] for key in keys] for layer in facts["layers"]]
    sizes = [int(out.rpartition("x")[2]) for out in table["out"]]
    assert sizes == [layer["out_hw"] for layer in facts["layers"]]


@by_facts
def test_receptive_field_is_that_of_the_source(facts):
    network = build(facts)
    assert receptive_field(network) == facts["rf_final"]
    names = [layer.kind for layer in trace_layers(network)]
    if facts["rf_before_gap"]:
        assert trace_layers(network)[names.index("AvgPool2d") - 1].receptive_field == facts["rf_before_gap"]
    else:
        assert "AvgPool2d" not in names


@by_facts
@pytest.mark.parametrize("leaky", [False, True])
def test_every_weight_learns_from_a_batch(facts, leaky):
    """As built, some weights of every layer; with leaky ReLUs, so that no unit can be dead, every single weight."""
    torch.manual_seed(0)
    network = build(facts)
    for unit in network if leaky else ():
        for name, layer in unit.named_children():
            if isinstance(layer, nn.ReLU):
                setattr(unit, name, nn.LeakyReLU(0.1))
    loss = nn.functional.cross_entropy(network(torch.randn(16, 1, 28, 28)), torch.arange(16) % 10)
    loss.backward()
    for name, parameter in network.named_parameters():
        learns = parameter.grad.ne(0) & parameter.grad.isfinite()
        assert learns.all() if leaky else learns.any(), name


# --------------------------------------------------------------------------- what model.py says itself


@by_network
def test_comment_behind_every_layer_is_true(network):
    body = re.search(r"super\(\).__init__\(\n(.*?)\n        \)", inspect.getsource(network), re.DOTALL)[1]
    lines = [line.strip() for line in body.splitlines()]
    units = trace_units(network())
    assert len(lines) == len(units), "a layer is not on one line of its own"
    for line, unit in zip(lines, units, strict=True):
        out = f"{unit.out_channels}x{unit.out_size}x{unit.out_size}"
        ending = "nn.Flatten()," if line.startswith("nn.Flatten") else f",  # {out}  rf {unit.receptive_field}"
        assert line.endswith(ending)


def test_table_at_the_top_is_true():
    stated = re.findall(r"^\| (\w+) +\| [a-e]\d.*?\| ([\d, ]+?) +\| (\d+) +\|$", model.__doc__, re.MULTILINE)
    expected = []
    for network in NETWORKS:
        built = [network()] + [build(facts) for facts in FACTS if facts["class"] == network.__name__]
        counts = [sum(parameter.numel() for parameter in network.parameters()) for network in built]
        fields = {receptive_field(network) for network in built}
        assert len(fields) == 1, network.__name__
        expected.append((network.__name__, "  ".join(f"{count:,}" for count in dict.fromkeys(counts)), str(*fields)))
    assert stated == expected


# -------------------------------------------------------------------------------------------- dropout


def rounded(rate):
    return round(rate * 2**16) / 2**16


def drops(rate, *shape, seed=0, memory_format=torch.contiguous_format, dropout=model.Dropout):
    """Where dropout strikes, as float64 zeros and ones."""
    torch.manual_seed(seed)
    ones = torch.ones(shape).contiguous(memory_format=memory_format)
    return dropout(rate)(ones).eq(0).double()


def assert_unrelated(one, other, rate):
    """Correlation within five standard errors of zero."""
    one, other = one.flatten() - rounded(rate), other.flatten() - rounded(rate)
    correlation = (one * other).mean() / (rounded(rate) * (1 - rounded(rate)))
    assert abs(correlation) < 5 / len(one) ** 0.5


def block_p_value(struck, rate):
    """Chi-square test of the number of drops per 64 neighbours against the binomial distribution."""
    counts = struck.reshape(-1, 64).sum(1).long().numpy()
    binomial = stats.binom(64, rate)
    low, high = (int(edge) for edge in binomial.interval(0.999))  # rarer counts join the outermost bins
    observed = numpy.bincount(counts.clip(low, high) - low, minlength=high - low + 1)
    expected = binomial.pmf(numpy.arange(low, high + 1))
    expected[0], expected[-1] = binomial.cdf(low), binomial.sf(high - 1)
    assert expected.min() * len(counts) >= 5
    return stats.chisquare(observed, expected * len(counts)).pvalue


def test_dropout_is_an_nn_dropout():
    assert isinstance(model.Dropout(0.03), nn.Dropout)
    assert model.Dropout(0.03).p == 0.03


@by_rate
def test_dropout_rate(rate):
    struck = drops(rate, 2**20, 4)
    error = (rounded(rate) * (1 - rounded(rate)) / 2**20) ** 0.5
    assert abs(struck.mean() - rate) < 5 * error / 2 + 2**-17
    assert (struck.mean(0) - rounded(rate)).abs().max() < 5 * error, "one of the four lanes of a draw differs"


@by_rate
def test_dropout_keeps_the_mean(rate):
    values = model.Dropout(rate)(torch.ones(10_000, dtype=torch.float64)).unique().tolist()
    assert values == pytest.approx([0, 1 / (1 - rounded(rate))], rel=1e-15, abs=0)


@by_rate
def test_dropout_strikes_neighbours_independently(rate):
    struck = drops(rate, 2**20)
    for lag in (1, 2, 3, 4, 5, 8, 64):
        assert_unrelated(struck[lag:], struck[:-lag], rate)
    lanes = struck.reshape(-1, 4)
    for one, other in [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]:
        assert_unrelated(lanes[:, one], lanes[:, other], rate)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=["nchw", "nhwc"])
@pytest.mark.parametrize("shape", [(64, 16, 24, 24), (64, 9, 23, 23)], ids=str)
def test_dropout_strikes_channels_rows_and_images_independently(shape, memory_format):
    struck = drops(0.25, *shape, memory_format=memory_format)
    assert abs(struck.mean() - 0.25) < 5 * (0.25 * 0.75 / struck.numel()) ** 0.5
    for axis, length in enumerate(shape):
        assert_unrelated(struck.narrow(axis, 1, length - 1), struck.narrow(axis, 0, length - 1), 0.25)


@by_rate
def test_dropout_strikes_calls_independently(rate):
    torch.manual_seed(0)
    dropout, ones = model.Dropout(rate), torch.ones(2**20)
    first, second = dropout(ones).eq(0).double(), dropout(ones).eq(0).double()
    assert_unrelated(first, second, rate)


@by_rate
@pytest.mark.parametrize("dropout", [nn.Dropout, model.Dropout], ids=["torch", "ours"])
def test_dropout_counts_are_binomial(rate, dropout):
    assert block_p_value(drops(rate, 2**22, dropout=dropout), rate) > 1e-3


@by_rate
def test_binomial_test_sees_repeated_draws_and_wrong_rates(rate):
    struck = drops(rate, 2**22, dropout=nn.Dropout)
    assert block_p_value(struck[::2].repeat_interleave(2), rate) < 1e-6
    assert block_p_value(drops(1.05 * rate, 2**22, dropout=nn.Dropout), rate) < 1e-6


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_dropout_strikes_every_position_alike_at_odd_sizes(shape):
    torch.manual_seed(0)
    calls, dropout, ones = 1000, model.Dropout(0.5), torch.ones(shape)
    rate = sum(dropout(ones).eq(0).double() for _ in range(calls)) / calls
    assert rate.shape == shape
    assert (rate - 0.5).abs().max() < 5 * 0.5 / calls**0.5


def layouts():
    image = torch.rand(2, 3, 5, 7) + 1
    yield "contiguous", image
    yield "channels_last", image.contiguous(memory_format=torch.channels_last)
    yield "transposed", image.transpose(1, 3)
    yield "sliced", image[:, ::2, 1:, ::3]
    yield "expanded", image[:, :1].expand(2, 3, 5, 7)
    yield "scalar", torch.tensor(2.0)
    yield "empty", torch.empty(0, 3)


@pytest.mark.parametrize(
    ("name", "activations"), list(layouts()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_dropout_zeroes_or_scales_in_every_layout(name, activations):
    out = model.Dropout(0.25)(activations)
    assert out.shape == activations.shape
    assert out.stride() == nn.Dropout(0.25)(activations).stride()
    assert ((out == 0) | torch.isclose(out, activations / 0.75)).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_dropout_keeps_the_type(dtype):
    out = model.Dropout(0.5)(torch.ones(1000, dtype=dtype))
    assert out.dtype == dtype
    assert out.unique().tolist() == [0, 2]


def test_dropout_does_nothing_in_eval_mode():
    activations = torch.randn(4, 8, 6, 6)
    state = torch.get_rng_state()
    assert torch.equal(model.Dropout(0.5).eval()(activations), activations)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=["nchw", "nhwc"])
def test_dropout_gradient_is_the_mask(memory_format):
    activations = (torch.rand(4, 3, 5, 5) + 1).contiguous(memory_format=memory_format).requires_grad_()
    upstream = torch.randn(4, 3, 5, 5)
    out = model.Dropout(0.3)(activations)
    out.backward(upstream)
    mask = out.detach().ne(0) / (1 - rounded(0.3))
    assert 0 < mask.ne(0).float().mean() < 1
    torch.testing.assert_close(activations.grad, upstream * mask)


@pytest.mark.parametrize("rate", [0.0, 1e-6, 1 - 1e-6, 1.0])
def test_dropout_at_the_ends_is_that_of_torch(rate):
    activations = torch.randn(1000)
    torch.manual_seed(0)
    expected = nn.Dropout(rate)(activations)
    torch.manual_seed(0)
    assert torch.equal(model.Dropout(rate)(activations), expected)


def test_dropout_follows_the_seed():
    assert torch.equal(drops(0.5, 1001, seed=7), drops(0.5, 1001, seed=7))
    assert not torch.equal(drops(0.5, 1001, seed=7), drops(0.5, 1001, seed=8))
