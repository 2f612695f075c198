"""What goes from Python to C++ is looked at before: nothing is read from beyond an array, whoever calls."""

import ctypes
import shutil
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from lab.native import seam
from lab.native.library import Compiled
from lab.native.seam import SOURCES
from lab.search.candidates import build_recipe
from lab.training.augment import ColorJitter, RandomRotation
from lab.training.data import load_digits
from lab.training.loop import begin

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")


@dataclass(frozen=True)
class Own:
    """A transform that the trainer does not know."""

    def __call__(self, images):
        return images


TRANSFORMS = {"none": (), "two": (RandomRotation(5), ColorJitter(0.1)), "of one's own": (Own(),)}
EACH = {"none": (0, 5), "two": (2, 5), "of one's own": (1, 28, 28)}


@pytest.fixture(scope="module")
def trainee():
    return begin(build_recipe({"layers": "c4 M c4 G"}), 0, torch.device("cpu"), 40)


@pytest.fixture
def trainer(trainee):
    return Compiled.of(trainee, 16)


@pytest.fixture
def split():
    return load_digits("sample").train.first(40)


def train(trainer, split, kind="none", **changes):
    """Train on 40 images in 3 batches, with arrays as they should be but for the changes."""
    recipe = replace(build_recipe({"layers": "c4 M c4 G"}), augmentation=TRANSFORMS[kind])
    steps = np.array([(0.01, 0.9, 1, 0)] * 3, dtype=seam.STEP)
    arrays = {"split": split, "order": torch.arange(40), "drawn": torch.ones(40, *EACH[kind]), "steps": steps}
    return trainer.train(*(arrays | changes).values(), recipe)


@pytest.mark.parametrize("kind", TRANSFORMS)
def test_what_is_as_it_should_be_is_trained_on(kind, trainer, split):
    correct, loss, batches = train(trainer, split, kind)
    assert 0 <= correct <= 40
    assert np.isfinite(loss)
    assert batches == 3


class Unlooked:
    """What a Split refuses to hold."""

    def __init__(self, images, labels):
        self.images, self.labels = images, labels

    def __len__(self):
        return len(self.labels)


def changed(images=lambda images: images, labels=lambda labels: labels):
    return lambda split: Unlooked(images(split.images), labels(split.labels))


SPLITS = {
    "floats": (changed(images=torch.Tensor.float), "images must be torch.uint8"),
    "signed": (changed(images=lambda images: images.to(torch.int8)), "images must be torch.uint8"),
    "narrow": (
        changed(images=lambda images: images[..., 1:]),
        r"images must be .*\(40, 1, 28, 28\).*\(40, 1, 28, 27\)",
    ),
    "flat": (changed(images=lambda images: images.flatten(1)), r"images must be .*not torch.uint8 \(40, 784\)"),
    "of three colours": (
        changed(images=lambda images: images.expand(-1, 3, -1, -1)),
        r"images must be .*\(40, 3, 28, 28\)",
    ),
    "elsewhere": (changed(images=lambda images: images.to("meta")), "images must be .* on meta"),
    "fewer images": (changed(images=lambda images: images[:39]), r"images must be .*\(39, 1, 28, 28\)"),
    "fewer labels": (
        changed(labels=lambda labels: labels[:39]),
        r"(must be .*\(39,|order go from 0 to 39, not below 39)",
    ),
    "short labels": (changed(labels=lambda labels: labels.to(torch.int32)), "labels must be torch.int64"),
    "labels in a column": (changed(labels=lambda labels: labels[:, None]), r"labels must be .*\(40, 1\)"),
    "labels elsewhere": (changed(labels=lambda labels: labels.to("meta")), "labels must be .* on meta"),
    "an eleventh class": (
        changed(labels=lambda labels: labels.clone().index_fill_(0, torch.tensor([7]), 10)),
        "labels go from 0 to 10",
    ),
    "a class before the first": (changed(labels=lambda labels: labels - 1), "labels go from -1 to"),
}
ORDERS = {
    "beyond the last": (torch.arange(1, 41), "order go from 1 to 40, not below 40"),
    "before the first": (torch.arange(-1, 39), "order go from -1 to 38"),
    "far beyond": (torch.full((40,), 2**62), "order go from 4611686018427387904"),
    "short": (torch.arange(40, dtype=torch.int32), "order must be torch.int64"),
    "floats": (torch.arange(40.0), "order must be torch.int64"),
    "a column": (torch.arange(40)[:, None], r"order must be .*\(40, 1\)"),
    "in pieces": (torch.arange(40).repeat_interleave(2)[::2], "order must be .* in one piece"),
    "elsewhere": (torch.arange(40, device="meta"), "order must be .* on meta"),
}


@pytest.mark.parametrize(("change", "message"), SPLITS.values(), ids=SPLITS)
def test_images_and_labels_of_another_kind_are_refused(change, message, trainer, split):
    refused(trainer, message, lambda: train(trainer, change(split)))
    refused(trainer, message, lambda: trainer.infer(change(split), torch.arange(39)))


