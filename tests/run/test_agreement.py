"""Before the first epoch the compiled trainer and torch look at the same images: where they differ, torch trains.

The faults here are put into torch, where no look at a network's layers can find them.
"""

import re
import shutil
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lab.ladders.rungs import find_rungs
from lab.run import agreement
from lab.run.agreement import why_not
from lab.run.fit import fit
from lab.search.candidates import build_recipe
from lab.search.notation import Notation
from lab.training import augment
from lab.training.augment import ColorJitter, RandomAffine
from lab.training.data import Digits, load_digits

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
LAYERS = "c4 r5 M s6p A s7 G"


@pytest.fixture(scope="module")
def digits():
    full = load_digits("sample")
    return Digits("sample", full.sha256, full.train.first(336), full.test.first(96))


def recipe(layers=LAYERS, **settings):
    return replace(build_recipe({"layers": layers, "epochs": 1, "batch_size": 32} | settings), compiled=True)


class Passed(torch.autograd.Function):
    """Changes nothing, but for the gradient."""

    @staticmethod
    def forward(context, values):
        return values.clone()

    @staticmethod
    def backward(context, gradient):
        return gradient * 1.05


def softer(layer, maps):
    return F.leaky_relu(maps, 0.01)


def averaged(layer, maps):
    return F.avg_pool2d(maps, 2)


def normed(layer, maps, eps=1e-5, momentum=0.1):
    statistics = layer.running_mean, layer.running_var
    return F.batch_norm(maps, *statistics, layer.weight, layer.bias, layer.training, momentum, eps)


def frozen(layer, maps):
    return layer._conv_forward(maps, layer.weight.detach() if layer.groups > 1 else layer.weight, None)


def stretched(layer, maps):
    weight = Passed.apply(layer.weight) if layer.kernel_size == (3, 3) and layer.groups == 1 else layer.weight
    return layer._conv_forward(maps, weight, None)


@pytest.mark.parametrize(
    ("layer", "forward", "reason"),
    [
        (nn.ReLU, softer, "its loss of the first images"),
        (nn.MaxPool2d, averaged, "its loss of the first images"),
        (nn.BatchNorm2d, lambda *arguments: normed(*arguments, eps=1e-3), "its loss of the first images"),
        (
            nn.BatchNorm2d,
            lambda *arguments: normed(*arguments, momentum=0.01),
            "its loss of the first images in eval mode",
        ),
        (nn.BatchNorm2d, lambda layer, maps: normed(layer.train(), maps), "its loss of the first images in eval mode"),
        (nn.Conv2d, frozen, "its gradient"),
        (nn.Conv2d, stretched, "its gradient"),
        (nn.AdaptiveAvgPool2d, lambda layer, maps: maps.sum((2, 3), keepdim=True), "its loss of the first images"),
        (nn.Flatten, lambda layer, maps: maps.flatten(1).flip(1), "its loss of the first images"),
    ],
)
def test_layers_that_compute_something_else_are_found_out(
    layer, forward, reason, digits, monkeypatch, tmp_path, capsys
):
    assert why_not(recipe(), digits) is None
    monkeypatch.setattr(layer, "forward", forward)
    assert reason in why_not(recipe(), digits)
    rows = []
    for compiled in (True, False):
        run = fit(
            replace(recipe(), compiled=compiled), digits, rung="t", device="cpu", run_dir=tmp_path / str(compiled)
        )
        rows.append([{k: v for k, v in row.items() if "seconds" not in k} for row in run.record.epochs])
    assert rows[0] == rows[1]
    assert (
        f"Trained with torch, not with the compiled trainer, which is faster on a CPU: {reason}"
        in capsys.readouterr().out
    )


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
def test_other_distortions_are_found_out(interpolation, digits, monkeypatch):
    chosen = recipe(interpolation=interpolation)
    assert why_not(chosen, digits) is None
    monkeypatch.setattr(augment, "affine", lambda images, *arguments, **knobs: images)
    assert "its loss of the first images" in why_not(chosen, digits)


