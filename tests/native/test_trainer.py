"""The compiled trainer against torch: gradients, steps, averages, distortions, and whole runs with the same seed."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lab.native import trainer as native
from lab.native.library import PACE, Compiled
from lab.run.fit import fit
from lab.search.candidates import build_recipe
from lab.search.notation import Notation
from lab.training import loop as training
from lab.training.augment import affine
from lab.training.averaging import average_decay
from lab.training.data import Digits, Split, load_digits, normalise
from lab.training.loop import begin, evaluate, run_epoch

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
NETWORKS = [
    "c3 c5p M c7 G",
    "c4 s6p M s7 s8p G",
    "c9 r11 A s13p M c10 G",
    "c6 s6p s6p= A c6 c6= G",
    "c1 M c17 G",
    "c4 s4 M s4p~ s4p~ G",
]


@pytest.fixture(scope="module")
def digits():
    full = load_digits("sample")
    return Digits("sample", full.sha256, full.train.first(336), full.test.first(96))


def recipe(layers, **settings):
    return build_recipe({"layers": layers, "epochs": 2, "batch_size": 32} | settings)


def compiled(recipe):
    return Compiled(begin(recipe, 0, torch.device("cpu"), 336), recipe.batch_size)


def still(count):
    """Distortions that change nothing, as (N, 5)."""
    return torch.tensor([0.0, 0, 0, 1, 0]).repeat(count, 1)


def at_rates(rates, recipe):
    """How batches are trained on that belong to a run's beginning."""
    takes = [1 - average_decay(recipe.average, count) if recipe.average and count else 1 for count in range(len(rates))]
    return np.array([(rate, recipe.momentum, take, 0) for rate, take in zip(rates, takes, strict=True)], dtype=PACE)


def flat(tensors):
    return np.concatenate([tensor.detach().numpy().ravel() for tensor in tensors])


@needs_compiler
@pytest.mark.parametrize("layers", NETWORKS)
def test_gradient_is_that_of_torch_in_double_precision(layers, digits):
    trainer, images = compiled(recipe(layers)), digits.train.first(32)
    theirs = begin(recipe(layers), 0, torch.device("cpu"), 336).network.train().double()
    correct, loss = trainer.train(images, torch.arange(32), still(32), at_rates([0], recipe(layers)), recipe(layers))
    logits = theirs(normalise(images.images.double() / 255))
    expected = F.cross_entropy(logits, images.labels)
    expected.backward()
    assert loss / 32 == pytest.approx(expected.item(), rel=1e-5)
    assert correct == (logits.argmax(1) == images.labels).sum()
    gradient, start = trainer.gradient(), 0
    for weight in theirs.parameters():
        part = gradient[start : start + weight.numel()]
        start += weight.numel()
        # the largest of two nearly equal pixels can be another one in single precision
        assert np.abs(part - weight.grad.numpy().ravel()).max() < 3e-3 * weight.grad.abs().max()


@needs_compiler
@pytest.mark.parametrize(
    ("layers", "optimizer"),
    [("c5 A c6 G", "SGD"), ("c5 A s6 r4 G", "Muon"), ("c6 A s6 s6= G", "SGD"), ("c6 A s6 s6= s6~ r4 G", "Muon")],
)
def test_steps_average_and_measurement_are_those_of_torch(layers, optimizer, digits):
    chosen = recipe(layers, weight_decay=0.01, average=0.8, momentum=0.7, optimizer=optimizer)
    ours, theirs = (begin(chosen, 0, torch.device("cpu"), 336) for _ in range(2))
    for network in (theirs.network, theirs.average):
        network.double()  # torch's batch normalisation adds up less exactly than what it is compared with
    order = torch.randperm(len(digits.train), generator=torch.Generator().manual_seed(3))[:80]
    for epoch, rates in enumerate(([0.01, 0.03, 0.05], [0.05, 0.03, 0.01])):  # few steps: rounding grows with each
        losses = []
        for index, rate in zip(order.split(32), rates, strict=True):  # the last holds 16
            for group in theirs.optimizer.param_groups:
                group["lr"] = rate
            images = normalise(digits.train.images[index].double() / 255)
            loss = F.cross_entropy(theirs.network.train()(images), digits.train.labels[index])
            theirs.optimizer.zero_grad()
            loss.backward()
            theirs.optimizer.step()
            theirs.average.update_parameters(theirs.network)
            losses.append(loss.item() * len(index))
        trainer, paces = Compiled(ours, 32), at_rates(rates, chosen)
        paces["take"] = [1 - average_decay(0.8, count) if count else 1 for count in range(3 * epoch, 3 * epoch + 3)]
        _, loss = trainer.train(digits.train, order, still(len(order)), paces, chosen)
        assert loss == pytest.approx(sum(losses), rel=1e-3)
        trainer.store(batches=3)
        for part in ("network", "average"):
            state = getattr(theirs, part).state_dict()
            assert getattr(ours, part).state_dict().keys() == state.keys()
            for name, value in getattr(ours, part).state_dict().items():
                if value.is_floating_point():  # torch averages the counts of batches, too
                    torch.testing.assert_close(value.double(), state[name], rtol=1e-4, atol=1e-5)
        momenta = [
            flat(one.optimizer.state[weight]["momentum_buffer"] for weight in one.network.parameters())
            for one in (ours, theirs)
        ]
        np.testing.assert_allclose(*momenta, atol=1e-4 * np.abs(momenta[1]).max())
        assert ours.average.n_averaged == 3 * (epoch + 1)
    correct, loss = Compiled(ours, 32).evaluate(digits.test)
    measured = evaluate(ours.outcome, digits.test, chosen)
    assert (correct, loss) == (measured.correct, pytest.approx(measured.loss, rel=1e-4))


@needs_compiler
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
def test_images_are_distorted_as_torch_distorts_them(digits, interpolation):
    chosen = recipe("c4 c6 G", rotation=40.0, shift=0.2, scale=0.4, shear=20.0, interpolation=interpolation)
    images, (transform,) = digits.train.first(32), chosen.augmentation
    torch.manual_seed(1)
    degrees, shift, scale, shear = transform.draw(32, 28)
    drawn = torch.cat([degrees[:, None], shift, scale[:, None], shear[:, None]], dim=1)
    distorted = affine(images.images / 255, degrees, shift, scale, shear, interpolation=interpolation)
    network = begin(chosen, 0, torch.device("cpu"), 336).network.train()
    expected = F.cross_entropy(network(normalise(distorted)), images.labels).item()
    found = [
        compiled(chosen).train(images, torch.arange(32), distortions, at_rates([0], chosen), chosen)[1] / 32
        for distortions in (drawn, still(32))
    ]
    assert found[0] == pytest.approx(expected, rel=1e-4)
    assert abs(found[1] - expected) > 1e-3


@needs_compiler
def test_an_epoch_is_that_of_torch(digits):
    """The same random numbers: order, distortions, rates; what is left differs by rounding."""
    chosen = recipe("c6 A c8 G", average=0.9)
    ours, theirs = (begin(chosen, 3, torch.device("cpu"), 336) for _ in range(2))
    for epoch in range(2):
        rows = []
        for trainee, train_epoch in ((ours, native.train_epoch_compiled), (theirs, training.train_epoch)):
            torch.manual_seed(epoch)
            rows.append(run_epoch(trainee, chosen, digits.train, None, digits.test, train_epoch=train_epoch))
        assert rows[0].keys() == rows[1].keys()
        for name in ("learning_rate", "train_loss", "test_loss"):
            assert rows[0][name] == pytest.approx(rows[1][name], rel=5e-3)
        assert rows[0]["train_correct"] == pytest.approx(rows[1]["train_correct"], abs=3)


@needs_compiler
def test_a_search_sees_the_run_that_fit_makes(digits, tmp_path):
    chosen = replace(recipe("c6 M c8 G", average=0.9), compiled=True)
    rows = native.train(chosen, digits, 7)
    record = fit(chosen, digits, rung="twin", seed=7, device="cpu", run_dir=tmp_path).record
    assert [correct for correct, _ in rows] == [row["test_correct"] for row in record.epochs]
    assert [loss for _, loss in rows] == pytest.approx([row["test_loss"] for row in record.epochs], rel=1e-4)


@needs_compiler
@pytest.mark.parametrize("count", [1, 50, 95])
def test_test_images_need_not_come_in_sixteens(count, digits, tmp_path):
    chosen = replace(recipe("c6 M c8 G", average=0.9), compiled=True)
    data = replace(digits, test=digits.test.first(count))
    rows = native.train(chosen, data, 7)
    record = fit(chosen, data, rung="odd", seed=7, device="cpu", run_dir=tmp_path).record
    assert [correct for correct, _ in rows] == [row["test_correct"] for row in record.epochs]
    assert [loss for _, loss in rows] == pytest.approx([row["test_loss"] for row in record.epochs], rel=1e-4)


def expanded(images):
    return images[:1].expand(len(images), -1, -1, -1)


