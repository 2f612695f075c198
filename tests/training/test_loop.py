"""Training against hand counts, torch's own schedules, and itself interrupted."""

import errno
import functools
import itertools
import json
import math
import os
import pathlib
import re
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import model
import utils
from lab.files import write_atomically
from lab.run import checkpoints
from lab.run import fit as fitting
from lab.run.fit import fit
from lab.run.machine import choose_device
from lab.run.progress import EpochLines
from lab.run.record import RunRecord
from lab.training import loop as training
from lab.training.augment import ColorJitter, RandomAffine, RandomRotation
from lab.training.data import MEAN, STD, Digits, Split, load_digits
from lab.training.loop import TrainingDiverged, begin, evaluate, forward, prepare, run_epoch, train_epoch
from lab.training.recipe import Recipe
from lab.training.schedules import CosineCycle, LinearCycle, OneCycleLR, ReduceLROnPlateau, StepLR, build_schedule
from lab.training.streams import RandomStream

CPU = torch.device("cpu")


class Remainder(nn.Module):
    """Answer with the grey level modulo 7; its one weight has no say, so nothing is ever learnt."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, images):
        greys = ((images[:, 0, 0, 0] * STD + MEAN) * 255).round().long()
        return F.one_hot(greys % 7, 10) * 3.0 + 0 * self.weight


class LogProbabilities(model.PooledSkeleton):
    def __init__(self):
        super().__init__()
        self.append(nn.LogSoftmax(dim=1))


@dataclass(frozen=True)
class Recorder:
    """Note the grey levels of every batch that is trained on."""

    batches: list = field(default_factory=list)

    def __call__(self, pixels):
        self.batches.append((pixels[:, 0, 0, 0] * 255).round().int().tolist())
        return pixels


@dataclass(frozen=True)
class Noise:
    """Draw one number per image, and note it."""

    drawn: list = field(default_factory=list)

    def __call__(self, pixels):
        self.drawn.append(torch.rand(len(pixels)).tolist())
        return pixels


class DroppedOut(nn.Module):
    """Note which of some ones a dropout layer leaves over; the logits do not depend on it."""

    masks = []

    def __init__(self, p):
        super().__init__()
        self.weight, self.dropout = nn.Parameter(torch.zeros(())), model.Dropout(p)

    def forward(self, images):
        if self.training:
            self.masks.append((self.dropout(torch.ones(len(images), 8)) > 0).tolist())
        return torch.zeros(len(images), 10) + self.weight


@dataclass(frozen=True)
class Poison:
    """Turn batch number `batch` into something that is not a number."""

    batch: int
    seen: list = field(default_factory=list)

    def __call__(self, pixels):
        self.seen.append(len(pixels))
        return pixels * math.nan if len(self.seen) == self.batch else pixels


def plain_split(count, start=0):
    """Flat images whose grey levels are start, start + 1, ...; the label is the level's last digit."""
    greys = torch.arange(start, start + count)
    return Split(greys.to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 28, 28).contiguous(), greys % 10)


PLAIN = Digits("plain", "0" * 64, plain_split(50), plain_split(20, start=100))
FROZEN = Recipe(network=Remainder, epochs=1, batch_size=16)
DROPPING = Recipe(
    network=model.NormedSkeleton,
    arguments={"dropout": 0.1},
    epochs=4,
    batch_size=64,
    schedule=OneCycleLR(0.05),
    augmentation=(RandomRotation(6), RandomAffine(7, 0.1), ColorJitter(0.4, 0.4)),
)
WATCHING = Recipe(
    network=model.PooledSkeleton,
    epochs=4,
    batch_size=64,
    optimizer="Adam",
    held_out=40,
    schedule=ReduceLROnPlateau(factor=0.5, patience=0),
)
BAND = Recipe(network=model.NormedSkeleton, epochs=4, schedule=OneCycleLR(0.1), augmentation=(RandomRotation(6),))
AVERAGED = Recipe(
    network=model.NormedSkeleton, epochs=4, batch_size=64, nesterov=True, schedule=CosineCycle(0.05), average=0.9
)
ORTHOGONAL = Recipe(
    network=model.DeepSeparable,
    arguments={"first": 3, "second": 4, "width": 5, "last": 6},
    epochs=4,
    batch_size=64,
    optimizer="Muon",
    nesterov=True,
    average=0.9,
)
by_recipe = pytest.mark.parametrize(
    "recipe",
    [DROPPING, WATCHING, AVERAGED, ORTHOGONAL, replace(AVERAGED, hardest=0.3)],
    ids=["SGD, OneCycleLR", "Adam, plateau", "averaged, CosineCycle", "Muon", "hardest"],
)


