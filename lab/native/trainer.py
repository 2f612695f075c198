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
from lab.native.batches import draw, plan_steps
from lab.native.build import CannotCompile, load_library
from lab.native.describe import describe
from lab.native.library import Compiled
from lab.training.loop import EpochStats, Trainer, TrainingDiverged, words_of_divergence
from lab.training.recipe import without_held_out

OPTIMIZERS = ("SGD", "Muon")  # supported here
STRETCH = 16  # batches whose distorted images are held at a time


def why_not(recipe, data, seed=0):
    """Why this trainer cannot train a recipe on some data, in words; None if it can.

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
        if len(train) % recipe.batch_size == 1 and any(unit["side"] == 1 and unit["scale"] >= 0 for unit in units):
            return "the last batch is a single image, and cannot be normalised over single pixels"
        load_library()
        return disagreement(recipe, train, seed)
    except (NotImplementedError, CannotCompile) as error:
        return str(error)


def train_epoch_compiled(trainee, recipe, split, *, advance=None):
    """What `lab.training.loop.train_epoch` does, for recipes and data to which `why_not` has no objection.

    Returns: EpochStats. Raises: TrainingDiverged after a batch whose loss is not finite.
    """
    started = time.perf_counter()
    batch_size = min(recipe.batch_size, len(split))
    order = torch.randperm(len(split))
    steps = plan_steps(trainee, recipe, math.ceil(len(split) / batch_size))
    compiled, correct, loss = Compiled.of(trainee, batch_size), 0, 0.0
    for start in range(0, len(steps), STRETCH):
        part, planned = order[start * batch_size :][: STRETCH * batch_size], steps[start : start + STRETCH]
        drawn = draw(trainee, recipe, split, part)
        correct, loss, done = compiled.train(split, part, drawn, planned, recipe, (correct, loss))
        if not math.isfinite(loss):
            where = f"in batch {start + done}"
            raise TrainingDiverged(words_of_divergence(f"the loss became {loss} {where}", planned["rate"][done - 1]))
        for _ in range(done if advance else 0):
            advance()
    compiled.store(trainee, len(steps))
    return EpochStats(correct, len(split), loss / len(split), time.perf_counter() - started)


def infer_compiled(network, split, recipe, *, batch_size=64):
    """What `lab.training.loop.infer_with_torch` does, all images at once."""
    yield Compiled(network, batch_size).infer(split, torch.arange(len(split))), split.labels


COMPILED = Trainer(train_epoch_compiled, infer_compiled)
