"""A run: what `fit` remembers, resumes, records and shows around the loops of `lab.training`."""

import contextlib
import ctypes
import hashlib
import io
import math
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from lab import native, training
from lab.carry import equal_digests
from lab.data import CLASSES, ROOT, Digits
from lab.digest import code_digest
from lab.files import require_writable, write_atomically
from lab.parameters import check_values
from lab.progress import EpochLines
from lab.recipe import Recipe, without_held_out
from lab.results import COMPILED, RunRecord, describe_versions
from lab.rules import check, is_a, word
from lab.schema import DamagedFile, require
from lab.training import TrainingDiverged, begin, evaluate, predict, run_epoch

RULES = {
    "recipe": is_a(Recipe, "a Recipe"),
    "digits": is_a(Digits, "what load_digits returns"),
    "rung": word(),
}
LATER = ("augmentation",)  # parts of a trainee that checkpoints of earlier code lack, see lab.carry


def recipe_digest(recipe):
    """Digest of the code that decides the numbers of a recipe: the loops, and all that they call."""
    digest = code_digest(begin, run_epoch, evaluate, recipe.network, *map(type, recipe.augmentation))
    return hashlib.sha256((digest + native.source_digest()).encode()).hexdigest() if recipe.compiled else digest


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
    Raises: TrainingDiverged; OSError if the disk is full; DamagedFile for a checkpoint that cannot be read; ValueError
        naming what is wrong with one of the arguments, or if they do not fit each other.
    """
    run_dir = str(run_dir) if isinstance(run_dir, Path) else run_dir
    check("fit:", {"recipe": recipe, "digits": digits, "rung": rung}, RULES)
    check_values({"seed": seed, "threads": threads, "run_dir": run_dir})
    require_trainable(recipe, digits)
    device = choose_device(device)
    folder = ROOT / Path(run_dir).expanduser() / rung
    path = folder / f"seed{seed}.json"
    require_writable(folder)
    if threads:
        torch.set_num_threads(threads)
    keep_freed_memory()
    train, held_out, test = _splits(recipe, digits, device)
    train_epoch, versions = _choose_trainer(recipe, digits, device, seed)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        trainee = begin(recipe, seed, device, len(train))
        record = RunRecord(
            rung=rung,
            seed=seed,
            dataset=digits.name,
            dataset_sha256=digits.sha256,
            train_total=len(train),
            parameters=sum(weight.numel() for weight in trainee.network.parameters()),
            recipe=recipe.as_dict(),
            code_digest=recipe_digest(recipe),
            device=device.type,
            threads=torch.get_num_threads(),
            versions=versions,
        )
        checkpoint, *earlier = _checkpoints(folder, record)
        data = _digest_of(digits)
        _resume(trainee, record, data, [checkpoint, *earlier], device)
        batches = math.ceil(len(train) / recipe.batch_size)
        with EpochLines(recipe.epochs, batches, record.epochs) as lines:
            while len(record.epochs) < recipe.epochs:
                epoch = len(record.epochs) + 1
                try:
                    row = run_epoch(
                        trainee, recipe, train, held_out, test, advance=lines.advance, train_epoch=train_epoch
                    )
                    _refuse_divergence(row)
                except TrainingDiverged as error:
                    write_atomically(path, record.to_json())  # unfinished: the epochs before this one
                    raise TrainingDiverged(f"epoch {epoch}: {error} What was done is in {path}.") from None
                record.epochs.append({"epoch": epoch, **row})
                _save(trainee, record, data, checkpoint, device)
                lines.show(record.epochs[-1])
    clean = evaluate(trainee.outcome, train, recipe)
    record.finish(clean.correct, clean.total)
    write_atomically(path, record.to_json())
    return Run(trainee.outcome.eval(), digits, recipe, record)


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
    try:
        with torch.inference_mode():
            outputs = recipe.specimen()(torch.zeros(2, 1, 28, 28))
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{made} cannot be used on images of 28x28: {error}") from error
    if outputs.shape != (2, CLASSES):
        raise ValueError(f"{made} puts out {tuple(outputs.shape)} for two images, not (2, {CLASSES})")
    if recipe.loss == "nll" and not torch.allclose(outputs.exp().sum(1), torch.ones(2), atol=1e-3):
        raise ValueError(
            f"Recipe: loss='nll' must be 'cross_entropy' for {recipe.network.__name__}, which ends in logits"
        )
    images, kept = len(digits.train), without_held_out(len(digits.train), recipe.held_out)
    if not images or not len(digits.test):
        raise ValueError(f"{digits} leave nothing to train or to test on")
    if recipe.held_out and not 0 < kept < images:
        raise ValueError(f"held_out={recipe.held_out} leaves none of {images} training images on one side")
    if kept % recipe.batch_size == 1:
        raise ValueError(
            f"{kept} training images in batches of {recipe.batch_size} leave one image alone in the last batch, "
            f"which batch normalisation cannot train on; choose another train_limit or batch_size"
        )


def _splits(recipe, digits, device):
    kept = without_held_out(len(digits.train), recipe.held_out)
    held_out = digits.train.last(len(digits.train) - kept).to(device) if recipe.held_out else None
    return digits.train.first(kept).to(device), held_out, digits.test.to(device)


def _digest_of(digits):
    """Digest of the images and labels themselves, which a data set made by hand may have changed."""
    found = hashlib.sha256()
    for split in (digits.train, digits.test):
        found.update(split.images.contiguous().numpy())
        found.update(split.labels.contiguous().numpy())
    return found.hexdigest()


def _refuse_divergence(row):
    """The last step of an epoch can break the weights after its last loss was seen: do not keep those."""
    broken = [name for name, value in row.items() if not math.isfinite(value)]
    if broken:
        raise TrainingDiverged(
            f"{broken[0]} became {row[broken[0]]} after the last batch, at learning rate {row['learning_rate']:g}. A "
            f"lower learning rate is the usual remedy; the checkpoint of the epoch before is kept."
        )


def _checkpoints(folder, record):
    """Where this code keeps the run, then where earlier code that gave the same bits kept it."""
    earlier = equal_digests(record.rung, record.code_digest) - {record.code_digest}
    digests = [record.code_digest, *sorted(earlier)]
    return [folder / f"seed{record.seed}-{replace(record, code_digest=code).key()}.checkpoint" for code in digests]


def _save(trainee, record, data, path, device):
    state = {name: part.state_dict() for name, part in vars(trainee).items() if part is not None}
    state |= {"random": torch.get_rng_state(), "epochs": record.epochs, "name": path.name, "data": data}
    if device.type != "cpu":
        state["device_random"] = getattr(torch, device.type).get_rng_state()
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_atomically(path, buffer.getvalue())


def _resume(trainee, record, data, paths, device):
    """Go on from the first of the checkpoints that is there, if any is."""
    path = next((path for path in paths if path.exists()), None)
    if path is None:
        return
    try:
        content = path.read_bytes()
        if broken := zipfile.ZipFile(io.BytesIO(content)).testzip():
            raise ValueError(f"{broken} has changed since it was written")
        state = torch.load(io.BytesIO(content), map_location=device, weights_only=True)  # numbers only, never code
        for name, part in vars(trainee).items():
            if part is not None and (name in state or name not in LATER):
                part.load_state_dict(state[name])
        torch.set_rng_state(state["random"].cpu())
        if device.type != "cpu":
            getattr(torch, device.type).set_rng_state(state["device_random"].cpu())
        _require_epochs(state["epochs"], record.recipe["epochs"])
        if state.get("name", path.name) != path.name:  # checkpoints of earlier code lack name and data
            raise ValueError(f"it was written as {state['name']}")
        if state.get("data", data) != data:
            raise ValueError("it was trained on other images or labels")
    except Exception as error:  # of a dozen kinds, depending on what is wrong with the bytes
        reason = str(error).partition("\n")[0] or type(error).__name__
        if isinstance(error, zipfile.BadZipFile):
            reason = "it is cut short, or something else altogether"
        raise DamagedFile(
            f"{path} is not a checkpoint of this run: {reason}. Delete it to train from the start"
        ) from error
    record.epochs.extend(state["epochs"])


def _require_epochs(rows, most):
    require(rows, "list of epochs")
    if [row["epoch"] for row in rows] != [*range(1, len(rows) + 1)]:
        raise ValueError("its epochs are not in order")
    if len(rows) > most:
        raise ValueError(f"it has {len(rows)} epochs, more than the {most} of the recipe")
    if not all(math.isfinite(value) for row in rows for value in row.values()):
        raise ValueError("its epochs hold what is not a finite number")


def keep_freed_memory():
    """Tell glibc to keep freed memory for the next batch: fetching it anew costs a quarter of an epoch."""
    with contextlib.suppress(OSError, AttributeError, TypeError):  # another C library: nothing to tell
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(-3, 2**30)  # M_MMAP_THRESHOLD
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD
