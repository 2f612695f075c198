"""Whether the compiled trainer can take a run: it has to begin as with torch, in loss, gradient and measurement."""

import copy
from dataclasses import replace

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from lab.compiling import CannotCompile
from lab.native.batches import draw
from lab.native.describe import describe, dropped_of
from lab.native.library import Compiled
from lab.native.seam import STEP, load_library
from lab.tracing.usual import layers_of
from lab.training.data import Split
from lab.training.hardest import images_by_epoch
from lab.training.loop import begin, prepare
from lab.training.recipe import without_held_out

OPTIMIZERS = ("SGD", "Muon")  # that the compiled trainer knows
IMAGES, FEW = 96, 16  # to compare, at most and at a time
LOSS = 1e-4  # relative tolerance: rounding makes 1e-7, but a pixel may be read from a place beside its own
MEASURED = 5e-6  # the same for the loss in eval mode, on undistorted images; new statistics hardly move it
GRADIENT = 1e-2  # as a share of the largest in a tensor: rounding makes 1e-5, but see below
NOISE = 1e-3  # as a share of the largest of all: where a gradient cancels out, only rounding is left

STILL = np.array([(0, 0, 1, 0)], dtype=STEP)  # a batch that leaves weights as they are


def why_not(recipe, data, seed=0):
    """Why the compiled trainer cannot train a recipe on some data, in words; None if it can.

    It compiles, if this process has not yet, and compares the beginning of the run with torch's.
    """
    train = data.train.first(without_held_out(len(data.train), recipe.held_out))
    limits = {
        "it is trained with neither SGD nor Muon": recipe.optimizer not in OPTIMIZERS,
        "it is not plain float32 cross-entropy": recipe.loss != "cross_entropy" or recipe.precision != "float32",
    }
    if found := next((reason for reason, holds in limits.items() if holds), None):
        return found
    try:
        units = describe(recipe.specimen())
        alone = any(
            images % recipe.batch_size == 1 % recipe.batch_size for images in images_by_epoch(recipe, len(train))
        )
        if alone and any(unit["side"] == 1 and unit["scale"] >= 0 for unit in units):
            return "the last batch is a single image, and cannot be normalised over single pixels"
        load_library()
        return disagreement(recipe, train, seed)
    except (NotImplementedError, CannotCompile, ValueError) as error:
        return str(error)


def disagreement(recipe, split, seed):
    """Where the compiled trainer and torch in double precision differ, in words; None if they agree.

    Both begin the run of `seed`, without touching the caller's random numbers, and compare its first batch and, if
    needed, groups of sixteen of its first images. Where the two largest of four pixels are nearly equal, or one is
    nearly 0, single precision can decide otherwise, and the gradient jumps by a few percent. Sixteen images without
    such a pixel are soon found, but a trainer that is wrong about a network is wrong on all of them.
    """
    with torch.random.fork_rng(devices=[]):
        ours, theirs = (begin(recipe, seed, torch.device("cpu"), len(split)) for _ in range(2))
        order = torch.randperm(len(split))[:IMAGES]
        drawn = draw(ours, _untouched(recipe), split, order)
        augmentation = _untouched(recipe).augmentation
        with theirs.augmentation:
            images = [prepare(split.images[index], augmentation) for index in order.split(recipe.batch_size)]
    images, (network, drops) = torch.cat(images).double(), with_given_masks(theirs.network.double())
    first = min(recipe.batch_size, len(order))
    trainer = Compiled.of(ours, first)
    for start, size in [(0, first), *((start, min(FEW, first)) for start in range(0, len(order) - 1, FEW))]:
        part = slice(start, start + size)
        batch = Split(split.images[order[part]], split.labels[order[part]])
        _, loss, _ = trainer.train(split, order[part], drawn[part], STILL, recipe)
        loss /= len(batch)
        for drop, mask in zip(drops, trainer.masks(len(batch)), strict=True):
            drop.mask = mask
        measured = F.cross_entropy(trainer.infer(split, order[part]).double(), batch.labels).item()
        expected, gradients, as_measured = _by_torch(network, images[part], batch)
        if not abs(loss - expected) <= LOSS * abs(expected):
            return f"its loss of the first images is {loss:g}, and {expected:g} with torch"
        if not abs(measured - as_measured) <= MEASURED * abs(as_measured):
            return f"its loss of the first images in eval mode is {measured:.8g}, and {as_measured:.8g} with torch"
        if _same(trainer.arrays["gradient"], gradients):
            return None
    return "its gradient of the first images is not that of torch"


class GivenMask(nn.Module):
    """Dropout with a given mask: the scale of what is kept, and 0."""

    def forward(self, maps):
        return maps * self.mask if self.training else maps


def with_given_masks(network):
    """The same layers with a GivenMask in place of every dropout layer, and a list of these."""
    layers = [GivenMask() if dropped_of(layer) else layer for layer in layers_of(network)]
    return nn.Sequential(*layers), [layer for layer in layers if isinstance(layer, GivenMask)]


def _untouched(recipe):
    """The recipe with its own transforms: one may have a state, which only the real run may change."""
    return replace(recipe, augmentation=copy.deepcopy(recipe.augmentation))


def _by_torch(network, images, batch):
    """Loss, gradient weight by weight, and the loss in eval mode on the same images undistorted."""
    network.train().zero_grad()
    loss = F.cross_entropy(network(images), batch.labels)
    loss.backward()
    with torch.inference_mode():
        measured = F.cross_entropy(network.eval()(prepare(batch.images, ()).double()), batch.labels)
    gradients = [torch.zeros_like(weight) if weight.grad is None else weight.grad for weight in network.parameters()]
    return loss.item(), gradients, measured.item()


def _same(found, gradients):
    """Whether gradients, one array of all weights and a tensor for each, agree up to rounding."""
    largest, start = max(gradient.abs().max().item() for gradient in gradients), 0
    for gradient in gradients:
        part = torch.from_numpy(found[start : start + gradient.numel()]).view(gradient.shape)
        start += gradient.numel()
        if not (part - gradient).abs().max() <= GRADIENT * gradient.abs().max() + NOISE * largest:
            return False
    return True