@needs_compiler
@pytest.mark.parametrize(
    "laid_out",
    [
        lambda split: Split(split.images.mT, split.labels),
        lambda split: Split(split.images.flip(3).mT, split.labels),
        lambda split: Split(split.images.to(memory_format=torch.channels_last), split.labels),
        lambda split: Split(expanded(split.images), split.labels),
        lambda split: Split(split.images, split.labels.repeat_interleave(2)[::2]),
        lambda split: Split(split.images, split.labels[:1].expand(len(split))),
        lambda split: Split(split.images.repeat(2, 1, 1, 1)[::2], split.labels.repeat(2)[::2]),
        lambda split: Split(torch.cat([split.images, split.images], dim=3)[..., 14:42], split.labels),
    ],
)
def test_images_and_labels_lie_in_memory_as_they_may(laid_out, digits):
    chosen, train, test = recipe("c4 M c6 G"), laid_out(digits.train), laid_out(digits.test)
    copies = [Split(split.images.clone().contiguous(), split.labels.clone().contiguous()) for split in (train, test)]
    assert native.why_not(chosen, replace(digits, train=train, test=test)) is None
    assert native.train(chosen, replace(digits, train=train, test=test), 1) == native.train(
        chosen, replace(digits, train=copies[0], test=copies[1]), 1
    )


@needs_compiler
def test_training_leaves_random_numbers_alone(digits):
    torch.manual_seed(0)
    native.train(recipe("c4 M c4 G", epochs=1), digits, 5)
    after = torch.rand(1)
    torch.manual_seed(0)
    assert torch.rand(1) == after


@needs_compiler
def test_divergence_is_named(digits):
    with pytest.raises(training.TrainingDiverged, match="loss became"):
        native.train(recipe("c4 M c4 G", rate=1e18), digits, 0)


@needs_compiler
@pytest.mark.parametrize("layers", NETWORKS)
def test_nothing_keeps_it_from_these(layers, digits):
    assert native.why_not(recipe(layers), digits) is None


@needs_compiler
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"optimizer": "Adam"}, "neither SGD nor Muon"),
        ({"optimizer": "AdamW"}, "neither SGD nor Muon"),
        ({"batch_size": 40}, "sixteens"),
        ({"held_out": 8}, "sixteens"),
        ({"batch_size": 352}, "more than all images"),
        ({"loss": "nll"}, "cross-entropy"),
        ({"precision": "bfloat16"}, "float32"),
        ({"held_out": 320}, "more than all images"),
        ({"arguments": {"layers": "c4 c4p+ G"}}, "does not know"),
        ({"arguments": {"layers": "c4 c4pe G"}}, "does not know"),
        ({"arguments": {"layers": "c4 B c4 G"}}, "does not know"),
        ({"arguments": {"layers": "c4 G", "activation": "silu"}}, "does not know"),
        ({"arguments": {"layers": "c4 M G"}}, "does not know AdaptiveAvgPool2d"),
        ({"arguments": {"layers": "M c4 G"}}, "does not know MaxPool2d"),
    ],
)
def test_what_it_cannot_do_is_said_before_it_begins(change, reason, digits):
    assert reason in native.why_not(replace(recipe("c4 G"), **change), digits)


class Residual(nn.Sequential):
    def forward(self, maps):
        return maps + super().forward(maps)


class WithResidual(nn.Sequential):
    def __init__(self):
        first, second, *rest = Notation("c6 r6 M s8 G")
        super().__init__(first, Residual(*second), *rest)


class WithFrozen(nn.Sequential):
    def __init__(self):
        super().__init__(*Notation("c6 r6 M s8 G"))
        self[0].requires_grad_(False)


@pytest.mark.parametrize(("network", "reason"), [(WithResidual, "forward"), (WithFrozen, "requires_grad")])
def test_a_network_that_it_does_not_know_is_trained_by_torch(network, reason, digits, tmp_path, capsys):
    runs = [
        fit(
            replace(recipe("c4 G"), network=network, arguments={}, compiled=compiled),
            digits,
            rung="t",
            device="cpu",
            run_dir=tmp_path / str(compiled),
        )
        for compiled in (True, False)
    ]
    states = [run.network.state_dict() for run in runs]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    assert [run.record.versions.get("trainer") for run in runs] == [None, None]
    printed = capsys.readouterr().out
    assert printed.count("Trained with torch, not with the compiled trainer") == 1
    assert f"{reason} is not as usual." in printed


def test_without_a_compiler_it_says_so(digits, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert native.why_not(recipe("c4 G"), digits) == "there is no C++ compiler"
