"""Where a run is kept between epochs, and how the present code proves that it may go on from there.

A run is what it computes. Before anything else, every run trains and measures a few batches from its seed; the bits of
the outcome are its fingerprint, and a checkpoint is taken up only by code with the same one.
So an edited network, block, list or helper is noticed wherever it stands. What a fingerprint cannot see is code that
acts only later, such as a module that changes itself in its fifth epoch, or only on a GPU: it is computed on the CPU.
The digest of the source, see `lab.digest`, counts as well, and may see that.

The same few batches show whether a checkpoint would hold all that the run is made of: what else has changed meanwhile,
a counter, a list, numpy's random numbers, would be lost, and the resumed run would be another one.
"""

import copy
import hashlib
import io
import math
import random
import zipfile
from dataclasses import asdict, replace

import numpy as np
import torch

from lab.carry import equal_digests
from lab.data import pixels_digest
from lab.digest import code_digest, tensor_bytes
from lab.files import write_atomically
from lab.results import RunRecord
from lab.schema import DamagedFile, require
from lab.source import Untraceable
from lab.training import TrainingDiverged, begin, run_epoch

BATCHES, MOST_IMAGES, MEASURED = 3, 1024, 64
NUMPY, PYTHON = "numpy's random numbers", "Python's random numbers"
CODE, TRANSFORMS = "the network's class, or what it uses,", "an augmentation"
# not of the fingerprint: the code has a digest of its own, and random numbers count where they are used
GLOBAL = (NUMPY, PYTHON, CODE, TRANSFORMS)


