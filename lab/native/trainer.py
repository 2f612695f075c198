"""A second trainer, compiled: the same recipes and random numbers, several times faster on a core; see README.md."""

import math
import time

import torch

from lab.native.batches import draw, plan_steps
from lab.native.library import Compiled
from lab.training.hardest import draw_order
from lab.training.loop import EpochStats, Trainer, TrainingDiverged, infer_with_torch, words_of_divergence

STRETCH = 16  # batches whose distorted images are held at a time


def train_epoch_compiled(trainee, recipe, split, *, advance=None):
    """What `lab.training.loop.train_epoch` does, where `lab.run.agreement.why_not` has no objection.

    Returns: EpochStats. Raises: TrainingDiverged after a batch whose loss is not finite.
    """
    started = time.perf_counter()
    batch_size = min(recipe.batch_size, len(split))
    order = draw_order(trainee, recipe, len(split))
    steps = plan_steps(trainee, recipe, math.ceil(len(order) / batch_size))
    compiled, correct, loss = Compiled.of(trainee, batch_size), 0, 0.0
    for start in range(0, len(steps), STRETCH):
        part, planned = order[start * batch_size :][: STRETCH * batch_size], steps[start : start + STRETCH]
        drawn = draw(trainee, recipe, split, part)
        correct, loss, done = compiled.train(split, part, drawn, planned, recipe, (correct, loss))
        if not math.isfinite(loss):
            where = f"in batch {start + done}"
            raise TrainingDiverged(words_of_divergence(f"the loss became {loss} {where}", planned["rate"][done - 1]))
        if trainee.losses:
            trainee.losses.values[part] = compiled.losses
        for _ in range(done if advance else 0):
            advance()
    compiled.store(trainee, len(steps))
    return EpochStats(correct, len(order), loss / len(order), time.perf_counter() - started)


def infer_compiled(network, split, recipe, *, batch_size=64):
    """What `lab.training.loop.infer_with_torch` does, all images at once, or leave it to that where there are hooks."""
    try:
        compiled = Compiled(network, batch_size)
    except NotImplementedError:
        yield from infer_with_torch(network, split, recipe, batch_size=batch_size)
    else:
        yield compiled.infer(split, torch.arange(len(split))), split.labels


COMPILED = Trainer(train_epoch_compiled, infer_compiled)
