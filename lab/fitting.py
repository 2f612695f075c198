"""A run: what `fit` remembers, resumes, records and shows around the loops of `lab.training`."""

import contextlib
import copy
import ctypes
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from lab import native, training
from lab.checkpoints import Checkpoints, take_fingerprint
from lab.data import CLASSES, MNIST_PIXELS_SHA256, ROOT, Digits, pixels_digest
from lab.digest import code_digest
from lab.files import require_writable
from lab.parameters import check_values
from lab.progress import EpochLines, Stopped
from lab.recipe import Recipe, without_held_out
from lab.results import COMPILED, SIZES, UNTRACEABLE, RunRecord, describe_versions, folder_of
from lab.rules import check, is_a, plain, word
from lab.source import Untraceable
from lab.training import LOSS_FUNCTIONS, TrainingDiverged, begin, evaluate, forward, predict, prepare, run_epoch

RULES = {
    "recipe": is_a(Recipe, "a Recipe"),
    "digits": is_a(Digits, "what load_digits returns"),
    "rung": word(),
}
REMEDIES = {  # by what torch or Python says
    "view size": "Images are channels last here: use x.flatten(1) or x.reshape(...) in place of x.view(...).",
    "has no attribute 'float'": "It must return one tensor (N, 10).",
    "does not require grad": "Nothing can be trained: at least one weight needs requires_grad=True.",
}
SMALL = 50_000  # parameters of networks for which a second thread costs more than it brings, see choose_threads