class ZeroScales(nn.Sequential):
    """A scale of 0 has a gradient all the same."""

    def __init__(self):
        super().__init__(*Notation(LAYERS))
        nn.init.zeros_(self[1][1].weight)
        nn.init.ones_(self[1][1].bias)


class NoNumbers(nn.Sequential):
    def __init__(self):
        super().__init__(*Notation(LAYERS))
        nn.init.constant_(self[1][0].weight, float("nan"))


def test_weights_that_it_cannot_begin_with_are_found_out(digits):
    reason = why_not(replace(recipe(), network=NoNumbers, arguments={}), digits)
    assert re.search("loss of the first .* is nan", reason)
    assert why_not(replace(recipe(), network=ZeroScales, arguments={}), digits) is None


PUBLISHED = {name: recipe for rung in find_rungs() for name, recipe in rung.recipes.items() if recipe.compiled}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_recipes_agree(name, digits):
    recipe = PUBLISHED[name]
    recipe = replace(recipe, held_out=15 if recipe.held_out else 0)  # there are not as many images as it holds out
    for seed in range(3):
        assert why_not(recipe, digits, seed) is None


@pytest.mark.parametrize(
    "layers",
    [
        "r1 c4 G",  # a scale before a normalisation: its gradient is nothing but rounding
        "s4 G",
        "c8 c8p c8p c8p M c16p c16p c16p M c16p c16p c16p G",  # many places where single precision chooses otherwise
        "c8 M" + " c16p" * 10 + " G",
    ],
)
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"batch_size": 16},
        {"batch_size": 336, "epochs": 2},
        {"optimizer": "Muon", "average": 0, "weight_decay": 0.1},
    ],
)
def test_rounding_is_no_disagreement(layers, settings, digits):
    for seed in range(3):
        assert why_not(recipe(layers, **settings), digits, seed) is None


def test_the_look_leaves_no_trace(digits, tmp_path, monkeypatch):
    """Random numbers, weights, losses: everything is as if nobody had looked."""
    state = torch.get_rng_state()
    why_not(recipe(), digits, 3)
    assert torch.equal(torch.get_rng_state(), state)
    runs = [fit(recipe(), digits, rung="t", seed=3, device="cpu", run_dir=tmp_path / "looked")]
    monkeypatch.setattr(agreement, "disagreement", lambda *_: None)
    runs.append(fit(recipe(), digits, rung="t", seed=3, device="cpu", run_dir=tmp_path / "not"))
    rows = [[{k: v for k, v in row.items() if "seconds" not in k} for row in run.record.epochs] for run in runs]
    assert rows[0] == rows[1]
    states = [run.network.state_dict() for run in runs]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_it_looks_at_the_weights_of_the_seed(digits):
    class Sometimes(nn.Sequential):
        """Broken with one seed alone."""

        def __init__(self):
            super().__init__(*Notation(LAYERS))
            if torch.initial_seed() == 1:
                nn.init.constant_(self[1][0].weight, float("nan"))

    chosen = replace(recipe(), network=Sometimes, arguments={})
    assert why_not(chosen, digits, 0) is None
    assert "is nan" in why_not(chosen, digits, 1)


@dataclass(frozen=True)
class Dimmed(RandomAffine):
    """Darker with every batch, and what torch draws besides."""

    batches: list = field(default_factory=list)

    def __call__(self, images):
        self.batches.append(len(images))
        return super().__call__(images) / (1 + len(self.batches))


def test_a_transform_of_ones_own_distorts_the_images_of_both(digits):
    transform = Dimmed(5.0)
    assert why_not(replace(recipe(), augmentation=(transform,)), digits) is None
    assert not transform.batches  # they are left for the run
    assert not why_not(replace(recipe(), augmentation=(transform, ColorJitter(0.5))), digits)


@dataclass(frozen=True)
class Noisy:
    """Draws from random numbers that nobody seeds."""

    def __call__(self, images):
        return images * torch.from_numpy(np.random.default_rng().random(images.shape, dtype=np.float32))


def test_images_that_come_out_otherwise_each_time_are_found_out(digits):
    assert "its loss of the first images" in why_not(replace(recipe(), augmentation=(Noisy(),)), digits)
