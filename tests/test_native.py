"""The compiled trainer against torch: gradients, steps, averages, distortions, and whole runs with the same seed."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lab import native
from lab.augment import RandomAffine, RandomRotation, affine
from lab.data import Digits, load_digits, normalise
from lab.fitting import fit
from lab.recipe import OneCycleLR, StepLR, build_average, build_optimizer
from lab.search import build_recipe

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


def network(layers):
    torch.manual_seed(0)
    return recipe(layers).build_network().train()


def still(count):
    """Distortions that change nothing, as (N, 5)."""
    return torch.tensor([0.0, 0, 0, 1, 0]).repeat(count, 1)


def flat(tensors):
    return np.concatenate([tensor.detach().numpy().ravel() for tensor in tensors])


def batch_statistics(network):
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    return flat(buffer for norm in norms for buffer in (norm.running_mean, norm.running_var))


@needs_compiler
@pytest.mark.parametrize("layers", NETWORKS)
def test_gradient_is_that_of_torch_in_double_precision(layers, digits):
    ours, theirs = network(layers), network(layers).double()
    trainer, images = native.Trainer(ours, 32), digits.train.first(32)
    loss, correct = trainer.train(images, torch.arange(32), still(32), np.zeros(1, np.float32), recipe(layers))
    logits = theirs(normalise(images.images.double() / 255))
    expected = F.cross_entropy(logits, images.labels)
    expected.backward()
    assert loss == pytest.approx(expected.item(), rel=1e-5)
    assert correct == (logits.argmax(1) == images.labels).sum()
    gradient, start = trainer.read()[0], 0
    for weight in theirs.parameters():
        part = gradient[start : start + weight.numel()]
        start += weight.numel()
        # the largest of two nearly equal pixels can be another one in single precision
        assert np.abs(part - weight.grad.numpy().ravel()).max() < 3e-3 * weight.grad.abs().max()


@needs_compiler
def test_steps_average_and_measurement_are_those_of_torch(digits):
    chosen = recipe("c5 A c6 G", weight_decay=0.01, average=0.8, momentum=0.7)
    theirs = network("c5 A c6 G")
    trainer = native.Trainer(theirs, 32)
    optimizer, average = build_optimizer(chosen, theirs), build_average(chosen, theirs)
    order = torch.randperm(len(digits.train), generator=torch.Generator().manual_seed(3))
    rates = np.linspace(0.01, 0.1, 11, dtype=np.float32)
    losses = []
    for index, rate in zip(order.split(32), rates, strict=True):  # the last batch holds 16
        optimizer.param_groups[0]["lr"] = float(rate)
        losses.append(F.cross_entropy(theirs(normalise(digits.train.images[index] / 255)), digits.train.labels[index]))
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
        average.update_parameters(theirs)
    loss, _ = trainer.train(digits.train, order, still(len(order)), rates, chosen)
    sizes = [len(index) for index in order.split(32)]
    expected = sum(loss.item() * size for loss, size in zip(losses, sizes, strict=True)) / len(order)
    assert loss == pytest.approx(expected, rel=1e-4)
    _, weights, statistics = trainer.read()
    np.testing.assert_allclose(weights, flat(average.module.parameters()), atol=1e-3)
    np.testing.assert_allclose(statistics, batch_statistics(average.module), rtol=2e-3, atol=1e-3)
    with torch.inference_mode():
        logits = average.module.eval()(normalise(digits.test.images / 255))
    correct, loss = trainer.evaluate(digits.test)
    assert loss == pytest.approx(F.cross_entropy(logits, digits.test.labels).item(), abs=2e-3)
    assert abs(correct - (logits.argmax(1) == digits.test.labels).sum()) <= 1


@needs_compiler
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
def test_images_are_distorted_as_torch_distorts_them(digits, interpolation):
    chosen = recipe("c4 c6 G", rotation=40.0, shift=0.2, scale=0.4, shear=20.0, interpolation=interpolation)
    images, (transform,) = digits.train.first(32), chosen.augmentation
    torch.manual_seed(1)
    degrees, shift, scale, shear = transform.draw(32, 28)
    distorted = affine(images.images / 255, degrees, shift, scale, shear, interpolation=interpolation)
    expected = F.cross_entropy(network("c4 c6 G")(normalise(distorted)), images.labels)
    drawn = torch.cat([degrees[:, None], shift, scale[:, None], shear[:, None]], dim=1)
    trainer = native.Trainer(network("c4 c6 G"), 32)
    loss, _ = trainer.train(images, torch.arange(32), drawn, np.zeros(1, np.float32), chosen)
    assert loss == pytest.approx(expected.item(), rel=1e-4)
    trainer = native.Trainer(network("c4 c6 G"), 32)
    plain, _ = trainer.train(images, torch.arange(32), still(32), np.zeros(1, np.float32), chosen)
    assert abs(plain - loss) > 1e-3


@needs_compiler
def test_a_run_is_that_of_fit_with_the_same_seed(digits, tmp_path):
    chosen = recipe("c6 M c8 G", average=0.9)
    for seed in (0, 7):
        rows = native.train(chosen, digits, seed)
        theirs = fit(chosen, digits, rung="twin", seed=seed, device="cpu", run_dir=tmp_path).record.epochs
        assert [loss for _, loss in rows] == pytest.approx([row["test_loss"] for row in theirs], rel=0.01)
        assert [correct for correct, _ in rows] == pytest.approx([row["test_correct"] for row in theirs], abs=4)


@needs_compiler
def test_training_leaves_random_numbers_alone(digits):
    torch.manual_seed(0)
    native.train(recipe("c4 M c4 G", epochs=1), digits, 5)
    after = torch.rand(1)
    torch.manual_seed(0)
    assert torch.rand(1) == after


@needs_compiler
def test_divergence_is_named(digits):
    with pytest.raises(native.TrainingDiverged, match=r"loss became .* in epoch 1"):
        native.train(recipe("c4 M c4 G", rate=1e18), digits, 0)


@needs_compiler
@pytest.mark.parametrize("layers", NETWORKS)
def test_nothing_keeps_it_from_these(layers, digits):
    assert native.why_not(recipe(layers), digits) is None


@needs_compiler
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"optimizer": "Adam"}, "SGD"),
        ({"nesterov": False}, "Nesterov"),
        ({"schedule": StepLR(2)}, "every batch"),
        ({"schedule": None}, "every batch"),
        ({"schedule": OneCycleLR(0.1)}, "momentum is cycled"),
        ({"augmentation": ()}, "RandomAffine"),
        ({"augmentation": (RandomRotation(5.0),)}, "RandomAffine"),
        ({"augmentation": (RandomAffine(5.0, fill=0.5),)}, "RandomAffine"),
        ({"batch_size": 40}, "sixteens"),
        ({"loss": "nll"}, "cross-entropy"),
        ({"precision": "bfloat16"}, "float32"),
        ({"held_out": 16}, "holds out"),
        ({"arguments": {"layers": "c4 c4p+ G"}}, "more than convolution"),
        ({"arguments": {"layers": "c4 c4pe G"}}, "more than convolution"),
        ({"arguments": {"layers": "c4 B c4 G"}}, "more than convolution"),
        ({"arguments": {"layers": "c4 G", "activation": "silu"}}, "more than convolution"),
        ({"arguments": {"layers": "c4 M G"}}, "does not follow"),
        ({"arguments": {"layers": "M c4 G"}}, "does not follow"),
    ],
)
def test_what_it_cannot_do_is_said_before_it_begins(change, reason, digits):
    assert reason in native.why_not(replace(recipe("c4 G"), **change), digits)


def test_without_a_compiler_it_says_so(digits, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert native.why_not(recipe("c4 G"), digits) == "there is no C++ compiler"