@pytest.fixture(scope="module")
def sample():
    full = load_digits("sample")
    return Digits("sample", full.sha256, full.train.first(230), full.test.first(100))


@pytest.fixture
def train(tmp_path):
    """`fit` in a temporary folder."""
    return functools.partial(fit, rung="t00", device="cpu", run_dir=tmp_path)


def change(recipe, **values):
    return Recipe(**(vars(recipe) | values))


def timeless(record):
    """The epochs of a record without what the clock decides."""
    return [{name: value for name, value in row.items() if "seconds" not in name} for row in record.epochs]


def assert_same_bits(first, second):
    assert timeless(first.record) == timeless(second.record)
    pair = first.network.state_dict(), second.network.state_dict()
    assert all(torch.equal(a, b) for a, b in zip(*(state.values() for state in pair), strict=True))


def rates(run):
    return [row["learning_rate"] for row in run.record.epochs]


# ------------------------------------------------------------------------------------------ learning


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_overfits_64_images(sample, train, precision):
    few = Digits("sample", sample.sha256, sample.train.first(64), sample.test.first(10))
    cycle = OneCycleLR(0.1)
    recipe = Recipe(network=model.NormedSkeleton, epochs=30, batch_size=16, schedule=cycle, precision=precision)
    run = train(recipe, few)
    assert (run.record.clean_train_correct, run.record.clean_train_total) == (64, 64)
    assert run.record.epochs[0]["train_loss"] > 1 > 0.2 > run.record.epochs[-1]["train_loss"]
    assert run.predict_test().sum(dim=1).allclose(torch.ones(10))


def test_bfloat16_is_in_the_layers_but_not_in_the_logits(sample):
    kinds = []
    network = model.PooledSkeleton()
    network[0][0].register_forward_hook(lambda *arguments: kinds.append(arguments[-1].dtype))
    for precision in "bfloat16", "float32":
        recipe = Recipe(network=model.PooledSkeleton, precision=precision)
        assert forward(network, prepare(sample.test.images, ()), recipe).dtype == torch.float32
    assert kinds == [torch.bfloat16, torch.float32]


def test_the_seed_decides_every_bit(sample, train, tmp_path):
    recipe = change(DROPPING, epochs=2)
    first = train(recipe, sample, seed=1)
    torch.rand(7)  # what the caller draws, shows or plots is no business of the run
    utils.show_layers(recipe)
    utils.plot_curves(first.record)
    utils.plot_mistakes(utils.find_mistakes(first))
    assert_same_bits(first, train(recipe, sample, seed=1, run_dir=tmp_path / "again"))
    other = train(recipe, sample, seed=2)
    assert timeless(first.record) != timeless(other.record)
    assert not torch.equal(first.network[0][0].weight, other.network[0][0].weight)


def test_random_numbers_of_the_caller_stay(sample, train):
    before = torch.get_rng_state()
    train(change(DROPPING, epochs=1), sample)
    assert torch.equal(torch.get_rng_state(), before)


def noise_of(train, network=Remainder, **arguments):
    noise = Noise()
    train(change(FROZEN, epochs=3, network=network, arguments=arguments, augmentation=(noise,)), PLAIN)
    return noise.drawn


def masks_of(train, **changes):
    DroppedOut.masks.clear()
    train(change(FROZEN, epochs=3, network=DroppedOut, arguments={"p": 0.4}, **changes), PLAIN)
    return list(DroppedOut.masks)


def test_dropout_and_distortions_do_not_touch_each_other(train, tmp_path, monkeypatch):
    """More dropout means no other distortions, more distortions no other dropout, and more measuring neither."""
    elsewhere = (functools.partial(train, run_dir=tmp_path / str(number)) for number in itertools.count())
    drawn = noise_of(next(elsewhere))
    assert drawn == noise_of(next(elsewhere), DroppedOut, p=0.4) == noise_of(next(elsewhere), DroppedOut, p=0.1)
    assert len({number for batch in drawn for number in batch}) == 150

    masks = masks_of(next(elsewhere))
    assert masks == masks_of(next(elsewhere), augmentation=(Noise(), Noise()))
    assert masks[:4] != masks[4:8]

    @functools.wraps(evaluate)
    def measure_twice(*arguments, **knobs):
        evaluate(*arguments, **knobs)
        return evaluate(*arguments, **knobs)

    monkeypatch.setattr(training, "evaluate", measure_twice)
    assert noise_of(next(elsewhere)) == drawn
    assert masks_of(next(elsewhere)) == masks