@pytest.mark.parametrize(("order", "message"), ORDERS.values(), ids=ORDERS)
def test_images_that_are_not_there_are_refused(order, message, trainer, split):
    refused(trainer, message, lambda: train(trainer, split, order=order))
    refused(trainer, message, lambda: trainer.infer(split, order))


def refused(trainer, message, action):
    """A ValueError names what is wrong, before anything is computed."""
    before = {name: array.copy() for name, array in trainer.arrays.items()}
    with pytest.raises(ValueError, match=f"compiled trainer: .*{message}"):
        action()
    assert all(np.array_equal(array, before[name]) for name, array in trainer.arrays.items())


@pytest.mark.parametrize("kind", TRANSFORMS)
@pytest.mark.parametrize(
    "change",
    [
        lambda drawn: drawn[:39],
        lambda drawn: drawn.double(),
        lambda drawn: drawn.half(),
        lambda drawn: drawn[:, None],
        lambda drawn: drawn.flatten(1, 2),
        lambda drawn: drawn[..., 1:],
        lambda drawn: torch.cat([drawn, drawn], dim=1) if drawn.shape[1] else torch.ones(40, 1, 5),
        lambda drawn: drawn.to("meta"),
    ],
)
def test_draws_that_do_not_belong_to_the_images_are_refused(kind, change, trainer, split):
    drawn = change(torch.ones(40, *EACH[kind]))
    refused(trainer, "drawn must be torch.float32", lambda: train(trainer, split, kind, drawn=drawn))


def test_draws_in_pieces_are_refused(trainer, split):
    drawn = torch.ones(40, 5, 2).mT
    refused(trainer, "drawn must be .* in one piece", lambda: train(trainer, split, "two", drawn=drawn))


@pytest.mark.parametrize(
    ("steps", "reason"),
    [
        (np.zeros(0, dtype=seam.STEP), "0 steps are too few for 40 images"),
        (np.zeros(2, dtype=seam.STEP), "2 steps are too few for 40 images"),
        (np.zeros(3, dtype=np.float32), "steps must be what plan_steps gives, not float32"),
        (np.zeros(6, dtype=seam.STEP)[::2], "steps must be what plan_steps gives"),
        (np.zeros(3, dtype=[("rate", "f4"), ("momentum", "f4"), ("take", "f4"), ("key", "u8")]), "what plan_steps"),
    ],
)
def test_steps_that_are_too_few_or_of_another_kind_are_refused(steps, reason, trainer, split):
    refused(trainer, reason, lambda: train(trainer, split, steps=steps))


@pytest.mark.parametrize("count", [-1, 17, 10**9])
def test_masks_are_those_of_images_that_a_batch_may_hold(count, trainer):
    with pytest.raises(ValueError, match=f"masks of {count} images, but a batch holds"):
        trainer.masks(count)


@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 33, 40])
def test_any_number_of_images_may_be_trained_on(count, trainer, split):
    drawn = torch.empty(count, 0, 5)
    _, loss, batches = train(trainer, split, order=torch.arange(count), drawn=drawn)
    assert batches == -(-count // 16)
    assert (loss == 0) == (count == 0)
    assert trainer.infer(split, torch.arange(count)).shape == (count, 10)


def test_what_was_counted_before_is_added_to(trainee, split):
    """The same batches in one call or in two give the same sums."""
    recipe, order, drawn = build_recipe({"layers": "c4 M c4 G"}), torch.arange(40), torch.empty(40, 0, 5)
    recipe, steps = replace(recipe, augmentation=()), np.array([(0.01, 0.9, 1, 0)] * 3, dtype=seam.STEP)
    whole, parts = Compiled.of(trainee, 16), Compiled.of(trainee, 16)
    correct, loss, _ = whole.train(split, order, drawn, steps, recipe)
    first = parts.train(split, order[:16], drawn[:16], steps[:1], recipe)
    assert parts.train(split, order[16:], drawn[16:], steps[1:], recipe, first[:2]) == (correct, loss, 2)
    assert all(np.array_equal(array, parts.arrays[name]) for name, array in whole.arrays.items())


def test_structures_have_the_layout_that_a_c_compiler_gives_them():
    """Names and order of fields are those of the C++ structures."""
    source = " ".join(SOURCES.values())
    assert seam.STEP.names == ("rate", "momentum", "take", "key")
    assert "double rate;\n    float momentum, take;\n    uint64_t key;" in source
    assert seam.STEP.itemsize == 24
    assert seam.STEP.fields["key"][1] == 16
    assert ctypes.sizeof(seam.Transform) == 12
    assert ctypes.sizeof(seam.Method) == 12
    assert ctypes.sizeof(seam.Data) == 24
    assert ctypes.sizeof(seam.State) == 6 * ctypes.sizeof(ctypes.c_void_p)
    for structure in (seam.Data, seam.Transform, seam.Distortion, seam.Method, seam.State):
        body = source.split(f"struct {structure.__name__} {{")[1].split("};")[0]
        places = [body.index(name) for name, *_ in structure._fields_]
        assert places == sorted(places)
