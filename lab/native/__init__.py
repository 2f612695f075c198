"""A second trainer, compiled: the same recipes and random numbers, several times faster on a CPU core.

Small networks leave torch little to do per call, and much of a step is overhead; this one, in C++ beside this file,
has none. It is for networks of convolutions, batch normalisation and ReLU. It works on the Trainee of
`lab.training`: with the same seed both start from the same weights and see the same images in the same order,
distorted in the same way. They add up in another order, so their numbers agree as those of two devices do. Tests
compare gradients, steps, averages and whole runs with torch.
"""

import math
import time

import numpy as np
import torch

from lab.augment import RandomAffine
from lab.native.agreement import disagreement
from lab.native.build import CannotCompile, load_library
from lab.native.describe import describe
from lab.native.library import LANES, Compiled, draw
from lab.recipe import PER_BATCH, WITH_MOMENTUM, OneCycleLR
from lab.training import EpochStats, TrainingDiverged, begin, evaluate

__all__ = ["train", "train_epoch", "why_not"]


def why_not(recipe, data, seed=0):
    """What keeps this trainer from a recipe on some data, in words; None if nothing does.

    It compiles, if this process has not yet, and compares the beginning of the run with torch's.
    """
    transform = recipe.augmentation[0] if recipe.augmentation else None
    one_affine = len(recipe.augmentation) == 1 and type(transform) is RandomAffine and not transform.fill
    images, batch = len(data.train), recipe.batch_size
    limits = {
        "it is not trained with Nesterov's momentum": recipe.optimizer not in WITH_MOMENTUM or not recipe.nesterov,
        "its rate does not change with every batch": not isinstance(recipe.schedule, PER_BATCH),
        "its momentum is cycled": isinstance(recipe.schedule, OneCycleLR),
        "it is distorted by something else than one RandomAffine with black corners": not one_affine,
        "images do not come in sixteens": batch % LANES or images % LANES,
        "a batch holds more than all images": batch > images,
        "it is not plain float32 cross-entropy": recipe.loss != "cross_entropy" or recipe.precision != "float32",
        "it holds out images of its own": recipe.held_out,
    }
    if found := next((reason for reason, holds in limits.items() if holds), None):
        return found
    try:
        describe(recipe.specimen())
        load_library()
        return disagreement(recipe, data.train, seed)
    except (NotImplementedError, CannotCompile) as error:
        return str(error)


def train_epoch(trainee, recipe, split, *, advance=None):
    """What `lab.training.train_epoch` does, for recipes and data to which `why_not` has no objection.

    Returns: EpochStats. Raises: TrainingDiverged after a batch whose loss is not finite.
    """
    started = time.perf_counter()
    order = torch.randperm(len(split))
    batches = math.ceil(len(split) / recipe.batch_size)
    compiled = Compiled(trainee, recipe.batch_size)
    rates = _rates(trainee, batches)
    correct, loss = compiled.train(split, order, draw(trainee, recipe, order), rates, recipe)
    if not math.isfinite(loss):
        raise TrainingDiverged(
            f"the loss became {loss} at a learning rate of at most {max(rates):g}. A lower learning rate is the usual "
            f"remedy; the checkpoint of the epoch before is kept."
        )
    compiled.store(batches)
    for _ in range(batches if advance else 0):
        advance()
    return EpochStats(correct, len(split), loss, time.perf_counter() - started)


def train(recipe, data, seed):
    """Train one network and keep nothing but how it does, for a search.

    Args:
        recipe, data, seed: such that `why_not` has no objection.

    Returns: list of (correct answers, loss in nats) on the test images, an epoch each. Raises: TrainingDiverged.
    """
    rows = []
    with torch.random.fork_rng(devices=[]):
        trainee = begin(recipe, seed, torch.device("cpu"), len(data.train))
        for _ in range(recipe.epochs):
            train_epoch(trainee, recipe, data.train)
            rows.append(_measure(trainee, recipe, data.test))
            if not math.isfinite(rows[-1][1]):
                raise TrainingDiverged(f"the loss became {rows[-1][1]} after epoch {len(rows)}")
    return rows


def _measure(trainee, recipe, split):
    """(correct answers, loss in nats) of the outcome; by torch where images do not come in sixteens."""
    if len(split) % LANES:
        stats = evaluate(trainee.outcome, split, recipe)
        return stats.correct, stats.loss
    return Compiled(trainee, recipe.batch_size).evaluate(split)


def _rates(trainee, batches):
    """Learning rates of an epoch's batches, by the schedule itself."""
    rates = []
    for _ in range(batches):
        rates.append(trainee.optimizer.param_groups[0]["lr"])
        trainee.optimizer.step()  # without gradients it does nothing, but the schedule wants to see it
        trainee.schedule.step()
    return np.array(rates, dtype=np.float32)
