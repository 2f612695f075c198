"""A run from its beginning to its record: what `fit` adds to the loops of lab/training/loop.py."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from lab.files import ROOT, require_writable
from lab.rules import check, is_a, plain, word
from lab.run.checkpoints import Checkpoints
from lab.run.code import digest_or_reason
from lab.run.fingerprint import take_fingerprint
from lab.run.machine import choose_device, choose_threads, choose_trainer, keep_freed_memory, use_threads
from lab.run.parameters import check_values
from lab.run.progress import EpochLines, Stopped
from lab.run.record import LAST, UNTRACEABLE, RunRecord
from lab.run.results import folder_of
from lab.run.trainable import require_trainable
from lab.training.data import SIZES, Digits, identify
from lab.training.hardest import batches_by_epoch
from lab.training.loop import (
    TrainingDiverged,
    begin,
    evaluate,
    find_errors,
    infer_with_torch,
    measured,
    predict,
    run_epoch,
)
from lab.training.recipe import Recipe, splits_of

RULES = {
    "recipe": is_a(Recipe, "a Recipe"),
    "digits": is_a(Digits, "what load_digits returns"),
    "rung": word(),
}


@dataclass(frozen=True)
class Run:
    """A finished run: the trained network, the data and recipe it was made with, and its record.

    `read_back` counts the epochs that an earlier run had trained already: all of them, if it had finished; `infer`
    computed the logits that were measured. `trail` holds the weights of a network below 50,000 parameters before
    training and after every epoch: tensors (1, parameters), or (2, parameters) with their running average in the
    second row; it is empty for a run that was made before trails were kept.
    """

    network: nn.Module
    digits: Digits
    recipe: Recipe
    record: RunRecord
    read_back: int = 0
    infer: Callable = infer_with_torch
    trail: list[torch.Tensor] = field(default_factory=list)

    def predict_test(self):
        """Class probabilities of the test images, float32 (N, 10)."""
        device = next(self.network.parameters()).device
        return predict(self.network, self.digits.test.to(device), self.recipe, infer=self.infer)


def fit(recipe, digits, *, rung, seed=0, device="auto", threads=0, run_dir="runs"):
    """Train one network and write its run record.

    A checkpoint is written after every epoch. Called again with the same recipe, data, seed, device, threads, code and
    versions, training resumes after the last finished epoch, with the same bits as if it had never stopped; a run that
    had finished is only read back. Code is the same if its source is, and if the first few batches give the same
    bits as before, see lab/run/fingerprint.py. Otherwise the run says so and starts again, with a record of its own;
    the previous one is kept beside it.

    Args:
        recipe: a Recipe.
        digits: from `load_digits`.
        rung: names the folder of the record, "a07"; recipes other than the one published as a07 go to "a07-own".
        seed: decides weights, order, dropout and augmentation.
        device: "auto" (cuda, then mps, then cpu), "cpu", "cuda" or "mps".
        threads: CPU threads; 0 is what `choose_threads` finds best for the network.
        run_dir: `<run_dir>/<rung>/seed<k>.json` is the record; a relative folder is in the project's.

    Returns: Run.
    Raises: TrainingDiverged; Stopped if interrupted; OSError if the disk is full; DamagedFile for a checkpoint that
        cannot be read; ValueError naming what is wrong with one of the arguments, or if they do not fit each other.
    """
    run_dir, seed, threads = str(run_dir) if isinstance(run_dir, Path) else run_dir, plain(seed), plain(threads)
    check("fit:", {"recipe": recipe, "digits": digits, "rung": rung}, RULES)
    check_values({"seed": seed, "threads": threads, "run_dir": run_dir})
    require_trainable(recipe, digits)
    device = choose_device(device)
    folder = ROOT / Path(run_dir).expanduser() / folder_of(rung, recipe.as_dict())
    require_writable(folder)
    keep_freed_memory()
    with _stoppable("stopped"), use_threads(threads or choose_threads(recipe)), _own_random_numbers(device):
        trainer, versions = choose_trainer(recipe, digits, device, seed)
        splits = splits_of(recipe, digits)
        fingerprint, unsaved = take_fingerprint(recipe, seed, splits, trainer)
        train, held_out, test = (split and split.to(device) for split in splits)
        record = _begin_record(recipe, digits, len(train), rung, seed, device, versions, fingerprint)
        trainee = begin(recipe, seed, device, len(train))
        kept = Checkpoints(folder, record, device)
        kept.note(trainee)
        read_back = kept.resume(trainee, unsaved=unsaved)
        with EpochLines(batches_by_epoch(recipe, len(train)), record.epochs) as lines:
            while len(record.epochs) < recipe.epochs:
                epoch = len(record.epochs) + 1
                with _stoppable(f"stopped in epoch {epoch}"), _named_if_diverged(epoch, kept):
                    late = epoch > recipe.epochs - LAST
                    row = run_epoch(trainee, recipe, train, held_out, test, trainer, clean=late, advance=lines.advance)
                    record.epochs.append({"epoch": epoch, **row})
                    kept.note(trainee)
                    kept.save(trainee)
                lines.show(record.epochs[-1])
        network = measured(trainee, recipe, train)
        clean = _clean(record, network, train, recipe, trainer)
        record.finish(*clean, find_errors(network, test, recipe, infer=trainer.infer))
        kept.write_record()
    return Run(network.eval(), digits, recipe, record, read_back, trainer.infer, kept.trail)


def _clean(record, network, train, recipe, trainer):
    """Clean training images that the finished network gets right, and all of them."""
    last = record.epochs[-1]
    if "clean_train_correct" in last:
        return last["clean_train_correct"], last["clean_train_total"]
    stats = evaluate(network, train, recipe, infer=trainer.infer)  # after a checkpoint of earlier code
    return stats.correct, stats.total


@contextlib.contextmanager
def _stoppable(what):
    """Turn an interruption into a line that says what was stopped and that it can be resumed."""
    try:
        yield
    except Stopped:
        raise
    except KeyboardInterrupt:
        raise Stopped(f"{what}; run the cell again to go on") from None


@contextlib.contextmanager
def _named_if_diverged(epoch, kept):
    """Let a run that diverges say in which epoch, and keep the record of earlier ones."""
    try:
        yield
    except TrainingDiverged as error:
        kept.write_record()
        raise TrainingDiverged(f"epoch {epoch}: {error} What was done is in {kept.path}.") from None


def _own_random_numbers(device):
    """Leave the caller's torch random numbers as they are."""
    return torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])


def _begin_record(recipe, digits, train_total, rung, seed, device, versions, fingerprint):
    """The record of a run that has no epoch yet; a message says what makes its numbers differ from the page's."""
    record = RunRecord(
        rung=rung,
        seed=seed,
        dataset=digits.name,
        dataset_sha256=identify(digits),
        train_total=train_total,
        parameters=recipe.parameters,
        recipe=recipe.as_dict(),
        code_digest=digest_or_reason(recipe),
        device=device.type,
        threads=torch.get_num_threads(),
        versions=versions,
        fingerprint=fingerprint,
    )
    if record.dataset != "mnist" or len(digits.train) < SIZES["mnist"]:
        print(f"Data: {record.data}. What the page says in words is said of the published run.")
    if record.code_digest.startswith(UNTRACEABLE):
        print(f"Known by its first batches alone: {record.code_digest.removeprefix(UNTRACEABLE)}.")
    return record