def test_streams_come_from_the_seed_and_go_on_where_they_were():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, same, other = (RandomStream("augmentation", seed, CPU) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    drawn = []
    for stream in (first, other, first, same):
        with stream:
            drawn.append(torch.rand(5))
        torch.rand(2)
    with same:
        drawn.append(torch.rand(5))
    assert torch.equal(drawn[0], drawn[3])
    assert torch.equal(drawn[2], drawn[4])
    assert len({tuple(numbers.tolist()) for numbers in drawn}) == 3
    with RandomStream("another name", 1, CPU):
        assert not torch.equal(torch.rand(5), drawn[0])


@pytest.fixture(scope="module")
def on_one_thread(tmp_path_factory):
    return train_elsewhere("cpu", 1, tmp_path_factory.mktemp("threads"))


def train_elsewhere(device, threads, folder):
    before = torch.get_num_threads()
    try:
        return fit(BAND, load_digits("sample"), rung="t00", threads=threads, device=device, run_dir=folder).record
    finally:
        torch.set_num_threads(before)


no_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no GPU")


@pytest.mark.parametrize(("device", "threads"), [("cpu", 2), ("cpu", 3), pytest.param("cuda", 1, marks=no_gpu)])
def test_another_number_of_threads_or_device_stays_inside_the_band(on_one_thread, device, threads, tmp_path):
    """Sums in another order: the README promises 1 % of the first epoch's loss, then the spread of seeds."""
    record = train_elsewhere(device, threads, tmp_path)
    assert (record.device, record.threads) == (device, threads)
    assert record.epochs[0]["train_loss"] == pytest.approx(on_one_thread.epochs[0]["train_loss"], rel=0.01)
    assert record.final == pytest.approx(on_one_thread.final, abs=0.02)
    assert min(record.final, on_one_thread.final) > 0.9


def test_every_image_once_per_epoch_in_new_order():
    recorder = Recorder()
    recipe = change(FROZEN, augmentation=(recorder,))
    trainee, orders = begin(recipe, 0, CPU, 50), []
    for _ in range(2):
        train_epoch(trainee, recipe, PLAIN.train)
        orders.append(list(itertools.chain(*recorder.batches)))
        assert [len(batch) for batch in recorder.batches] == [16, 16, 16, 2]
        assert sorted(orders[-1]) == list(range(50)) != orders[-1]
        recorder.batches.clear()
    assert orders[0] != orders[1]
    evaluate(trainee.network, PLAIN.train, recipe)
    assert not recorder.batches  # measuring never distorts


def test_counts_and_losses_are_per_image():
    # right where level % 7 == level % 10; the four batches of 16, 16, 16 and 2 must not weigh the same
    right = [grey for grey in range(50) if grey % 7 == grey % 10]
    losses = [-math.log(math.exp(3 if grey in right else 0) / (math.exp(3) + 9)) for grey in range(50)]
    trainee = begin(FROZEN, 0, CPU, 50)
    trained = train_epoch(trainee, FROZEN, PLAIN.train)
    for stats in trained, evaluate(trainee.network, PLAIN.train, FROZEN, batch_size=16):
        assert (stats.correct, stats.total) == (len(right), 50)
        assert stats.loss == pytest.approx(math.fsum(losses) / 50)
        assert stats.accuracy == len(right) / 50


# ----------------------------------------------------------------------------------------- measuring


def test_evaluate_is_cross_entropy_of_all_logits(sample):
    torch.manual_seed(0)
    network = model.PooledHead().train()
    stats = evaluate(network, sample.test, Recipe(network=model.PooledHead), batch_size=7)
    with torch.no_grad():
        logits = network.eval()((sample.test.images / 255 - MEAN) / STD)
    assert stats.loss == pytest.approx(F.cross_entropy(logits, sample.test.labels).item(), rel=1e-5)
    assert stats.correct == (logits.argmax(1) == sample.test.labels).sum()


def test_nll_of_log_probabilities_is_cross_entropy_of_logits(sample, train):
    of_logits = train(change(WATCHING, epochs=1), sample).record.epochs[0]
    of_logs = train(change(WATCHING, epochs=1, network=LogProbabilities, loss="nll"), sample).record.epochs[0]
    for part in "train", "held_out", "test":
        assert of_logs[f"{part}_loss"] == pytest.approx(of_logits[f"{part}_loss"], rel=1e-4)


@pytest.mark.parametrize("mode", [True, False])
def test_evaluate_leaves_no_trace(sample, mode):
    network = model.NormedSkeleton(dropout=0.1).train(mode)
    before = {name: value.clone() for name, value in network.state_dict().items()} | {"": torch.get_rng_state()}
    evaluate(network, sample.test, DROPPING)
    assert network.training is mode
    assert all(module.training is mode for module in network.modules())
    after = network.state_dict() | {"": torch.get_rng_state()}
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_evaluate_on_nothing(sample):
    with pytest.raises(ValueError, match="0 images"):
        evaluate(Remainder(), sample.test.first(0), FROZEN)


# ----------------------------------------------------------------------------- optimisers, schedules


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"nesterov": True}, {"momentum": 0.9, "nesterov": True}),
        ({"momentum": 0.0}, {"momentum": 0.0, "nesterov": False}),
        ({"optimizer": "Adam", "betas": (0.8, 0.9)}, {"betas": (0.8, 0.9), "decoupled_weight_decay": False}),
        ({"optimizer": "AdamW"}, {"betas": (0.9, 0.999), "decoupled_weight_decay": True}),
    ],
)
def test_optimizers_are_built_as_written(settings, expected):
    network = model.PooledSkeleton()
    optimizer = Recipe(network=Remainder, learning_rate=0.03, weight_decay=0.2, **settings).build_optimizer(network)
    assert type(optimizer) is getattr(torch.optim, settings.get("optimizer", "SGD"))
    (group,) = optimizer.param_groups
    expected = expected | {"lr": 0.03, "weight_decay": 0.2}
    if "decoupled_weight_decay" not in group:  # torch 2.4 tells the two apart by their class alone
        expected.pop("decoupled_weight_decay", None)
    assert {name: group[name] for name in expected} == expected
    assert [id(weight) for weight in group["params"]] == [id(weight) for weight in network.parameters()]


