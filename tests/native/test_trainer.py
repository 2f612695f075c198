"""The compiled trainer against torch: gradients, steps, averages, distortions, and whole runs with the same seed."""

import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lab.native import trainer as native
from lab.native.library import Compiled
from lab.native.seam import STEP
from lab.run.agreement import why_not
from lab.run.fit import fit
from lab.search import trials
from lab.search.candidates import build_recipe
from lab.search.notation import Notation
from lab.training import loop as training
from lab.training.augment import RandomAffine, affine
from lab.training.averaging import average_decay
from lab.training.data import Digits, Split, load_digits, normalise
from lab.training.loop import Trainer, begin, evaluate, run_epoch
from lab.training.recipe import Recipe
from lab.training.schedules import OneCycleLR
from model import FirstSkeleton, PooledSkeleton, project

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
NETWORKS = [
    "c3 c5p M c7 G",
    "c4 s6p M s7 s8p G",
    "c9 r11 A s13p M c10 G",
    "c6 s6p s6p= A c6 c6= G",
    "c1 M c17 G",
    "c4 s4 M s4p~ s4p~ G",
    "i24 c4 s6p M s7 s8p G",
]
WITH_TORCH = Trainer(training.train_epoch, training.infer_with_torch)


@pytest.fixture(scope="module")
def digits():
    full = load_digits("sample")
    return Digits("sample", full.sha256, full.train.first(336), full.test.first(96))


def recipe(layers, **settings):
    return build_recipe({"layers": layers, "epochs": 2, "batch_size": 32} | settings)


def compiled(recipe):
    return Compiled.of(begin(recipe, 0, torch.device("cpu"), 336), recipe.batch_size)


def still(count):
    """Distortions by one RandomAffine that change nothing, (N, 1, 5)."""
    return torch.tensor([0.0, 0, 0, 1, 0]).repeat(count, 1, 1)


def at_rates(rates, recipe):
    """How batches are trained on that belong to a run's beginning."""
    takes = [1 - average_decay(recipe.average, count) if recipe.average and count else 1 for count in range(len(rates))]
    return np.array([(rate, recipe.momentum, take, 0) for rate, take in zip(rates, takes, strict=True)], dtype=STEP)


def flat(tensors):
    return np.concatenate([tensor.detach().numpy().ravel() for tensor in tensors])


@needs_compiler
@pytest.mark.parametrize("count", [32, 19])
@pytest.mark.parametrize("layers", NETWORKS)
def test_gradient_is_that_of_torch_in_double_precision(layers, count, digits):
    """The largest of two nearly equal pixels can be another one in single precision, but hardly in three batches."""
    chosen, worst = recipe(layers), []
    theirs = begin(chosen, 0, torch.device("cpu"), 336).network.train().double()
    for number in range(3):
        trainer, order = compiled(chosen), torch.arange(number * count, (number + 1) * count)
        labels = digits.train.labels[order]
        correct, loss, batches = trainer.train(digits.train, order, still(count), at_rates([0], chosen), chosen)
        logits = theirs(normalise(digits.train.images[order].double() / 255))
        expected = F.cross_entropy(logits, labels)
        theirs.zero_grad()
        expected.backward()
        assert loss / count == pytest.approx(expected.item(), rel=1e-5)
        assert (correct, batches) == ((logits.argmax(1) == labels).sum(), 1)
        sizes = [weight.numel() for weight in theirs.parameters()]
        parts = np.split(trainer.arrays["gradient"], np.cumsum(sizes)[:-1])
        gradients = [weight.grad.numpy().ravel() for weight in theirs.parameters()]
        pairs = zip(parts, gradients, strict=True)
        largest = 1e-3 * max(
            np.abs(gradient).max() for gradient in gradients
        )  # where one cancels out, rounding is left
        worst.append(max(np.abs(part - other).max() / (np.abs(other).max() + largest) for part, other in pairs))
    assert min(worst) < 1e-3
    assert sorted(worst)[1] < 0.05


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
    order = torch.randperm(len(digits.train), generator=torch.Generator().manual_seed(3))[:77]
    for epoch, rates in enumerate(([0.01, 0.03, 0.05], [0.05, 0.03, 0.01])):  # few steps: rounding grows with each
        losses = []
        for index, rate in zip(order.split(32), rates, strict=True):  # the last holds 13
            for group in theirs.optimizer.param_groups:
                group["lr"] = rate
            images = normalise(digits.train.images[index].double() / 255)
            loss = F.cross_entropy(theirs.network.train()(images), digits.train.labels[index])
            theirs.optimizer.zero_grad()
            loss.backward()
            theirs.optimizer.step()
            theirs.average.update_parameters(theirs.network)
            losses.append(loss.item() * len(index))
        trainer, steps = Compiled.of(ours, 32), at_rates(rates, chosen)
        steps["take"] = [1 - average_decay(0.8, count) if count else 1 for count in range(3 * epoch, 3 * epoch + 3)]
        _, loss, batches = trainer.train(digits.train, order, still(len(order)), steps, chosen)
        assert batches == 3
        assert loss == pytest.approx(sum(losses), rel=1e-3)
        trainer.store(ours, batches=3)
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
    found = evaluate(ours.outcome, digits.test, chosen, infer=native.infer_compiled)
    measured = evaluate(ours.outcome, digits.test, chosen)
    assert (found.correct, found.loss) == (measured.correct, pytest.approx(measured.loss, rel=1e-4))
    logits = trainer.infer(digits.test, torch.arange(len(digits.test)))  # of the average, without copying it
    assert torch.equal(logits, next(native.infer_compiled(ours.outcome, digits.test, chosen))[0])