def take_fingerprint(recipe, seed, splits, train_epoch):
    """Digest of losses, counts, weights and statistics after the first few batches from a seed.

    Args:
        splits: training, held-out (or None) and test images, on the CPU.
        train_epoch: the function that will train.

    Returns: SHA-256, which also covers all images and labels; and, in words, what changed meanwhile that no checkpoint
        would hold, or None.
    """
    found = hashlib.sha256()
    train, held_out, test = splits
    few = min(MOST_IMAGES, len(train), recipe.batch_size * max(1, min(BATCHES, MOST_IMAGES // recipe.batch_size)))
    # a transform may have a state of its own, which only the real run may change
    recipe = replace(recipe, augmentation=copy.deepcopy(recipe.augmentation))
    with torch.random.fork_rng(devices=[]):
        trainee = begin(recipe, seed, torch.device("cpu"), len(train))
        before = _beside_weights(recipe, trainee.network)
        parts = train.first(few), held_out and held_out.first(MEASURED), test.first(MEASURED)
        try:
            row = run_epoch(trainee, recipe, *parts, train_epoch=train_epoch)
        except TrainingDiverged as error:
            row = {"diverged": str(error)}
    found.update(repr([(name, value) for name, value in row.items() if not name.endswith("seconds")]).encode())
    found.update(repr([item for item in before.items() if item[0] not in GLOBAL]).encode())
    for part in (trainee.network, trainee.average):
        for name, value in part.state_dict().items() if part is not None else ():
            found.update(name.encode() + (tensor_bytes(value) if torch.is_tensor(value) else _digest(value).encode()))
    found.update(pixels_digest(*filter(None, splits)).encode())
    after = _beside_weights(recipe, trainee.network)
    return found.hexdigest(), next((name for name in after if after[name] != before.get(name)), None)


def _beside_weights(recipe, network):
    """Digests, by what they are of in words, of all that may act on a run and that no checkpoint holds."""
    state = {NUMPY: np.random.get_state(legacy=False), PYTHON: random.getstate()}  # noqa: NPY002 (what readers use)
    state |= {CODE: (recipe.network, recipe.arguments), TRANSFORMS: recipe.augmentation}
    weights = {id(weight) for weight in network.parameters()}
    for path, module in network.named_modules():
        held = {"_parameters", "_modules", "_buffers", "training"}
        values = {name: value for name, value in vars(module).items() if name not in held}
        values |= {name: module._buffers[name] for name in module._non_persistent_buffers_set}
        for name, value in values.items():
            others = [part for part in value if id(part) not in weights] if isinstance(value, list) else value
            state[f"{path or type(network).__name__}.{name}"] = others  # a GRU lists its weights once more
    return {name: _digest(value) for name, value in state.items()}


def _digest(value):
    """The digest of a value; what cannot be followed counts by its kind alone."""
    try:
        return code_digest(value)
    except Untraceable:
        return f"{type(value).__qualname__}"


class Checkpoints:
    """The files of one run: `seed<k>.json` its record, `seed<k>-<key>.checkpoint` all that it needs to go on.

    Args:
        folder: of the records of its recipe.
        record: a RunRecord without epochs; its key names the checkpoint.
        device: of the trainee.
    """

    def __init__(self, folder, record, device):
        self.folder, self.record, self.device = folder, record, device
        self.path = folder / f"seed{record.seed}.json"
        self.checkpoint = self._checkpoint_of(record)

    def resume(self, trainee):
        """Take up the run where this code, or earlier code that was seen to give the same bits, left it.

        Where there is nothing to take up, and another run is about to give up its place, that is said.
        Raises: DamagedFile naming a checkpoint that cannot be read.
        """
        equal = sorted(equal_digests(self.record.rung, self.record.code_digest) - {self.record.code_digest})
        paths = [self.checkpoint, *(self._checkpoint_of(replace(self.record, code_digest=code)) for code in equal)]
        path = next((path for path in paths if path.exists()), None)
        if path is not None:
            self._load(trainee, path)
            return
        other = self._standing()
        unfinished = sorted(self.folder.glob(f"seed{self.record.seed}-*.checkpoint"))
        if other and other.key() != self.record.key():
            print(
                f"{self.path.name} is of a run with {_differences(other, self.record)}: it will be kept as "
                f"{self._aside(other).name}, and this one trains from the start."
            )
        elif not other and unfinished:
            print(
                f"{unfinished[0].name} is of a run with another recipe, data or code: this one trains from the start."
            )

    def save(self, trainee):
        """Keep the trainee and its epochs."""
        state = {name: part.state_dict() for name, part in vars(trainee).items() if part is not None}
        state |= {"random": torch.get_rng_state(), "epochs": self.record.epochs, "name": self.checkpoint.name}
        if self.device.type != "cpu":
            state["device_random"] = getattr(torch, self.device.type).get_rng_state()
        buffer = io.BytesIO()
        torch.save(state, buffer)
        write_atomically(self.checkpoint, buffer.getvalue())

    def write_record(self):
        """Write the record in its place; that of another run, should one stand there, is kept beside it."""
        other = self._standing()
        if self.path.exists() and other is None:
            self.path.replace(self.path.with_name(f"{self.path.stem}-unreadable.json"))
        elif other and other.key() != self.record.key():
            self.path.replace(self._aside(other))
        write_atomically(self.path, self.record.to_json())
        self._aside(self.record).unlink(missing_ok=True)  # it has its place again

    def _standing(self):
        """The record that stands in the place of this one, of this run or another; None if there is none to read."""
        try:
            return RunRecord.read(self.path) if self.path.exists() else None
        except DamagedFile:
            return None

    def _aside(self, record):
        return self.folder / f"seed{record.seed}-{record.key()}.json"

    def _checkpoint_of(self, record):
        return self._aside(record).with_suffix(".checkpoint")

    def _load(self, trainee, path):
        try:
            content = path.read_bytes()
            if broken := zipfile.ZipFile(io.BytesIO(content)).testzip():
                raise ValueError(f"{broken} has changed since it was written")
            # numbers only, never code
            state = torch.load(io.BytesIO(content), map_location=self.device, weights_only=True)
            for name, part in vars(trainee).items():
                if part is not None:
                    part.load_state_dict(state[name])
            torch.set_rng_state(state["random"].cpu())
            if self.device.type != "cpu":
                getattr(torch, self.device.type).set_rng_state(state["device_random"].cpu())
            _require_epochs(state["epochs"], self.record.recipe["epochs"])
            if state["name"] != path.name:
                raise ValueError(f"it was written as {state['name']}")
        except Exception as error:  # of a dozen kinds, depending on what is wrong with the bytes
            reason = str(error).partition("\n")[0] or type(error).__name__
            if isinstance(error, zipfile.BadZipFile):
                reason = "it is cut short, or something else altogether"
            raise DamagedFile(
                f"{path} is not a checkpoint of this run: {reason}. Delete it to train from the start"
            ) from error
        self.record.epochs.extend(state["epochs"])


def _differences(one, other):
    """What two runs differ in, in words, the most telling first."""
    words = {
        "recipe": "another recipe",
        "dataset": "other data",
        "train_total": "another number of images",
        "code_digest": "other code",
        "fingerprint": "first batches that come out otherwise",
        "device": "another device",
        "threads": "another number of threads",
        "versions": "other versions",
    }
    one, other = asdict(one), asdict(other)
    return ", ".join(word for name, word in words.items() if one[name] != other[name])


def _require_epochs(rows, most):
    require(rows, "list of epochs")
    if [row["epoch"] for row in rows] != [*range(1, len(rows) + 1)]:
        raise ValueError("its epochs are not in order")
    if len(rows) > most:
        raise ValueError(f"it has {len(rows)} epochs, more than the {most} of the recipe")
    if not all(math.isfinite(value) for row in rows for value in row.values()):
        raise ValueError("its epochs hold what is not a finite number")