def test_one_cycle_of_fifteen_epochs():
    recipe = Recipe(network=Remainder, epochs=15, schedule=OneCycleLR(0.015))
    optimizer = recipe.build_optimizer(Remainder())
    schedule, starts = build_schedule(recipe, optimizer, 15 * 469), []
    for step in range(15 * 469):
        if step % 469 == 0:
            starts.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    published = """0.0006 0.002286 0.006554 0.011406 0.014569 0.014916 0.014255 0.012995
        0.011246 0.009164 0.006935 0.004756 0.00282 0.001301 0.000332"""
    assert starts == pytest.approx([float(rate) for rate in published.split()], abs=5e-7)


def test_one_cycle_steps_with_every_batch(train):
    schedule = OneCycleLR(0.3, warmup=0.4)
    run = train(change(FROZEN, epochs=6, schedule=schedule), PLAIN)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], momentum=0.9)
    twin = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.3, epochs=6, steps_per_epoch=4, pct_start=0.4)
    expected = []
    for _ in range(24):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        twin.step()
    assert rates(run) == pytest.approx(expected[::4])


def test_cosine_cycle_by_its_formula(train):
    """From a tenth of the peak along half a cosine in the first 40 % of 24 steps, then to zero; momentum stays."""
    run = train(change(FROZEN, epochs=6, schedule=CosineCycle(0.3, warmup=0.4)), PLAIN)

    def rate(step):
        top = 0.4 * 24 - 1
        low, high, share = (0.03, 0.3, step / top) if step < top else (0.3, 0.0, (step - top) / (23 - top))
        return high + (low - high) * (1 + math.cos(math.pi * share)) / 2

    assert rates(run) == pytest.approx([rate(step) for step in range(0, 24, 4)], abs=1e-5)
    optimizer = change(FROZEN, momentum=0.8).build_optimizer(Remainder())
    schedule = build_schedule(change(FROZEN, epochs=6, schedule=CosineCycle(0.3)), optimizer, 24)
    for _ in range(23):
        assert optimizer.param_groups[0]["momentum"] == 0.8
        optimizer.step()
        schedule.step()
    assert optimizer.param_groups[0]["lr"] < 1e-5


def test_linear_cycle_is_made_of_two_straight_lines(train):
    """From a tenth of the peak to all of it in the first quarter of 24 steps, then to zero."""
    run = train(change(FROZEN, epochs=6, schedule=LinearCycle(0.3, warmup=0.25)), PLAIN)
    expected = np.interp(range(0, 24, 4), [0, 0.25 * 24 - 1, 23], [0.03, 0.3, 0.0])
    assert rates(run) == pytest.approx(expected, abs=1e-5)


def test_average_is_the_weighted_sum_of_all_weights_and_statistics(sample):
    recipe, states = change(AVERAGED, average=0.3), []
    trainee = begin(recipe, 0, CPU, len(sample.train))
    train_epoch(
        trainee,
        recipe,
        sample.train,
        advance=lambda: states.append({name: value.clone() for name, value in trainee.network.state_dict().items()}),
    )
    assert len(states) == 4
    decays = [2 / 11, 3 / 12, 0.3]  # the first state starts the average; 4 / 13 is more than 0.3
    weights = [math.prod(decays[seen:]) * (1 - (decays[seen - 1] if seen else 0)) for seen in range(4)]
    averaged = trainee.outcome.state_dict()
    for name in averaged:
        if averaged[name].is_floating_point():
            expected = sum(weight * state[name].double() for weight, state in zip(weights, states, strict=True))
            torch.testing.assert_close(averaged[name].double(), expected, rtol=1e-5, atol=1e-6)


def test_the_average_is_what_is_measured_and_kept(sample, train):
    run = train(AVERAGED, sample)
    plain = train(change(AVERAGED, average=0.0), sample)
    for row, bare in zip(run.record.epochs, plain.record.epochs, strict=True):
        assert row["train_loss"] == bare["train_loss"]  # the average has no part in training
        assert row["test_loss"] != bare["test_loss"]
    assert evaluate(run.network, sample.test, AVERAGED).loss == run.record.epochs[-1]["test_loss"]
    assert evaluate(run.network, sample.train, AVERAGED).correct == run.record.clean_train_correct
    assert ("average" in run.record.recipe, "average" in plain.record.recipe) == (True, False)


def test_statistics_measured_anew_are_those_of_clean_images_without_dropout(sample, train):
    """Against torch: what each normalisation is given in eval mode has the mean and variance that it stores."""
    recipe = change(AVERAGED, arguments={"dropout": 0.3}, average=0.0, remeasure=True)
    run, plain = train(recipe, sample), train(change(recipe, remeasure=False), sample)
    assert all(map(torch.equal, run.network.parameters(), plain.network.parameters()))
    for row, bare in zip(run.record.epochs, plain.record.epochs, strict=True):
        assert row["train_loss"] == bare["train_loss"]  # measuring has no part in training
        assert row["test_loss"] != bare["test_loss"]
    assert evaluate(run.network, sample.test, recipe).loss == run.record.epochs[-1]["test_loss"]
    assert evaluate(run.network, sample.train, recipe).correct == run.record.clean_train_correct
    signal = prepare(sample.train.images, ())
    with torch.inference_mode():
        for layer in (part for unit in run.network for part in (unit if isinstance(unit, nn.Sequential) else [unit])):
            if isinstance(layer, nn.BatchNorm2d):
                torch.testing.assert_close(layer.running_mean, signal.mean((0, 2, 3)), rtol=1e-3, atol=1e-5)
                torch.testing.assert_close(layer.running_var, signal.var((0, 2, 3)), rtol=5e-3, atol=1e-5)
            signal = layer(signal)


def test_statistics_cannot_be_measured_where_none_are_stored(sample, train):
    with pytest.raises(ValueError, match="remeasure=True, but PooledSkeleton has no batch normalisation"):
        train(change(AVERAGED, network=model.PooledSkeleton, arguments={}, remeasure=True), sample)


def test_initialisation_fills_the_weights_of_convolutions_and_linear_layers():
    recipe = Recipe(network=model.PooledSkeleton, initialisation=nn.init.kaiming_normal_)
    torch.manual_seed(0)
    networks = [recipe.build_network() for _ in range(200)]
    for name, weights in networks[0].named_parameters():
        found = torch.stack([network.get_parameter(name) for network in networks])
        assert found.std().item() == pytest.approx(math.sqrt(2 / weights[0].numel()), rel=0.05), name
    assert recipe.as_dict()["initialisation"] == "torch.nn.init.kaiming_normal_"
    assert "initialisation" not in Recipe(network=model.PooledSkeleton).as_dict()


def test_an_initialisation_that_changes_nothing_is_refused(train):
    with pytest.raises(ValueError, match=r"initialisation=.*must change the weights"):
        train(change(FROZEN, network=model.PooledSkeleton, initialisation=lambda weights: 0 * weights), PLAIN)


def test_the_errors_of_a_run_are_the_test_images_that_its_network_gets_wrong(sample, train):
    run = train(AVERAGED, sample)
    with torch.inference_mode():
        answers = run.network(prepare(sample.test.images, ())).argmax(1)
    assert run.record.errors == [i for i, (a, b) in enumerate(zip(answers, sample.test.labels, strict=True)) if a != b]
    assert 0 < len(run.record.errors) == len(sample.test) - run.record.epochs[-1]["test_correct"]


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [(StepLR(2, 0.5), [0.1, 0.1, 0.05, 0.05, 0.025, 0.025, 0.0125]), (None, [0.1] * 7)],
    ids=["StepLR", "constant"],
)
def test_other_schedules_step_with_every_epoch(train, schedule, expected):
    run = train(change(FROZEN, epochs=7, learning_rate=0.1, schedule=schedule), PLAIN)
    assert rates(run) == pytest.approx(expected)


