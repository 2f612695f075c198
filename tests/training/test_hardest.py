"""Epochs that show the hardest images again: which these are, with either trainer, and what the record says."""

import shutil
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from lab.native import trainer as native
from lab.run.agreement import why_not
from lab.run.fit import fit
from lab.search.candidates import build_recipe
from lab.training import hardest
from lab.training import loop as training
from lab.training.augment import RandomRotation
from lab.training.data import Digits, load_digits
from lab.training.loop import Trainer, begin, prepare
from lab.training.recipe import Recipe
from lab.training.schedules import CosineCycle
from model import PooledSkeleton

CPU = torch.device("cpu")
WITH_TORCH = Trainer(training.train_epoch, training.infer_with_torch)
TRAINERS = [
    WITH_TORCH,
    pytest.param(
        native.COMPILED, marks=pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++"), id="compiled"
    ),
]
LAYERS = "c4 s6p M s7 s8p G"  # with batch normalisation


@pytest.fixture(scope="module")
def digits():
    full = load_digits("sample")
    return Digits("sample", full.sha256, full.train.first(230), full.test.first(64))


def seen(trainer, recipe, digits, epochs, monkeypatch):
    """Trainee, and which images each epoch shows, as they are drawn for it."""
    orders = []

    def note(*given):
        orders.append(hardest.draw_order(*given))
        return orders[-1]

    monkeypatch.setattr(training, "draw_order", note)
    monkeypatch.setattr(native, "draw_order", note)
    trainee = begin(recipe, 0, CPU, len(digits.train))
    stats = [trainer.train_epoch(trainee, recipe, digits.train) for _ in range(epochs)]
    assert [stat.total for stat in stats] == [len(order) for order in orders]
    return trainee, orders


@pytest.mark.parametrize("trainer", TRAINERS)
def test_first_all_then_those_with_the_largest_losses(trainer, digits, monkeypatch):
    """A rate of almost nothing leaves the weights as they are, so that every loss can be computed afterwards."""
    recipe = Recipe(network=PooledSkeleton, epochs=3, batch_size=64, learning_rate=1e-30, hardest=0.3)
    trainee, (first, *later) = seen(trainer, recipe, digits, 3, monkeypatch)
    with torch.no_grad():
        logits = trainee.network(prepare(digits.train.images, ()))
    losses = F.cross_entropy(logits, digits.train.labels, reduction="none")
    assert sorted(first.tolist()) == [*range(230)]
    expected = losses.argsort(descending=True)[:69].tolist()
    assert [sorted(order.tolist()) for order in later] == [sorted(expected)] * 2
    assert later[0].tolist() != later[1].tolist()
    assert torch.allclose(trainee.losses.values, losses, rtol=1e-4, atol=1e-6)


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
def test_both_trainers_show_the_same_images(digits, monkeypatch):
    recipe = build_recipe({"layers": LAYERS, "epochs": 3, "batch_size": 32, "hardest": 0.25, "rate": 0.02})
    assert why_not(recipe, digits) is None
    one, ours = seen(native.COMPILED, recipe, digits, 3, monkeypatch)
    other, theirs = seen(WITH_TORCH, recipe, digits, 3, monkeypatch)
    assert [order.tolist() for order in ours] == [order.tolist() for order in theirs]
    assert torch.allclose(one.losses.values, other.losses.values, rtol=0.01, atol=1e-3)


def test_an_image_that_is_not_shown_keeps_its_loss(digits):
    recipe = Recipe(network=PooledSkeleton, epochs=2, batch_size=64, learning_rate=0.1, hardest=0.2)
    trainee = begin(recipe, 0, CPU, 230)
    training.train_epoch(trainee, recipe, digits.train)
    before = trainee.losses.values.clone()
    training.train_epoch(trainee, recipe, digits.train)
    changed = (trainee.losses.values != before).nonzero().flatten()
    assert sorted(changed.tolist()) == sorted(before.argsort(descending=True)[:46].tolist())


def test_the_schedule_ends_with_the_last_batch(digits):
    recipe = Recipe(network=PooledSkeleton, epochs=3, batch_size=64, hardest=0.3, schedule=CosineCycle(0.1))
    assert hardest.batches_by_epoch(recipe, 230) == [4, 2, 2]
    trainee, rates = begin(recipe, 0, CPU, 230), []
    for _ in range(3):
        training.train_epoch(
            trainee, recipe, digits.train, advance=lambda: rates.append(trainee.optimizer.param_groups[0]["lr"])
        )
    assert len(rates) == 8
    assert rates[6] < 1e-5  # after the last but one batch, for the last


def test_the_record_counts_what_was_shown(digits, tmp_path):
    recipe = build_recipe({"layers": LAYERS, "epochs": 2, "batch_size": 32, "hardest": 0.25})
    record = fit(recipe, digits, rung="t00", device="cpu", run_dir=tmp_path).record
    assert [row["train_total"] for row in record.epochs] == [230, 58]
    assert record.recipe["hardest"] == 0.25
    assert "hardest" not in replace(recipe, hardest=0.0).as_dict()


def test_what_all_others_draw_stays_as_it_is(digits):
    """An epoch without a choice draws its order, and nothing else, from torch's random numbers."""
    recipe = Recipe(network=PooledSkeleton, epochs=2, batch_size=64, augmentation=(RandomRotation(5),))
    trainee = begin(recipe, 0, CPU, 230)
    torch.manual_seed(7)
    expected = torch.randperm(230)
    torch.manual_seed(7)
    assert hardest.draw_order(trainee, recipe, 230).tolist() == expected.tolist()


@pytest.mark.parametrize("share", [1, -0.1, "a", float("nan")])
def test_a_share_is_below_one(share):
    with pytest.raises(ValueError, match="Recipe: hardest="):
        Recipe(network=PooledSkeleton, hardest=share)


@pytest.mark.parametrize(("images", "share"), [(65, 0.0), (229, 0.566)])
def test_an_image_alone_in_its_batch_is_found_in_later_epochs_too(images, share, digits, tmp_path):
    """ceil(0.566 * 229) is 130, of which 65 leave one over; so it does in a first epoch of 65."""
    recipe = build_recipe({"layers": "c4 M M M c4 G", "epochs": 2, "batch_size": 43 if share else 64, "hardest": share})
    part = Digits("sample", digits.sha256, digits.train.first(images), digits.test)
    with pytest.raises(ValueError, match="One image is alone in its batch"):
        fit(recipe, part, rung="t00", device="cpu", run_dir=tmp_path)
