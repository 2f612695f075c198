"""Training: one loop over batches, one over the parts of an epoch, one function that measures.

Everything here decides numbers: a change makes results stale, see `lab.run.digest`.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel

from lab.training.augment import distort
from lab.training.averaging import build_average
from lab.training.data import normalise
from lab.training.hardest import LastLosses, batches_by_epoch, draw_order
from lab.training.schedules import build_schedule, step_after_batch, step_after_epoch
from lab.training.statistics import without_statistics
from lab.training.streams import RandomStream

LOSS_FUNCTIONS = {"cross_entropy": F.cross_entropy, "nll": F.nll_loss}


class TrainingDiverged(RuntimeError):
    """The loss is no longer a number."""


@dataclass(frozen=True)
class EpochStats:
    """What one pass over a split gave: counts of images, mean loss per image in nats, wall-clock seconds."""

    correct: int
    total: int
    loss: float
    seconds: float

    @property
    def accuracy(self):
        return self.correct / self.total


@dataclass
class Trainee:
    """A network and what changes it: all the state of a run, except torch's own random numbers."""

    network: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: object
    average: AveragedModel | None
    augmentation: RandomStream
    losses: LastLosses | None  # where the recipe shows the hardest images more often

    @property
    def outcome(self):
        """What training has made: the averaged network, where the recipe keeps an average."""
        return self.average.module if self.average else self.network


@dataclass(frozen=True)
class Trainer:
    """What trains an epoch and what measures a network: the functions of this file, or those of lab/native.

    `train_epoch` takes trainee, recipe and split, and `advance`; `infer` takes network, split and recipe.
    """

    train_epoch: Callable
    infer: Callable


def begin(recipe, seed, device, train_total):
    """Seed everything, then build network, optimiser and schedule in this order.

    The seed decides weights, order of images and dropout; distortions draw from a stream of their own, which it seeds.
    Channels last is what makes small convolutions fast on a CPU; torch's batch normalisation then sums plainly, so its
    output is exact to about 4e-4 of its size.
    """
    torch.manual_seed(seed)
    network = recipe.build_network().to(device, memory_format=torch.channels_last)
    optimizer = recipe.build_optimizer(network)
    schedule = build_schedule(recipe, optimizer, sum(batches_by_epoch(recipe, train_total)))
    distortions = RandomStream("augmentation", seed, device)
    losses = LastLosses(train_total, device) if recipe.hardest else None
    return Trainee(network, optimizer, schedule, build_average(recipe, network), distortions, losses)


def train_epoch(trainee, recipe, split, *, advance=None):
    """Train on every image of a split once, in random order; or on some of them, see `lab.training.hardest`.

    Args:
        trainee: its network is left in training mode.
        recipe: batch size, augmentation, loss, precision and schedule come from here.
        split: images uint8 (N, 1, 28, 28), on the network's device.
        advance: called after every batch, for a progress bar.

    Returns: EpochStats of the images as they were seen: augmented, with dropout, by the current weights.
    Raises: TrainingDiverged at the first batch whose loss is not finite.
    """
    started = time.perf_counter()
    network, device = trainee.network.train(), split.labels.device
    correct, loss_sum = torch.zeros((), dtype=torch.int64, device=device), 0.0
    order = draw_order(trainee, recipe, len(split)).to(device)
    for batch, index in enumerate(order.split(recipe.batch_size)):
        with trainee.augmentation:
            images, labels = prepare(split.images[index], recipe.augmentation), split.labels[index]
        logits = forward(network, images, recipe)
        loss = LOSS_FUNCTIONS[recipe.loss](logits, labels)
        batch_loss = loss.item()
        if not math.isfinite(batch_loss):
            rate = trainee.optimizer.param_groups[0]["lr"]
            raise TrainingDiverged(words_of_divergence(f"the loss became {batch_loss} in batch {batch + 1}", rate))
        trainee.optimizer.zero_grad()
        loss.backward()
        trainee.optimizer.step()
        step_after_batch(recipe, trainee.schedule)
        if trainee.average:
            trainee.average.update_parameters(network)
        if trainee.losses:
            trainee.losses.values[index] = LOSS_FUNCTIONS[recipe.loss](logits.detach(), labels, reduction="none")
        correct += (logits.argmax(1) == labels).sum()
        loss_sum += batch_loss * len(labels)
        if advance:
            advance()
    return EpochStats(int(correct), len(order), loss_sum / len(order), time.perf_counter() - started)


def infer_with_torch(network, split, recipe, *, batch_size=500):
    """Yield logits and labels of some images at a time, in eval mode, without gradients; `evaluate` says of what."""
    was_training = network.training
    network.eval()
    try:
        with torch.inference_mode():
            for index in torch.arange(len(split), device=split.labels.device).split(batch_size):
                yield forward(network, prepare(split.images[index], ()), recipe), split.labels[index]
    finally:
        network.train(was_training)