def plateau_rates(losses, start, factor, patience):
    """Learning rates by the rule, spelt out: at most `patience` epochs in a row may fail to beat the best."""
    rate, best, bad, found = start, math.inf, 0, []
    for loss in losses:
        found.append(rate)
        best, bad = (loss, 0) if loss < best * (1 - 1e-4) else (best, bad + 1)
        if bad > patience:
            rate, bad = rate * factor, 0
    return found


def test_plateau_watches_the_held_out_loss_only(sample, train):
    # wrong labels in the held-out part: the better the network, the worse it does there
    labels = torch.cat([sample.train.labels[:190], (sample.train.labels[190:] + 1) % 10])
    digits = Digits("sample", sample.sha256, Split(sample.train.images, labels), sample.test)
    run = train(change(WATCHING, epochs=12, learning_rate=0.01, schedule=ReduceLROnPlateau(0.5, patience=1)), digits)
    expected = {
        part: pytest.approx(plateau_rates([row[f"{part}_loss"] for row in run.record.epochs], 0.01, 0.5, 1))
        for part in ("train", "test", "held_out")
    }
    assert rates(run) == expected["held_out"]
    assert rates(run)[-1] < 0.01
    assert rates(run) != expected["train"]
    assert rates(run) != expected["test"]


def test_plateau_lowers_the_rate_after_its_patience(train):
    recipe = change(FROZEN, epochs=8, learning_rate=0.1, held_out=10, schedule=ReduceLROnPlateau(0.1, patience=2))
    assert rates(train(recipe, PLAIN)) == pytest.approx([0.1] * 4 + [0.01] * 3 + [0.001])


def test_held_out_images_are_the_last_ones(train):
    recorder = Recorder()
    run = train(change(FROZEN, held_out=13, augmentation=(recorder,)), PLAIN)
    assert sorted(itertools.chain(*recorder.batches)) == list(range(37))
    (row,), right = run.record.epochs, sum(grey % 7 == grey % 10 for grey in range(37, 50))
    assert (row["train_total"], row["held_out_total"], row["held_out_correct"]) == (37, 13, right)
    assert (run.record.train_total, run.record.clean_train_total) == (37, 37)


def test_held_out_below_one_is_a_share(train):
    run = train(change(FROZEN, held_out=0.3), PLAIN)
    assert (run.record.train_total, run.record.epochs[0]["held_out_total"]) == (35, 15)


@pytest.mark.parametrize("held_out", [50, 51, 0.999, 0.001])
def test_held_out_must_leave_images_on_both_sides(train, held_out):
    with pytest.raises(ValueError, match=f"held_out={held_out} leaves none of 50"):
        train(change(FROZEN, held_out=held_out), PLAIN)


# ---------------------------------------------------------------------------------- stopping, resuming


def interrupt_after_epoch_2(patch):
    def show(self, row):
        if row["epoch"] == 2:
            raise KeyboardInterrupt

    patch.setattr(EpochLines, "show", show)


def interrupt_in_epoch_3(patch):
    calls = itertools.count(1)

    @functools.wraps(training.train_epoch)
    def stop_short(trainee, recipe, split, **knobs):
        stats = train_epoch(trainee, recipe, split, **knobs)
        if next(calls) == 1 + 3:  # the first takes the fingerprint
            raise KeyboardInterrupt
        return stats

    patch.setattr(training, "train_epoch", stop_short)


@by_recipe
@pytest.mark.parametrize("interrupt", [interrupt_after_epoch_2, interrupt_in_epoch_3])
def test_resumed_run_has_the_bits_of_an_unbroken_one(sample, train, tmp_path, monkeypatch, capsys, recipe, interrupt):
    with monkeypatch.context() as patch:
        interrupt(patch)
        with pytest.raises(KeyboardInterrupt):
            train(recipe, sample)
    assert not (tmp_path / "t00" / "seed0.json").exists()
    resumed = train(recipe, sample)
    assert "(epochs 1 to 2 were read from the checkpoint" in capsys.readouterr().out
    unbroken = train(recipe, sample, run_dir=tmp_path / "unbroken")
    assert "checkpoint" not in capsys.readouterr().out
    assert [row["epoch"] for row in resumed.record.epochs] == [1, 2, 3, 4]
    assert_same_bits(resumed, unbroken)


