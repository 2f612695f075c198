"""Networks as readers write them, in every table and helper: each counts what torch counts, or says why it cannot."""

import copy
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

import model
import utils
from lab.ladders.rungs import find_rungs
from lab.pages.probes import remeasure, variance_shift
from lab.tracing.receptive_field import acting_table
from lab.training.loop import infer_with_torch
from lab.training.muon import Muon


class HeadFirst(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Conv2d(6, 10, 1)
        self.first = nn.Conv2d(1, 6, 3)
        self.mix = nn.Conv2d(6, 6, 1)
        self.norm = nn.BatchNorm2d(6)
        self.pool = nn.AvgPool2d(26)

    def body(self, maps):
        return F.relu(self.norm(self.mix(F.relu(self.first(maps)))))

    def forward(self, maps):
        return F.log_softmax(self.head(self.pool(self.body(maps))).view(-1, 10), dim=1)


class ActsTwice(HeadFirst):
    def body(self, maps):
        return self.mix(self.norm(self.mix(self.norm(self.first(maps)))))


class Tied(HeadFirst):
    def __init__(self):
        super().__init__()
        self.other = nn.Conv2d(6, 6, 1)
        self.other.weight = self.mix.weight

    def body(self, maps):
        return self.other(super().body(maps))


class OwnParameter(HeadFirst):
    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(1, 6, 1, 1))

    def body(self, maps):
        return super().body(maps) * self.gain


class Idle(HeadFirst):
    def __init__(self):
        super().__init__()
        self.idle = nn.Sequential(nn.Conv2d(6, 6, 1), nn.BatchNorm2d(6))


class Residual(HeadFirst):
    def body(self, maps):
        maps = self.first(maps)
        return maps + self.mix(maps)


class Split(nn.Module):
    def forward(self, maps):
        return {"positive": maps.relu(), "negative": maps.neg().relu()}


class Dictionaries(HeadFirst):
    def __init__(self):
        super().__init__()
        self.split = Split()

    def body(self, maps):
        return self.split(super().body(maps))["positive"]


class Matrix(nn.Module):
    def __init__(self):
        super().__init__()
        self.matrix = nn.Parameter(torch.zeros(784, 10))

    def forward(self, maps):
        return maps.flatten(1) @ self.matrix


class LinearHead(HeadFirst):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(6, 10)

    def forward(self, maps):
        return self.head(self.pool(self.body(maps)).flatten(1))


class Lazy(HeadFirst):
    def __init__(self):
        super().__init__()
        self.head = nn.LazyConv2d(10, 1)


class LazyNorm(HeadFirst):
    def __init__(self):
        super().__init__()
        self.norm = nn.LazyBatchNorm2d()


