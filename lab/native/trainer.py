"""A second trainer, compiled: the same recipes and random numbers, several times faster on a CPU core.

Small networks leave torch little to do per call, and much of a step is overhead; this one, in C++ beside this file,
has none. It is for networks of convolutions, batch normalisation and ReLU. It works on the Trainee of
`lab.training.loop`: with the same seed both start from the same weights and see the same images in the same order,
distorted in the same way. They sum in different orders, so their numbers agree as those of two devices do. Tests
compare gradients, steps, averages and whole runs with torch.
"""

import math
import time

import torch

from lab.native.agreement import disagreement
from lab.native.build import CannotCompile, load_library
from lab.native.describe import describe
from lab.native.library import LANES, Compiled, draw, set_paces
from lab.training.loop import EpochStats, TrainingDiverged, begin, evaluate
from lab.training.recipe import without_held_out
from lab.training.schedules import step_after_epoch

OPTIMIZERS = ("SGD", "Muon")  # supported here
STRETCH = 16  # batches whose distorted images are held at a time


def why_not(recipe, data, seed=0):
    """Why this trainer cannot train a recipe on some data, in words; None if it can.

    It compiles, if this process has not yet, and compares the beginning of the run with torch's.
    """
    train = data.train.first(without_held_out(len(data.train), recipe.held_out))
    limits = {
        "it is trained with neither SGD nor Muon": recipe.optimizer not in OPTIMIZERS,
        "images do not come in sixteens": recipe.batch_size % LANES or len(train) % LANES,
        "a batch holds more than all images": recipe.batch_size > len(train),
        "it is not plain float32 cross-entropy": recipe.loss != "cross_entropy" or recipe.precision != "float32",
    }
    if found := next((reason for reason, holds in limits.items() if holds), None):
        return found
    try:
        describe(recipe.specimen())
        load_library()
        return disagreement(recipe, train, seed)
    except (NotImplementedError, CannotCompile) as error:
        return str(error)


def train_epoch_compiled(trainee, recipe, split, *, advance=None):
    """What `lab.training.loop.train_epoch` does, for recipes and data to which `why_not` has no objection.

    Returns: EpochStats. Raises: TrainingDiverged after a batch whose loss is not finite.
    """
    started = time.perf_counter()
    order = torch.randperm(len(split))
    paces = set_paces(trainee, recipe, math.ceil(len(split) / recipe.batch_size))
    compiled, sums = Compiled(trainee, recipe.batch_size), (0, 0.0)
    for start in range(0, len(paces), STRETCH):
        part = order[start * recipe.batch_size : (start + STRETCH) * recipe.batch_size]
        of_part = paces[start : start + STRETCH]
        sums = compiled.train(split, part, draw(trainee, recipe, split, part), of_part, recipe, sums)
        if not math.isfinite(sums[1]):
            raise TrainingDiverged(
                f"the loss became {sums[1]} at a learning rate of at most {of_part['rate'].max():g}. A lower learning "
                f"rate is the usual remedy; the checkpoint of the epoch before is kept."
            )
        for _ in range(len(of_part) if advance else 0):
            advance()
    compiled.store(len(paces))
    correct, loss = sums
    return EpochStats(correct, len(split), loss / len(split), time.perf_counter() - started)


def train(recipe, data, seed):
    """Train one network and return only its results, for a search.

    Args:
        recipe, data, seed: such that `why_not` has no objection.

    Returns: list of (correct answers, loss in nats) on the test images, one per epoch. Raises: TrainingDiverged.
    """
    kept, rows = without_held_out(len(data.train), recipe.held_out), []
    with torch.random.fork_rng(devices=[]):
        trainee = begin(recipe, seed, torch.device("cpu"), kept)
        for _ in range(recipe.epochs):
            train_epoch_compiled(trainee, recipe, data.train.first(kept))
            rows.append(_measure(trainee, recipe, data.test))
            if not math.isfinite(rows[-1][1]):
                raise TrainingDiverged(f"the loss became {rows[-1][1]} after epoch {len(rows)}")
            held_out = data.train.last(len(data.train) - kept)
            loss = _measure(trainee, recipe, held_out)[1] if recipe.schedule and recipe.schedule.watches else None
            step_after_epoch(recipe, trainee.schedule, held_out_loss=loss)
    return rows


def _measure(trainee, recipe, split):
    """(correct answers, loss in nats) of the outcome; by torch where the images are no multiple of 16."""
    if len(split) % LANES:
        stats = evaluate(trainee.outcome, split, recipe)
        return stats.correct, stats.loss
    return Compiled(trainee, recipe.batch_size).evaluate(split)