def test_finished_run_is_read_back(sample, train, monkeypatch):
    first = train(WATCHING, sample)

    calls = itertools.count(1)

    @functools.wraps(training.train_epoch)
    def refuse(*arguments, **knobs):
        assert next(calls) == 1, "trained again"  # the first takes the fingerprint
        return train_epoch(*arguments, **knobs)

    monkeypatch.setattr(training, "train_epoch", refuse)
    second = train(WATCHING, sample)
    assert second.record == first.record
    assert_same_bits(first, second)


@pytest.fixture
def trained(monkeypatch):
    """Epochs that were trained, as numbers; not those that were read back."""
    epochs = []

    def count(*arguments, **settings):
        epochs.append(len(epochs) + 1)
        return run_epoch(*arguments, **settings)

    monkeypatch.setattr(fitting, "run_epoch", count)
    return epochs


@pytest.mark.parametrize("changed", ["seed", "recipe", "data", "code"])
def test_another_run_starts_afresh(train, trained, monkeypatch, changed):
    train(FROZEN, PLAIN)
    before = len(trained)
    known = fitting.digest_or_reason
    if changed == "code":
        monkeypatch.setattr(fitting, "digest_or_reason", lambda recipe: "another")
    train(
        change(FROZEN, learning_rate=0.2) if changed == "recipe" else FROZEN,
        Digits("plain", "1" * 64, PLAIN.train, PLAIN.test) if changed == "data" else PLAIN,
        seed=int(changed == "seed"),
    )
    assert len(trained) == 2 * before > 0
    monkeypatch.setattr(fitting, "digest_or_reason", known)
    train(FROZEN, PLAIN)  # the first run is still known
    assert len(trained) == 2 * before


def test_a_run_of_code_with_the_same_bits_is_known(train, trained, monkeypatch):
    first = train(FROZEN, PLAIN)
    before = len(trained)
    monkeypatch.setattr(fitting, "digest_or_reason", lambda recipe: "another")
    monkeypatch.setattr(checkpoints, "equal_digests", lambda rung, digest: {digest, first.record.code_digest})
    second = train(FROZEN, PLAIN)
    assert len(trained) == before
    assert second.record == replace(first.record, code_digest="another")


def test_clean_images_are_measured_where_a_checkpoint_of_earlier_code_has_no_count(sample, train, tmp_path):
    first = train(AVERAGED, sample)
    (checkpoint,) = (tmp_path / "t00").glob("*.checkpoint")
    state = torch.load(checkpoint, weights_only=True)
    for row in state["epochs"]:
        for name in [name for name in row if name.startswith("clean_train")]:
            del row[name]
    torch.save(state, checkpoint)
    again = train(AVERAGED, sample).record
    assert "clean_train_correct" not in again.epochs[-1]
    assert (again.clean_train_correct, again.clean_train_total) == (first.record.clean_train_correct, len(sample.train))


def test_divergence_names_batch_and_rate_and_keeps_the_checkpoint(train, tmp_path):
    poison = Poison(batch=4 + 2)  # the second of the second epoch
    recipe = change(FROZEN, network=model.PooledSkeleton, epochs=3, learning_rate=0.07, augmentation=(poison,))
    with pytest.raises(TrainingDiverged, match=r"epoch 2: the loss became nan in batch 2 at learning rate 0\.07"):
        train(recipe, PLAIN)
    (checkpoint,) = (tmp_path / "t00").glob("*.checkpoint")
    assert [row["epoch"] for row in torch.load(checkpoint, weights_only=True)["epochs"]] == [1]
    record = RunRecord.read(tmp_path / "t00" / "seed0.json")
    assert ([row["epoch"] for row in record.epochs], record.clean_train_correct) == ([1], None)


def test_divergence_in_the_last_step_of_an_epoch_is_not_kept(train, tmp_path):
    recipe = change(FROZEN, network=model.PooledSkeleton, batch_size=50, learning_rate=1e18)  # one batch an epoch
    with pytest.raises(TrainingDiverged, match=r"epoch 1: test_loss became nan after .* at learning rate 1e\+18"):
        train(recipe, PLAIN)
    assert RunRecord.read(tmp_path / "t00" / "seed0.json").epochs == []
    assert not list((tmp_path / "t00").glob("*.checkpoint"))