class Dense(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden, self.norm, self.head = nn.Linear(784, 20), nn.BatchNorm1d(20), nn.Linear(20, 10)

    def forward(self, maps):
        return self.head(self.norm(self.hidden(maps.view(maps.size(0), -1))).relu())


class WithoutStatistics(HeadFirst):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(6, track_running_stats=False)


TRACED = [HeadFirst, ActsTwice, Tied, OwnParameter, Idle, LinearHead]
UNTRACED = {Residual: "'add'", Dictionaries: "'split'", Matrix: "'view'", Dense: "'view'", WithoutStatistics: "'norm'"}


def count(network):
    return sum(parameter.numel() for parameter in network().parameters())


def total_of_torchsummary(printed):
    return int(printed.partition("Total params: ")[2].split()[0].replace(",", ""))


@pytest.mark.parametrize("network", TRACED)
@pytest.mark.parametrize("detail", [False, True])
def test_a_table_counts_each_parameter_once_and_leaves_none_out(network, detail):
    table = utils.layer_table(network(), detail=detail)
    assert table["parameters"].sum() == acting_table(network())["parameters"].sum() == count(network)
    assert table["receptive field"].iloc[-1] == 28


def test_the_table_says_what_no_layer_holds():
    assert "(elsewhere)" not in utils.layer_table(Tied()).index
    assert utils.layer_table(Tied()).loc["other", "parameters"] == 6  # its bias
    assert list(utils.layer_table(OwnParameter()).loc["(elsewhere)", ["layer", "parameters"]]) == ["none: gain", 6]
    rest = utils.layer_table(Idle()).loc["(elsewhere)"]
    assert rest["layer"] == "none: idle.0.weight, idle.0.bias, idle.1.weight, 1 more"
    assert rest["parameters"] == 42 + 12


def test_a_network_of_norms_alone_keeps_its_parameters_in_the_table():
    table = utils.layer_table(nn.Sequential(nn.BatchNorm2d(1), nn.PReLU()))
    assert table["parameters"].tolist() == [2, 1]


@pytest.mark.parametrize("network", [*TRACED, *UNTRACED])
def test_show_layers_shows_any_network_and_gives_the_right_number(network, capsys):
    recipe = utils.Recipe(network=network)
    before = torch.get_rng_state()
    table = utils.show_layers(recipe)
    assert torch.equal(before, torch.get_rng_state())
    assert table["parameters"].sum() == recipe.parameters == count(network)
    printed = capsys.readouterr().out
    if "torchsummary cannot show" not in printed and total_of_torchsummary(printed) != recipe.parameters:
        assert f"they are {recipe.parameters:,} in all." in printed
    else:
        assert "in all" not in printed
    assert ("receptive field" in table) == (network in TRACED) == ("Without receptive fields: " not in printed)


@pytest.mark.parametrize("network", UNTRACED)
def test_show_layers_says_why_there_are_no_receptive_fields(network, capsys):
    utils.show_layers(utils.Recipe(network=network))
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Without receptive fields: ")]
    assert network.__name__ in line
    assert UNTRACED[network] in line


@pytest.mark.parametrize("network", [Dictionaries, Matrix])
def test_show_layers_says_what_torchsummary_cannot_show(network, capsys):
    utils.show_layers(utils.Recipe(network=network))
    assert capsys.readouterr().out.startswith(f"torchsummary cannot show {network.__name__}: AttributeError: ")


def orthogonal(network):
    _, matrices = Muon(network, lr=0.1, momentum=0.9, weight_decay=0.0).param_groups
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    return [names[id(parameter)] for parameter in matrices["params"]]


@pytest.mark.parametrize(
    ("network", "names"),
    [
        (HeadFirst, ["mix.weight"]),
        (ActsTwice, ["mix.weight"]),
        (Tied, ["mix.weight"]),
        (LinearHead, ["mix.weight"]),
        (Matrix, []),
        (Dense, []),
    ],
)
def test_muon_spares_the_last_layer_to_act(network, names):
    assert orthogonal(network()) == names


def test_muon_spares_a_matrix_that_also_gives_the_classes():
    mix = nn.Conv2d(10, 10, 1)
    assert orthogonal(nn.Sequential(nn.Conv2d(1, 10, 1), mix, nn.ReLU(), mix)) == ["0.weight"]


def test_muon_chooses_for_published_networks_what_it_always_chose():
    """All 1x1 convolutions but the last convolution, in the order in which they were made."""
    for rung in find_rungs():
        for recipe in rung.recipes.values():
            network = recipe.specimen()
            convolutions = {name: part for name, part in network.named_modules() if isinstance(part, nn.Conv2d)}
            names = [name for name, part in list(convolutions.items())[:-1] if part.kernel_size == (1, 1)]
            assert orthogonal(network) == [f"{name}.weight" for name in names]


def test_looking_at_a_network_changes_nothing():
    network = model.NormedSkeleton(dropout=0.2)
    network[1].eval()
    state, modes = copy.deepcopy(network.state_dict()), [module.training for module in network.modules()]
    random = torch.get_rng_state()
    orthogonal(network)
    acting_table(network)
    utils.multiply_accumulates(network)
    assert torch.equal(random, torch.get_rng_state())
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    assert [module.training for module in network.modules()] == modes
    assert not any(module._forward_hooks for module in network.modules())


@pytest.mark.parametrize("network", [HeadFirst, ActsTwice, Residual, Dictionaries, Matrix, Dense])
def test_multiply_accumulates_of_any_network(network):
    network = network().eval()
    with FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, 1, 28, 28))
    assert utils.multiply_accumulates(network.train()) == counter.get_total_flops() // 2


@pytest.mark.parametrize(("network", "layer"), [(Lazy, "'head' (LazyConv2d)"), (LazyNorm, "'norm' (LazyBatchNorm2d)")])
def test_lazy_layers_are_refused_by_name(network, layer):
    recipe = utils.Recipe(network=network)
    looks = [utils.layer_table, utils.multiply_accumulates, orthogonal, acting_table]
    for look in (
        lambda: recipe.parameters,
        recipe.build_network,
        *(lambda look=look: look(network()) for look in looks),
    ):
        with pytest.raises(ValueError, match="input channels") as error:
            look()
        assert f"{network.__name__}: layer {layer} is lazy" in str(error.value)


def finished(network):
    digits = utils.load_digits("sample", train_limit=1000)
    for images in utils.prepare(digits.train.images, ()).split(500):
        network.train()(images)
    recipe = utils.Recipe(network=type(network))
    return SimpleNamespace(network=network.eval(), digits=digits, recipe=recipe, infer=infer_with_torch)


@pytest.mark.parametrize(("network", "names"), [(HeadFirst, ["norm"]), (ActsTwice, ["norm"] * 2), (Dense, ["norm"])])
def test_statistics_of_any_batch_normalisation_are_measured(network, names):
    torch.manual_seed(0)
    run = finished(network())
    assert list(variance_shift(run).index) == names
    run.network.norm.running_var.fill_(1e6)
    anew = remeasure(run).loc["measured anew", "clean train, %"]
    run.network.norm.momentum = None
    run.network.norm.reset_running_stats()
    expected = finished(run.network)
    assert anew == round(100 * utils.evaluate(expected.network, run.digits.train, run.recipe).accuracy, 2)


def test_normalisations_without_statistics_have_none_to_measure():
    for look in (variance_shift, remeasure):
        with pytest.raises(ValueError, match="WithoutStatistics has no batch normalisation that stores statistics"):
            look(finished(WithoutStatistics()))