@needs_compiler
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
def test_images_are_distorted_as_torch_distorts_them(digits, interpolation):
    chosen = recipe("c4 c6 G", rotation=40.0, shift=0.2, scale=0.4, shear=20.0, interpolation=interpolation)
    images, (transform,) = digits.train.first(32), chosen.augmentation
    torch.manual_seed(1)
    degrees, shift, scale, shear = transform.draw(32, 28)
    drawn = torch.cat([degrees[:, None], shift, scale[:, None], shear[:, None]], dim=1)[:, None]
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
@pytest.mark.parametrize("batch_size", [32, 45, 1000])
def test_an_epoch_is_that_of_torch(batch_size, digits):
    """The same random numbers: order, distortions, rates; what is left differs by rounding."""
    chosen = recipe("c6 A c8 G", average=0.9, batch_size=batch_size)
    ours, theirs = (begin(chosen, 3, torch.device("cpu"), 336) for _ in range(2))
    for epoch in range(2):
        rows, batches = [], []
        for trainee, trainer in ((ours, native.COMPILED), (theirs, WITH_TORCH)):
            torch.manual_seed(epoch)
            advance = batches.append(0) or (lambda batches=batches: batches.append(batches.pop() + 1))
            rows.append(run_epoch(trainee, chosen, digits.train, None, digits.test, trainer, advance=advance))
        assert batches == [-(-336 // batch_size)] * 2
        assert rows[0].keys() == rows[1].keys()
        for name in ("learning_rate", "train_loss", "test_loss"):
            assert rows[0][name] == pytest.approx(rows[1][name], rel=5e-3)
        assert rows[0]["train_correct"] == pytest.approx(rows[1]["train_correct"], abs=3)


def measured_in(rows):
    """What any trainer measures in an epoch; only a run of a notebook measures clean training images, too."""
    ignored = ("epoch", "clean_train")
    return [
        {name: value for name, value in row.items() if "seconds" not in name and not name.startswith(ignored)}
        for row in rows
    ]


@needs_compiler
@pytest.mark.parametrize("count", [1, 50, 95, 96])
def test_a_search_sees_the_run_that_fit_makes(count, digits, tmp_path):
    """Bit by bit, however many test images there are."""
    chosen = replace(recipe("c6 M c8 G", average=0.9), compiled=True)
    data = replace(digits, test=digits.test.first(count))
    record = fit(chosen, data, rung="twin", seed=7, device="cpu", run_dir=tmp_path).record
    assert measured_in(trials._train(chosen, data, 7)) == measured_in(record.epochs)


@needs_compiler
@pytest.mark.parametrize("batch_size", [1, 7, 64, 1000])
def test_logits_do_not_depend_on_what_they_are_computed_with(batch_size, digits):
    """Nor on the order of images, of which some may come twice; they are those of torch in double precision."""
    network = begin(recipe("c6 s6p M c8 G"), 0, torch.device("cpu"), 336).network
    order = torch.randint(len(digits.test), (70,), generator=torch.Generator().manual_seed(1))
    logits = Compiled(network, batch_size).infer(digits.test, order)
    assert logits.shape == (70, 10)
    assert torch.equal(logits, Compiled(network, 32).infer(digits.test, torch.arange(96))[order])
    with torch.inference_mode():
        expected = network.double().eval()(normalise(digits.test.images[order].double() / 255))
    torch.testing.assert_close(logits.double(), expected, rtol=1e-5, atol=1e-5)


@needs_compiler
def test_after_a_compiled_epoch_torch_reckons_as_before(digits):
    """Small numbers are still there: the trainer's own processor flags end with it."""
    chosen = recipe("c4 M c4 G", epochs=1)
    trainee = begin(chosen, 0, torch.device("cpu"), 336)
    run_epoch(trainee, chosen, digits.train, None, digits.test, native.COMPILED)
    assert torch.tensor(1e-39) * 1 != 0
    assert np.float32(1e-39) * np.float32(1) != 0
    assert (torch.full((1000,), 1e-39) * 1).count_nonzero() == 1000


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
    assert why_not(chosen, replace(digits, train=train, test=test)) is None
    runs = [trials._train(chosen, replace(digits, train=one, test=other), 1) for one, other in ((train, test), copies)]
    assert measured_in(runs[0]) == measured_in(runs[1])


@needs_compiler
def test_training_leaves_random_numbers_alone(digits):
    torch.manual_seed(0)
    trials._train(recipe("c4 M c4 G", epochs=1), digits, 5)
    after = torch.rand(1)
    torch.manual_seed(0)
    assert torch.rand(1) == after


DIVERGED = re.compile(r"(\w+) became (\w+) (in batch (\d+)|after the last batch) at learning rate (\S+)\. (A lower .*)")


@needs_compiler
@pytest.mark.parametrize(
    ("network", "rate", "what"),
    [("c4 M c4 G", 1e18, "loss"), ("c4 c4 M s6 c8 G", 1e18, "loss"), ("c4 M c4 G", 1e6, "test_loss")]
    + [(network, rate, "loss") for network in (FirstSkeleton, PooledSkeleton) for rate in (1e18, 1e8, 1e7)],
)
def test_divergence_is_told_of_in_the_same_words(network, rate, what, digits):
    """The batch in which it happened may be another, and with it the rate that it was trained with."""
    settings = {"batch_size": 8, "schedule": OneCycleLR(rate)}
    chosen = Recipe(network=network, **settings) if callable(network) else recipe(network, batch_size=8, rate=rate)
    told = []
    for trainer in (native.COMPILED, WITH_TORCH):
        trainee = begin(chosen, 0, torch.device("cpu"), 336)
        with pytest.raises(training.TrainingDiverged) as error:
            run_epoch(trainee, chosen, digits.train, None, digits.test, trainer)
        told.append(re.search(DIVERGED, str(error.value)))
    ours, theirs = told
    assert ours.string.startswith("the loss became " if what == "loss" else f"{what} became ")
    assert re.sub(r"\d+", "", ours[3]) == re.sub(r"\d+", "", theirs[3])
    assert (ours[1], ours[2], ours[6]) == (theirs[1], theirs[2], theirs[6])
    assert abs(int(ours[4] or 0) - int(theirs[4] or 0)) <= 2
    if ours[4] == theirs[4]:
        assert ours.string == theirs.string


@needs_compiler
@pytest.mark.parametrize("layers", NETWORKS)
def test_nothing_keeps_it_from_these(layers, digits):
    assert why_not(recipe(layers), digits) is None


@needs_compiler
@pytest.mark.parametrize("settings", [{"batch_size": 40}, {"batch_size": 5}, {"batch_size": 352}, {"batch_size": 1}])
def test_batches_may_be_of_any_size(settings, digits):
    assert why_not(recipe("c4 G", **settings), digits) is None


@needs_compiler
@pytest.mark.parametrize("held_out", [8, 15, 303, 304, 320, 335])
def test_data_may_be_of_any_size(held_out, digits):
    """With 15, 303 and 335 images held out, the last batch is a single image."""
    assert why_not(replace(recipe("c4 G"), held_out=held_out), digits) is None


class OnOnePixel(nn.Sequential):
    """Normalisation over the single pixel of a batch's maps."""

    def __init__(self):
        super().__init__(*[*Notation("c4 G")][:-2])
        self.extend([nn.Conv2d(4, 6, 1), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 10, 1), nn.Flatten()])


@needs_compiler
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"optimizer": "Adam"}, "neither SGD nor Muon"),
        ({"optimizer": "AdamW"}, "neither SGD nor Muon"),
        ({"loss": "nll"}, "cross-entropy"),
        ({"precision": "bfloat16"}, "float32"),
        ({"arguments": {"layers": "c4 c4p+ G"}}, "does not know"),
        ({"arguments": {"layers": "c4 c4pe G"}}, "does not know"),
        ({"arguments": {"layers": "c4 B c4 G"}}, "does not know"),
        ({"arguments": {"layers": "c4 G", "activation": "silu"}}, "does not know"),
        ({"arguments": {"layers": "c4 M G"}}, "does not know AdaptiveAvgPool2d"),
        ({"network": OnOnePixel, "arguments": {}, "batch_size": 5}, "the last batch is a single image"),
        (
            {"network": OnOnePixel, "arguments": {}, "batch_size": 40, "held_out": 15},
            "the last batch is a single image",
        ),
        ({"network": OnOnePixel, "arguments": {}, "held_out": 335}, "the last batch is a single image"),
        ({"arguments": {"layers": "M c4 G"}}, "does not know MaxPool2d"),
    ],
)
def test_what_it_cannot_do_is_said_before_it_begins(change, reason, digits):
    assert reason in why_not(replace(recipe("c4 G"), **change), digits)