@pytest.mark.parametrize("batch_size", [1, 7])
def test_one_image_alone_is_refused_where_a_network_normalises_over_a_single_value(train, batch_size):
    with pytest.raises(ValueError, match=f"50 training images in batches of {batch_size}: .*One image is alone in its"):
        train(Recipe(network=model.TwoLayerHead, epochs=1, batch_size=batch_size), PLAIN)
    train(Recipe(network=model.NormedSkeleton, epochs=1, batch_size=batch_size), PLAIN)  # over whole maps


def full_disk(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(("owner", "call"), [(os, "fsync"), (pathlib.Path, "replace")])
def test_full_disk_leaves_the_old_file(tmp_path, monkeypatch, owner, call):
    path = tmp_path / "folder" / "record.json"
    write_atomically(path, "old")
    with monkeypatch.context() as patch:
        patch.setattr(owner, call, full_disk)
        with pytest.raises(OSError, match=re.escape(f"{path}: {os.strerror(errno.ENOSPC)}. Free some space")) as caught:
            write_atomically(path, "new")
    assert caught.value.errno == errno.ENOSPC
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"


def test_full_disk_costs_no_finished_epoch(train, monkeypatch, capsys, tmp_path):
    recipe, free = change(FROZEN, epochs=3), [1, 1]  # room for the probe of the folder and for one more file
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: free.pop() if free else full_disk())
        with pytest.raises(OSError, match="run_dir"):
            train(recipe, PLAIN)
    train(recipe, PLAIN)
    assert "(epochs 1 to 1 were read" in capsys.readouterr().out
    assert {path.suffix for path in (tmp_path / "t00").iterdir()} == {".json", ".checkpoint"}


# ------------------------------------------------------------------------------------------- records


RECORD_KEYS = {
    "fingerprint",
    "rung",
    "seed",
    "dataset",
    "dataset_sha256",
    "train_total",
    "parameters",
    "recipe",
    "code_digest",
}
RECORD_KEYS |= {"device", "threads", "versions", "epochs", "clean_train_correct", "clean_train_total", "errors"}
EPOCH_KEYS = {"epoch", "learning_rate"} | {
    f"{part}_{what}" for part in ("train", "test", "clean_train") for what in ("loss", "correct", "total", "seconds")
}


def test_record_is_as_designed(sample, train, tmp_path):
    run = train(change(DROPPING, epochs=2), sample, seed=3)
    path = tmp_path / "t00" / "seed3.json"
    assert RunRecord.read(path) == run.record
    written = json.loads(path.read_text())
    assert set(written) == RECORD_KEYS
    assert all(set(row) == EPOCH_KEYS for row in written["epochs"])
    assert (written["rung"], written["seed"], written["parameters"]) == ("t00", 3, 5088)
    assert (written["dataset"], written["dataset_sha256"]) == ("sample", sample.sha256)
    assert (written["train_total"], written["device"]) == (230, "cpu")
    assert written["threads"] == 1  # the network is small
    assert written["versions"]["torch"] == torch.__version__
    assert written["recipe"]["network"] == "NormedSkeleton"
    assert written["recipe"]["schedule"] == {"name": "OneCycleLR", "max_learning_rate": 0.05, "warmup": 0.3}
    assert [step["name"] for step in written["recipe"]["augmentation"]] == [
        "RandomRotation",
        "RandomAffine",
        "ColorJitter",
    ]
    expected = evaluate(run.network, sample.train, DROPPING)
    assert (written["clean_train_correct"], written["clean_train_total"]) == (expected.correct, 230)
    last = evaluate(run.network, sample.test, DROPPING)
    assert (written["epochs"][-1]["test_correct"], written["epochs"][-1]["test_loss"]) == (last.correct, last.loss)


# ------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", 0),
        ("batch_size", 0),
        ("loss", "mse"),
        ("optimizer", "sgd"),
        ("learning_rate", 0.0),
        ("momentum", 1.0),
        ("momentum", -0.1),
        ("weight_decay", -1e-4),
        ("held_out", -1),
        ("precision", "float16"),
    ],
)
def test_bad_recipes_are_refused_by_name(name, value):
    with pytest.raises(ValueError, match=re.escape(f"Recipe: {name}={value!r} must be ")):
        Recipe(network=Remainder, **{name: value})


def test_plateau_needs_held_out_images():
    with pytest.raises(ValueError, match="held_out=0.*ReduceLROnPlateau"):
        Recipe(network=Remainder, schedule=ReduceLROnPlateau())


def test_the_cpu_is_always_there():
    assert choose_device("cpu") == CPU


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_missing_device_is_named():
    with pytest.raises(RuntimeError, match="device='cuda' is not available"):
        choose_device("cuda")
    with pytest.raises(ValueError, match="device='tpu' must be one of"):
        choose_device("tpu")
