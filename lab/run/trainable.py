"""Whether network, loss, distortions and data of a run fit each other, checked before anything is trained."""

import copy
from dataclasses import replace

import torch

from lab.training.data import CLASSES
from lab.training.hardest import images_by_epoch
from lab.training.loop import LOSS_FUNCTIONS, forward, prepare
from lab.training.recipe import without_held_out
from lab.training.statistics import normalisations

REMEDIES = {  # by what torch or Python says
    "view size": "Images are channels last here: use x.flatten(1) or x.reshape(...) in place of x.view(...).",
    "has no attribute 'float'": "It must return one tensor (N, 10).",
    "does not require grad": "Nothing can be trained: at least one weight needs requires_grad=True.",
}


def require_trainable(recipe, digits):
    """Raise ValueError, before anything is trained, if network, loss and data do not fit each other."""
    made = f"Recipe: network={recipe.network.__name__} with arguments={recipe.arguments!r}"
    images, kept = len(digits.train), without_held_out(len(digits.train), recipe.held_out)
    outputs = _try(recipe, 2, made, training=False)
    if outputs.shape != (2, CLASSES):
        raise ValueError(f"{made} puts out {tuple(outputs.shape)} for two images, not (2, {CLASSES})")
    if recipe.loss == "nll" and not torch.allclose(outputs.exp().sum(1), torch.ones(2), atol=1e-3):
        raise ValueError(
            f"Recipe: loss='nll' must be 'cross_entropy' for {recipe.network.__name__}, which ends in logits"
        )
    recipe.as_dict()
    _try_augmentation(recipe)
    if recipe.initialisation:
        _try_initialisation(recipe)
    if recipe.remeasure:
        try:
            normalisations(recipe.specimen())
        except ValueError as error:
            raise ValueError(f"Recipe: remeasure=True, but {error}") from None
    if not images or not len(digits.test):
        raise ValueError(f"{digits} leave nothing to train or to test on")
    if recipe.held_out and not 0 < kept < images:
        raise ValueError(f"held_out={recipe.held_out} leaves none of {images} training images on one side")
    shown = images_by_epoch(recipe, kept)
    smallest = min(images % recipe.batch_size or min(images, recipe.batch_size) for images in shown)
    sizes = f"{kept} training images in batches of {recipe.batch_size}: "
    alone = " One image is alone in its batch; choose another train_limit or batch_size." if smallest == 1 else ""
    _try(recipe, smallest, f"{sizes}{made}", training=True, remedy=alone)


def _try(recipe, count, made, *, training, remedy=""):
    """What a specimen makes of blank images, in training with gradients; ValueError if it cannot."""
    images = prepare(torch.zeros(count, 1, 28, 28, dtype=torch.uint8), ())
    try:
        with torch.random.fork_rng(devices=[]), torch.set_grad_enabled(training):
            network = recipe.specimen().train(training).to(memory_format=torch.channels_last)
            outputs = forward(network, images, recipe)
            if training:
                LOSS_FUNCTIONS[recipe.loss](outputs, torch.zeros(count, dtype=torch.int64)).backward()
    except Exception as error:  # of any kind: a reader's own network may fail in any way
        reason = f"{error}" if isinstance(error, TypeError | ValueError | RuntimeError) else f"{error!r}"
        remedies = [words for sign, words in REMEDIES.items() if sign in reason]
        told = " ".join([reason.rstrip(".") + ".", *remedies, remedy]).strip()
        raise ValueError(f"{made} cannot be used on images of 28x28: {told}") from error
    return outputs.detach()


def _try_initialisation(recipe):
    """ValueError naming an initialisation that changes no weight, such as one that returns new ones instead."""
    networks = []
    for other in (recipe, replace(recipe, initialisation=None)):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            networks.append(other.build_network())
    pairs = zip(*(network.parameters() for network in networks), strict=True)
    if all(torch.equal(*pair) for pair in pairs):
        raise ValueError(f"Recipe: initialisation={recipe.initialisation!r} must change the weights that it is given")


def _try_augmentation(recipe):
    """ValueError naming a transform that does not give as many images of the same size."""
    images = torch.rand(2, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    for transform in recipe.augmentation:
        try:
            with torch.random.fork_rng(devices=[]):
                found = copy.deepcopy(transform)(images.clone())
        except Exception as error:  # a reader's own transform
            raise ValueError(
                f"Recipe: augmentation: {transform!r} fails on images (2, 1, 28, 28): {error!r}"
            ) from error
        if not isinstance(found, torch.Tensor) or found.shape != images.shape:
            given = tuple(found.shape) if isinstance(found, torch.Tensor) else type(found).__name__
            raise ValueError(f"Recipe: augmentation: {transform!r} must give images (2, 1, 28, 28), and gives {given}")