@needs_compiler
def test_two_images_are_enough_to_normalise_a_pixel(digits):
    chosen = replace(recipe("c4 G"), network=OnOnePixel, arguments={})
    assert why_not(replace(chosen, batch_size=167), digits) is None


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
    assert why_not(recipe("c4 G"), digits) == "there is no C++ compiler"


class Lifted(nn.Sequential):
    """Every pixel that is normalised lies far above zero."""

    def __init__(self, bias, scale=1.0):
        super().__init__(
            nn.Conv2d(1, 4, 3), nn.ReLU(), nn.BatchNorm2d(4), nn.AvgPool2d(26), project(4, 10), nn.Flatten()
        )
        nn.init.constant_(self[0].bias, bias)
        nn.init.constant_(self[2].weight, scale)


@needs_compiler
@pytest.mark.parametrize(("bias", "scale"), [(10.0, 1.0), (300.0, 1.0), (0.1, 0.0), (300.0, 0.0)])
def test_a_mean_far_from_zero_and_a_scale_of_zero_cost_no_exactness(bias, scale, digits):
    """torch in double precision is the oracle; plain sums of squares would be wrong by a factor of two at 300."""
    chosen = Recipe(network=Lifted, arguments={"bias": bias, "scale": scale}, batch_size=32)
    trainee = begin(chosen, 0, torch.device("cpu"), 336)
    expected = begin(chosen, 0, torch.device("cpu"), 336).network.double().train()
    images, trainer = digits.train.first(32), Compiled.of(trainee, 32)
    trainer.train(images, torch.arange(32), torch.empty(32, 0, 5), np.array([(0, 0, 1, 0)], dtype=STEP), chosen)
    F.cross_entropy(expected(normalise(images.images.double() / 255)), images.labels).backward()
    np.testing.assert_allclose(trainer.arrays["statistics"][4:], expected[2].running_var, rtol=1e-4)
    start = 4 * 9 + 4  # scale and shift follow the convolution's weights and biases
    gradient = np.concatenate([expected[2].weight.grad, expected[2].bias.grad])
    allowed = 2e-3 if bias < 100 else 5e-2  # of the largest: pixels themselves are rounded to a 30,000th at 300
    np.testing.assert_allclose(trainer.arrays["gradient"][start:][:8], gradient, atol=allowed * abs(gradient).max())