def recipe_digest(recipe):
    """Digest of the code that decides the numbers of a recipe: the loops, its network, and all that they call.

    Raises: Untraceable naming what cannot be followed.
    """
    parts = recipe.network, recipe.arguments, recipe.augmentation, recipe.schedule
    roots = [begin, run_epoch, evaluate, Recipe.build_network, *parts]
    return code_digest(*roots, *([native.train_epoch] if recipe.compiled else []))


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

    A checkpoint is written after every epoch. Called again with the same recipe, data, seed, device, threads, code and
    versions, training resumes after the last finished epoch, with the same bits as if it had never stopped; a run that
    had finished is only read back. Code is the same if its source is, as far as that can be followed, and if the first
    few batches from the seed come out bit for bit as they did. Else the run says so and begins anew, with a record of
    its own: the one that stood in its place is kept beside it. What neither can see is code without a source that acts
    only later, such as a module that changes itself in its fifth epoch, or only on a GPU.

    Args:
        recipe: a Recipe.
        digits: from `load_digits`.
        rung: names the folder of the record, "a07"; recipes other than the one published as a07 go to "a07-own".
        seed: decides weights, order, dropout and augmentation.
        device: "auto" (cuda, then mps, then cpu), "cpu", "cuda" or "mps".
        threads: CPU threads; 0 is what `choose_threads` finds best for the network.
        run_dir: `<run_dir>/<rung>/seed<k>.json` is the record; a relative folder is one of the project.

    Returns: Run.
    Raises: TrainingDiverged; Stopped if interrupted; OSError if the disk is full; DamagedFile for a checkpoint that
        cannot be read; ValueError naming what is wrong with one of the arguments, or if they do not fit each other.
    """
    run_dir = str(run_dir) if isinstance(run_dir, Path) else run_dir
    seed, threads = plain(seed), plain(threads)
    check("fit:", {"recipe": recipe, "digits": digits, "rung": rung}, RULES)
    check_values({"seed": seed, "threads": threads, "run_dir": run_dir})
    require_trainable(recipe, digits)
    device = choose_device(device)
    folder = ROOT / Path(run_dir).expanduser() / folder_of(rung, recipe.as_dict())
    require_writable(folder)
    keep_freed_memory()
    devices = [device] if device.type == "cuda" else []
    with _threads(threads or choose_threads(recipe)), torch.random.fork_rng(devices=devices):
        try:
            return _run(recipe, digits, rung, seed, device, folder)
        except KeyboardInterrupt as stop:
            raise Stopped(str(stop) or "stopped; run the cell again to go on") from None


def _run(recipe, digits, rung, seed, device, folder):
    """What `fit` does once all is known to fit."""
    train_epoch, versions = _choose_trainer(recipe, digits, device, seed)
    splits = _splits(recipe, digits)
    fingerprint, unsaved = _fingerprint_of(recipe, seed, splits, train_epoch)
    train, held_out, test = (split and split.to(device) for split in splits)
    trainee = begin(recipe, seed, device, len(train))
    record = RunRecord(
        rung=rung,
        seed=seed,
        dataset=digits.name,
        dataset_sha256=_sha256_of(digits),
        train_total=len(train),
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
    kept = Checkpoints(folder, record, device)
    if unsaved:
        print(f"Such a run always begins anew: {unsaved} changes in training, and no checkpoint holds that.")
    else:
        kept.resume(trainee)
    with EpochLines(recipe.epochs, math.ceil(len(train) / recipe.batch_size), record.epochs) as lines:
        while len(record.epochs) < recipe.epochs:
            epoch = len(record.epochs) + 1
            try:
                row = run_epoch(trainee, recipe, train, held_out, test, advance=lines.advance, train_epoch=train_epoch)
                _refuse_divergence(row)
                record.epochs.append({"epoch": epoch, **row})
                kept.save(trainee)
            except TrainingDiverged as error:
                kept.write_record()  # unfinished: the epochs before this one
                raise TrainingDiverged(f"epoch {epoch}: {error} What was done is in {kept.path}.") from None
            except KeyboardInterrupt:
                raise Stopped(f"stopped in epoch {epoch}; run the cell again to go on") from None
            lines.show(record.epochs[-1])
    clean = evaluate(trainee.outcome, train, recipe)
    record.finish(clean.correct, clean.total)
    kept.write_record()
    return Run(trainee.outcome.eval(), digits, recipe, record)


def choose_threads(recipe):
    """CPU threads for a network: one for small ones, torch's own number for the others.

    Measured with `train_epoch` on two cores, as images per second of two threads against one: a07 gains a fifth where
    nothing else runs, and falls to a half beside two busy processes, which other runs are, too; d01 with its 257,354
    parameters gains 1.9 times, and falls to three quarters. Several runs side by side use the cores best.
    """
    return 1 if recipe.parameters < SMALL else torch.get_num_threads()


@contextlib.contextmanager
def _threads(count):
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def choose_device(name):
    """The torch device for "auto", "cpu", "cuda" or "mps"; ValueError if unknown, RuntimeError if it is not there."""
    check_values({"device": name})
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(device for device, available in there.items() if available)
    if not there[name]:
        raise RuntimeError(f'device={name!r} is not available on this machine; use device="cpu" or "auto"')
    return torch.device(name)


def _choose_trainer(recipe, digits, device, seed):
    """The function that trains an epoch, and the versions to record; says so where there is no compiled training."""
    versions = describe_versions()
    if not recipe.compiled:
        return training.train_epoch, versions
    reason = native.why_not(recipe, digits, seed) if device.type == "cpu" else f"the device is {device.type}"
    if reason is None:
        return native.train_epoch, versions | {"trainer": COMPILED}
    print(f"Trained with torch, not with the compiled trainer, which is faster on a CPU: {reason}.")
    return training.train_epoch, versions


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
    if not images or not len(digits.test):
        raise ValueError(f"{digits} leave nothing to train or to test on")
    if recipe.held_out and not 0 < kept < images:
        raise ValueError(f"held_out={recipe.held_out} leaves none of {images} training images on one side")
    smallest = kept % recipe.batch_size or min(kept, recipe.batch_size)
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


def _fingerprint_of(recipe, seed, splits, train_epoch):
    try:
        return take_fingerprint(recipe, seed, splits, train_epoch)
    except (TypeError, RuntimeError, AttributeError, LookupError) as error:
        raise ValueError(f"Recipe: network={recipe.network.__name__} fails in its first batches: {error}") from error


def _splits(recipe, digits):
    """Training, held-out and test images; None where nothing is held out."""
    kept = without_held_out(len(digits.train), recipe.held_out)
    held_out = digits.train.last(len(digits.train) - kept) if recipe.held_out else None
    return digits.train.first(kept), held_out, digits.test


def digest_or_reason(recipe):
    """The digest of a recipe's code, or why it has none, which no published run has for a digest."""
    try:
        return recipe_digest(recipe)
    except Untraceable as error:
        return f"{UNTRACEABLE}{error}"


def _sha256_of(digits):
    """The digest of the files of a data set; of its images and labels, if they are as many but not those of MNIST."""
    if digits.name != "mnist" or len(digits.train) != SIZES["mnist"]:
        return digits.sha256
    found = pixels_digest(digits.train, digits.test)
    return digits.sha256 if found == MNIST_PIXELS_SHA256 else found


def _refuse_divergence(row):
    """The last step of an epoch can break the weights after its last loss was seen: do not keep those."""
    broken = [name for name, value in row.items() if not math.isfinite(value)]
    if broken:
        raise TrainingDiverged(
            f"{broken[0]} became {row[broken[0]]} after the last batch, at learning rate {row['learning_rate']:g}. A "
            f"lower learning rate is the usual remedy; the checkpoint of the epoch before is kept."
        )


def keep_freed_memory():
    """Tell glibc to keep freed memory for the next batch: fetching it anew costs a quarter of an epoch."""
    with contextlib.suppress(OSError, AttributeError, TypeError):  # another C library: nothing to tell
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(-3, 2**30)  # M_MMAP_THRESHOLD
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD
