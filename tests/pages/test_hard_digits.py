"""Images that networks get wrong, against sets, a binomial distribution, and predictions of the networks themselves."""

from types import SimpleNamespace

import pytest
import torch
from scipy import stats
from torch import nn

from lab.pages import hard_digits
from lab.pages.hard_digits import (
    compare_mistakes,
    hardness_table,
    nobodys_digits,
    show_disagreement,
    show_nobodys_digits,
)
from lab.training.data import Split

WRONG = {
    "x": {0: [1, 2, 3, 4, 5, 6, 7, 8, 50], 1: [1, 2, 60]},
    "y": {0: [1, 2, 9], 1: [1, 2, 3], 2: [1, 3]},
}


@pytest.fixture
def published(monkeypatch):
    def load(name):
        return [SimpleNamespace(seed=seed, errors=errors) for seed, errors in WRONG.get(name, {}).items()]

    monkeypatch.setattr(hard_digits, "load_records", load)


def test_mcnemar_is_a_coin_thrown_for_every_image_on_which_they_differ(published):
    found = compare_mistakes("x", "y")
    assert found.alone == {"x": [3, 4, 5, 6, 7, 8, 50], "y": [9]}
    assert (found.both, found.p_value) == (2, pytest.approx(stats.binomtest(7, 8).pvalue))
    assert compare_mistakes("y", "x").alone == found.alone
    assert compare_mistakes("x", "x").p_value == 1.0


def test_every_image_is_counted_once(published):
    table = hardness_table(["x", "y"])["test images"]
    assert table.sum() == 10_000
    assert table["every run of every network"] == 1  # 1; the last run of y gets 2 right
    assert table["most runs, but not all"] == 2  # 2 in 5 runs of 5 and 6, 3 in half of x and two thirds of y
    assert table["no run"] == 10_000 - len({1, 2, 3, 4, 5, 6, 7, 8, 9, 50, 60})
    assert nobodys_digits(["x", "y"]) == [1]


@pytest.mark.parametrize(("names", "seed"), [(("x", "z"), 0), (("x", "y"), 2)])
def test_a_run_without_errors_is_named(published, names, seed):
    with pytest.raises(ValueError, match=f"{'z' if 'z' in names else 'x'}.*"):
        compare_mistakes(*names, seed=seed)


def test_captions_say_what_the_networks_say(published, monkeypatch):
    class Says(nn.Module):
        def __init__(self, digit):
            super().__init__()
            self.digit = digit

        def forward(self, images):
            return nn.functional.one_hot(torch.full((len(images),), self.digit), 10).float()

    monkeypatch.setattr(hard_digits, "load_weights", lambda name: Says({"x": 7, "y": 9}[name]))
    split = Split(torch.zeros(10_000, 1, 28, 28, dtype=torch.uint8), torch.full((10_000,), 4))
    monkeypatch.setattr(hard_digits, "_test_images", lambda: split)
    figure = show_nobodys_digits(["x", "y"]).figure
    titles = [axis.get_title() for part in figure.subfigs for axis in part.axes]
    assert titles == ["4: 1x 7, 1x 9", *[""] * 5]


def test_without_mnist_there_is_nothing_to_see(published, monkeypatch, capsys):
    monkeypatch.setattr(hard_digits, "mnist_folder", lambda: None)
    assert show_disagreement(compare_mistakes("x", "y")) is show_nobodys_digits(["x", "y"]) is None
    assert "MNIST is not on this machine" in capsys.readouterr().out


def test_a_group_per_network_with_the_images_that_it_alone_gets_wrong(published, monkeypatch):
    split = Split(torch.zeros(10_000, 1, 28, 28, dtype=torch.uint8), torch.arange(10_000) % 10)
    monkeypatch.setattr(hard_digits, "_test_images", lambda: split)
    first, second = show_disagreement(compare_mistakes("x", "y")).figure.subfigs
    assert (first.get_suptitle(), second.get_suptitle()) == ("x alone is wrong: 7", "y alone is wrong: 1")
    assert [axis.get_title() for axis in first.axes][:7] == ["3", "4", "5", "6", "7", "8", "0"]
