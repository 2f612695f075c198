"""The shift of variance by dropout, against its closed form; measuring anew, against never having dropped anything."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import model
import utils
from lab.pages.probes import remeasure, variance_shift
from lab.training.loop import infer_with_torch


class AfterDropout(nn.Sequential):
    """What dropout makes of the image, normalised, then pooled to ten numbers."""

    def __init__(self, dropout=0.25):
        super().__init__(
            nn.Dropout(dropout), nn.BatchNorm2d(1), nn.Conv2d(1, 10, kernel_size=1), nn.AvgPool2d(28), nn.Flatten()
        )


def finished(network, digits):
    recipe = utils.Recipe(network=type(network), epochs=1)
    return SimpleNamespace(network=network.eval(), digits=digits, recipe=recipe, infer=infer_with_torch)


@pytest.fixture(scope="module")
def digits():
    return utils.load_digits("sample")


def trained_in_name(dropout, digits):
    """Its statistics are measured with dropout on; no weight is trained."""
    network = AfterDropout(dropout)
    network[1].momentum = None
    network.train()
    for images in utils.prepare(digits.train.images, ()).split(500):
        network(images)
    return finished(network, digits)


@pytest.mark.parametrize("dropout", [0.0, 0.25, 0.5])
def test_shift_is_what_dropout_adds_to_the_variance(dropout, digits):
    """E[x^2] / (1 - p) - E[x]^2 while training, E[x^2] - E[x]^2 afterwards."""
    run, images = trained_in_name(dropout, digits), utils.prepare(digits.train.images, ())
    square, mean = images.square().mean().item(), images.mean().item()
    expected = (square - mean**2) / (square / (1 - dropout) - mean**2)
    assert variance_shift(run)["met / stored"].tolist() == pytest.approx([expected], abs=0.02)


def test_measured_anew_means_without_dropout(digits):
    run = trained_in_name(0.5, digits)
    stored = run.network[1].running_var.clone()
    table = remeasure(run)
    assert torch.equal(run.network[1].running_var, stored)  # the run itself is left as it was
    assert list(table.index) == ["as trained", "measured anew"]
    other = trained_in_name(0.0, digits).network
    other[2].load_state_dict(run.network[2].state_dict())
    expected = 100 * utils.evaluate(other.eval(), digits.test, run.recipe).accuracy
    assert table.loc["measured anew", "test, %"] == pytest.approx(expected, abs=0.01)


def test_looking_changes_nothing(digits, tmp_path):
    recipe = utils.Recipe(network=model.NormedSkeleton, arguments={"dropout": 0.1}, epochs=1)
    run = utils.fit(recipe, replace(digits, train=digits.train.first(256)), rung="x", run_dir=str(tmp_path))
    before = [value.clone() for value in run.network.state_dict().values()]
    random = torch.get_rng_state()
    assert len(variance_shift(run)) == 6
    assert remeasure(run).loc["as trained", "test, %"] == pytest.approx(100 * run.record.final, abs=0.01)
    assert all(map(torch.equal, before, run.network.state_dict().values()))
    assert torch.equal(random, torch.get_rng_state())
    assert not run.network.training