def evaluate(network, split, recipe, *, infer=infer_with_torch, batch_size=500):
    """Count correct predictions, in eval mode, without gradients and without augmentation.

    Args:
        network: maps normalised float32 (N, 1, 28, 28) to logits (N, 10); its mode is restored.
        split: images uint8 (N, 1, 28, 28), on the network's device.
        recipe: loss and precision come from here.
        infer: computes the logits; see Trainer.
        batch_size: images per forward pass.

    Returns: EpochStats. Raises: ValueError if the split is empty.
    """
    if not len(split):
        raise ValueError("cannot evaluate on 0 images")
    started = time.perf_counter()
    correct, loss_sum = 0, 0.0
    for logits, labels in infer(network, split, recipe, batch_size=batch_size):
        correct += int((logits.argmax(1) == labels).sum())
        loss_sum += LOSS_FUNCTIONS[recipe.loss](logits, labels, reduction="sum").item()
    return EpochStats(correct, len(split), loss_sum / len(split), time.perf_counter() - started)


def measured(trainee, recipe, train):
    """The network that is measured and kept: the outcome of training, with new statistics if the recipe says so."""
    return measure_anew(trainee.outcome, recipe, train) if recipe.remeasure else trainee.outcome


def measure_anew(network, recipe, split, *, images=10_000, batch_size=500):
    """A copy whose batch normalisations store what they meet without dropout and distortions; no weight changes.

    Args:
        split: the first `images` of its images are shown, uint8 (N, 1, 28, 28), on the network's device.

    Raises: ValueError naming the network, if none of its normalisations stores statistics.
    """
    network = without_statistics(network)
    with torch.no_grad():
        for batch in split.first(images).images.split(batch_size):
            forward(network, prepare(batch, ()), recipe)
    return network.eval()


def find_errors(network, split, recipe, *, infer=infer_with_torch):
    """Which images of a split the network gets wrong, as indices, from the logits that `evaluate` counts."""
    wrong = [logits.argmax(1) != labels for logits, labels in infer(network, split, recipe)]
    return torch.cat(wrong).nonzero().flatten().tolist()


def predict(network, split, recipe, *, infer=infer_with_torch):
    """Class probabilities, float32 (N, 10) on the CPU, computed exactly as `evaluate` computes its logits."""
    return torch.cat([logits.softmax(1).cpu() for logits, _ in infer(network, split, recipe)])


def prepare(images, augmentation):
    """Turn grey levels, uint8 (N, 1, 28, 28), into what networks read: distorted, normalised, channels last."""
    return normalise(distort(images, augmentation)).contiguous(memory_format=torch.channels_last)


def forward(network, images, recipe):
    """Logits in float32, whatever the precision of the layers."""
    with torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=recipe.precision == "bfloat16"):
        return network(images).float()


def run_epoch(trainee, recipe, train, held_out, test, trainer, *, clean=False, advance=None):
    """Train once over the data, measure, step the schedule; return the epoch as a row of the run record.

    Args:
        clean: whether to measure on the training images, too, as on the test images.

    Raises: TrainingDiverged, also if the last step of the epoch broke the weights after its last loss was seen.
    """
    row = {"learning_rate": trainee.optimizer.param_groups[0]["lr"]}
    parts = {"train": trainer.train_epoch(trainee, recipe, train, advance=advance)}
    network = measured(trainee, recipe, train)
    if held_out:
        parts["held_out"] = evaluate(network, held_out, recipe, infer=trainer.infer)
    parts["test"] = evaluate(network, test, recipe, infer=trainer.infer)
    if clean:
        parts["clean_train"] = evaluate(network, train, recipe, infer=trainer.infer)
    for name, stats in parts.items():
        row |= {f"{name}_loss": stats.loss, f"{name}_correct": stats.correct, f"{name}_total": stats.total}
        row |= {f"{name}_seconds": round(stats.seconds, 3)}
    if broken := [name for name, value in row.items() if not math.isfinite(value)]:
        what = f"{broken[0]} became {row[broken[0]]} after the last batch"
        raise TrainingDiverged(words_of_divergence(what, trainee.optimizer.param_groups[0]["lr"]))
    step_after_epoch(recipe, trainee.schedule, held_out_loss=parts["held_out"].loss if held_out else None)
    return row


def words_of_divergence(what, rate):
    """What happened to a run that diverged at a learning rate, with the remedy."""
    remedy = "A lower learning rate is the usual remedy; the checkpoint of the epoch before is kept."
    return f"{what} at learning rate {rate:g}. {remedy}"
