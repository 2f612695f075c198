"""Training: one loop over batches, one over epochs, one function that measures.

The functions above the line `fit` decide numbers; `fit` around them only remembers, resumes and reports.
"""

import contextlib
import ctypes
import io
import math
import time
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from lab.data import ROOT, Digits, normalise
from lab.digest import code_digest
from lab.files import write_atomically
from lab.progress import EpochLines
from lab.recipe import OneCycleLR, Recipe, ReduceLROnPlateau, build_optimizer, build_schedule
from lab.results import RunRecord, describe_versions

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
    """A network and what changes it; all the state of a run but the random numbers."""

    network: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: object


def begin(recipe, seed, device, train_total):
    """Seed everything, then build network, optimiser and schedule in this order."""
    torch.manual_seed(seed)
    network = recipe.build_network().to(device, memory_format=torch.channels_last)
    optimizer = build_optimizer(recipe, network)
    schedule = build_schedule(recipe, optimizer, math.ceil(train_total / recipe.batch_size))
    return Trainee(network, optimizer, schedule)


def train_epoch(trainee, recipe, split, *, advance=None):
    """Train on every image of a split once, in random order.

    Args:
        trainee: its network is left in training mode.
        recipe: batch size, augmentation, loss, precision and schedule come from here.
        split: images uint8 (N, 1, 28, 28), on the network's device.
        advance: called after every batch, for a progress bar.

    Returns: EpochStats of the images as they were seen: augmented, with dropout, by the weights of the moment.
    Raises: TrainingDiverged at the first batch whose loss is not finite.
    """
    started = time.perf_counter()
    network, device = trainee.network.train(), split.labels.device
    correct, loss_sum = torch.zeros((), dtype=torch.int64, device=device), 0.0
    order = torch.randperm(len(split)).to(device)
    for batch, index in enumerate(order.split(recipe.batch_size)):
        images, labels = prepare(split.images[index], recipe.augmentation), split.labels[index]
        logits = forward(network, images, recipe)
        loss = LOSS_FUNCTIONS[recipe.loss](logits, labels)
        batch_loss = loss.item()
        if not math.isfinite(batch_loss):
            raise TrainingDiverged(
                f"the loss became {batch_loss} in batch {batch + 1} at learning rate "
                f"{trainee.optimizer.param_groups[0]['lr']:g}. A lower learning rate is the usual remedy; "
                f"the checkpoint of the epoch before is kept."
            )
        trainee.optimizer.zero_grad()
        loss.backward()
        trainee.optimizer.step()
        if isinstance(recipe.schedule, OneCycleLR):
            trainee.schedule.step()
        correct += (logits.argmax(1) == labels).sum()
        loss_sum += batch_loss * len(labels)
        if advance:
            advance()
    return EpochStats(int(correct), len(split), loss_sum / len(split), time.perf_counter() - started)


def evaluate(network, split, recipe, *, batch_size=500):
    """Count correct predictions, in eval mode, without gradients and without augmentation.

    Args:
        network: maps normalised float32 (N, 1, 28, 28) to logits (N, 10); its mode is restored.
        split: images uint8 (N, 1, 28, 28), on the network's device.
        recipe: loss and precision come from here.
        batch_size: images per forward pass.

    Returns: EpochStats. Raises: ValueError if the split is empty.
    """
    if not len(split):
        raise ValueError("cannot evaluate on 0 images")
    started = time.perf_counter()
    correct, loss_sum = 0, 0.0
    for logits, labels in _predictions(network, split, recipe, batch_size):
        correct += int((logits.argmax(1) == labels).sum())
        loss_sum += LOSS_FUNCTIONS[recipe.loss](logits, labels, reduction="sum").item()
    return EpochStats(correct, len(split), loss_sum / len(split), time.perf_counter() - started)


def predict(network, split, recipe, *, batch_size=500):
    """Class probabilities, float32 (N, 10) on the CPU, computed exactly as `evaluate` computes its logits."""
    batches = [logits.softmax(1).cpu() for logits, _ in _predictions(network, split, recipe, batch_size)]
    return torch.cat(batches)


def _predictions(network, split, recipe, batch_size):
    was_training = network.training
    network.eval()
    with torch.inference_mode():
        for index in torch.arange(len(split), device=split.labels.device).split(batch_size):
            yield forward(network, prepare(split.images[index], ()), recipe), split.labels[index]
    network.train(was_training)


def prepare(images, augmentation):
    """Turn grey levels, uint8 (N, 1, 28, 28), into what networks read: distorted, normalised, channels last."""
    pixels = images.float().div_(255)
    for distort in augmentation:
        pixels = distort(pixels)
    return normalise(pixels).contiguous(memory_format=torch.channels_last)


def forward(network, images, recipe):
    """Logits in float32, whatever the precision of the layers."""
    with torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=recipe.precision == "bfloat16"):
        return network(images).float()