@needs_compiler
@pytest.mark.parametrize("scale", [0.25, 0.5, 1.0, 2.0])
def test_a_pixel_half_way_between_two_is_the_one_that_torch_takes(scale, digits):
    chosen = Recipe(network=Lifted, arguments={"bias": 0.0}, augmentation=(RandomAffine(0, scale=(scale, scale)),))
    assert why_not(chosen, digits) is None


@needs_compiler
def test_a_network_with_a_hook_is_measured_by_torch(digits):
    chosen, seen = recipe("c4 M c4 G"), []
    network = begin(chosen, 0, torch.device("cpu"), 336).network
    plain = training.evaluate(network, digits.test, chosen, infer=native.infer_compiled)
    network.register_forward_hook(lambda *_: seen.append(1))
    hooked = training.evaluate(network, digits.test, chosen, infer=native.infer_compiled)
    assert seen
    assert (hooked.correct, hooked.loss) == (plain.correct, pytest.approx(plain.loss, rel=1e-5))


@needs_compiler
def test_batches_that_fit_in_no_memory_are_refused(monkeypatch, digits):
    trainee = begin(recipe("c4 M c4 G"), 0, torch.device("cpu"), 336)
    with pytest.raises(MemoryError, match="batches of 2,000,000,000 images"):
        Compiled.of(trainee, 2_000_000_000)