def run_epoch(trainee, recipe, train, held_out, test, *, advance=None):
    """Train once over the data, measure, step the schedule; return the epoch as a row of the run record."""
    row = {"learning_rate": trainee.optimizer.param_groups[0]["lr"]}
    parts = {"train": train_epoch(trainee, recipe, train, advance=advance)}
    if held_out:
        parts["held_out"] = evaluate(trainee.network, held_out, recipe)
    parts["test"] = evaluate(trainee.network, test, recipe)
    for name, stats in parts.items():
        row |= {f"{name}_loss": stats.loss, f"{name}_correct": stats.correct, f"{name}_total": stats.total}
        row |= {f"{name}_seconds": round(stats.seconds, 3)}
    if isinstance(recipe.schedule, ReduceLROnPlateau):
        trainee.schedule.step(parts["held_out"].loss)
    elif not isinstance(recipe.schedule, OneCycleLR):
        trainee.schedule.step()
    return row


def recipe_digest(recipe):
    """Digest of the code that decides the numbers of a recipe: all of the above, and what it calls."""
    return code_digest(begin, run_epoch, evaluate, recipe.network, *map(type, recipe.augmentation))


# ------------------------------------------------------------------------------------------- fit


@dataclass(frozen=True)
class Run:
    """A finished run: the trained network, the data and recipe it was made with, and its record."""

    network: nn.Module
    digits: Digits
    recipe: Recipe
    record: RunRecord

    def predict_test(self):
        """Class probabilities of the test images, float32 (N, 10)."""
        device = next(self.network.parameters()).device
        return predict(self.network, self.digits.test.to(device), self.recipe)


def fit(recipe, digits, *, rung, seed=0, device="auto", threads=0, run_dir="runs"):
    """Train one network and write its run record.

    A checkpoint is written after every epoch. Called again with the same recipe, data, seed, device, threads,
    code and versions, training resumes after the last finished epoch, with the same bits as if it had never
    stopped; a run that had finished is only read back.

    Args:
        recipe: a Recipe.
        digits: from `load_digits`.
        rung: names the folder of the record, "a07".
        seed: decides weights, order, dropout and augmentation.
        device: "auto" (cuda, then mps, then cpu), "cpu", "cuda" or "mps".
        threads: CPU threads; 0 keeps torch's setting.
        run_dir: `<run_dir>/<rung>/seed<k>.json` is the record; a relative folder is one of the project.

    Returns: Run.
    Raises: TrainingDiverged; OSError if the disk is full; ValueError if held_out leaves nothing to train on.
    """
    device = choose_device(device)
    if threads:
        torch.set_num_threads(threads)
    keep_freed_memory()
    train, held_out, test = _splits(recipe, digits, device)
    record = RunRecord.begin(
        rung=rung,
        seed=seed,
        dataset=digits.name,
        dataset_sha256=digits.sha256,
        train_total=len(train),
        parameters=sum(weight.numel() for weight in recipe.build_network().parameters()),
        recipe=recipe.as_dict(),
        code_digest=recipe_digest(recipe),
        device=device.type,
        threads=torch.get_num_threads(),
        versions=describe_versions(),
    )
    folder = ROOT / run_dir / rung
    checkpoint = folder / f"seed{seed}-{record.key()}.checkpoint"
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        trainee = begin(recipe, seed, device, len(train))
        _resume(trainee, record, checkpoint, device)
        batches = math.ceil(len(train) / recipe.batch_size)
        with EpochLines(recipe.epochs, batches, record.epochs) as lines:
            while len(record.epochs) < recipe.epochs:
                row = run_epoch(trainee, recipe, train, held_out, test, advance=lines.advance)
                record.epochs.append({"epoch": len(record.epochs) + 1, **row})
                _save(trainee, record, checkpoint, device)
                lines.show(record.epochs[-1])
    clean = evaluate(trainee.network, train, recipe)
    record.finish(clean.correct, clean.total)
    write_atomically(folder / f"seed{seed}.json", record.to_json())
    return Run(trainee.network.eval(), digits, recipe, record)


def choose_device(name):
    """The torch device for "auto", "cpu", "cuda" or "mps"; RuntimeError if it is not there."""
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(device for device, available in there.items() if available)
    if not there[name]:
        raise RuntimeError(f'device={name!r} is not available on this machine; use device="cpu" or "auto"')
    return torch.device(name)


def _splits(recipe, digits, device):
    train, held_out = digits.train, None
    if recipe.held_out:
        if recipe.held_out >= len(train):
            raise ValueError(f"held_out={recipe.held_out} leaves none of {len(train)} training images to train on")
        train, held_out = train.first(len(train) - recipe.held_out), train.last(recipe.held_out)
    return train.to(device), held_out and held_out.to(device), digits.test.to(device)


def _save(trainee, record, path, device):
    state = {name: part.state_dict() for name, part in vars(trainee).items()}
    state |= {"random": torch.get_rng_state(), "epochs": record.epochs}
    if device.type == "cuda":
        state["cuda_random"] = torch.cuda.get_rng_state(device)
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_atomically(path, buffer.getvalue())


def _resume(trainee, record, path, device):
    if not path.exists():
        return
    state = torch.load(path, map_location=device, weights_only=True)
    for name, part in vars(trainee).items():
        part.load_state_dict(state[name])
    torch.set_rng_state(state["random"].cpu())
    if device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda_random"].cpu(), device)
    record.epochs.extend(state["epochs"])


def keep_freed_memory():
    """Tell glibc to keep freed memory for the next batch: fetching it anew costs a quarter of an epoch."""
    with contextlib.suppress(OSError, AttributeError, TypeError):  # another C library: nothing to tell
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(-3, 2**30)  # M_MMAP_THRESHOLD
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD
