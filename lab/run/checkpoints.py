"""The files of a run between epochs: its record, and all that it needs to go on."""

import io
import math
import zipfile
from dataclasses import asdict, replace

import torch

from lab.files import write_atomically
from lab.run.machine import SMALL
from lab.run.record import RunRecord
from lab.run.same_bits import equal_digests
from lab.run.schema import DamagedFile, require


class Checkpoints:
    """The files of one run: `seed<k>.json` its record, `seed<k>-<key>.checkpoint` all that it needs to go on.

    Args:
        folder: of the records of its recipe.
        record: a RunRecord without epochs; its key names the checkpoint.
        device: of the trainee.
    """

    def __init__(self, folder, record, device):
        self.folder, self.record, self.device = folder, record, device
        self.trail = []  # of small networks: their weights before training and after every epoch, see `note`
        self.path = folder / f"seed{record.seed}.json"
        self.checkpoint = self._checkpoint_of(record)

    def resume(self, trainee, *, unsaved=None):
        """Resume the run where this code, or earlier code shown to give the same bits, left it.

        A message says if there is nothing to resume and another run is about to lose its place, or if the run has to
        start again because of what no checkpoint holds, named by `unsaved`.
        Returns: number of epochs resumed. Raises: DamagedFile naming a checkpoint that cannot be read.
        """
        if unsaved:
            print(f"Such a run always begins anew: {unsaved} changes in training, and no checkpoint holds that.")
            return 0
        equal = sorted(equal_digests(self.record.rung, self.record.code_digest) - {self.record.code_digest})
        paths = [self.checkpoint, *(self._checkpoint_of(replace(self.record, code_digest=code)) for code in equal)]
        path = next((path for path in paths if path.exists()), None)
        if path is not None:
            self._load(trainee, path)
            return len(self.record.epochs)
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
        return 0

    def note(self, trainee):
        """Keep the weights of a small network as they are now, and the average of them if there is one.

        A trail has no gaps: a run that goes on from a checkpoint without one stays without.
        """
        if len(self.trail) != len(self.record.epochs):
            return
        networks = [trainee.network, trainee.outcome] if trainee.average else [trainee.network]
        parts = [[part.detach().flatten() for part in network.parameters()] for network in networks]
        if sum(map(len, parts[0])) < SMALL:
            self.trail.append(torch.stack([torch.cat(each).float().cpu() for each in parts]))

    def save(self, trainee):
        """Save the trainee and its epochs."""
        state = {name: part.state_dict() for name, part in vars(trainee).items() if part is not None}
        state["trail"] = self.trail
        state |= {"random": torch.get_rng_state(), "epochs": self.record.epochs, "name": self.checkpoint.name}
        if self.device.type != "cpu":
            state["device_random"] = getattr(torch, self.device.type).get_rng_state()
        buffer = io.BytesIO()
        torch.save(state, buffer)
        write_atomically(self.checkpoint, buffer.getvalue())

    def write_record(self):
        """Write the record in its place; that of another run, if there is one, is kept beside it."""
        other = self._standing()
        if self.path.exists() and other is None:
            self.path.replace(self.path.with_name(f"{self.path.stem}-unreadable.json"))
        elif other and other.key() != self.record.key():
            self.path.replace(self._aside(other))
        write_atomically(self.path, self.record.to_json())
        self._aside(self.record).unlink(missing_ok=True)  # it has its place again

    def _standing(self):
        """The record now in the place of this one, of this run or another; None if none can be read."""
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
            self.trail = state.get("trail", [])
        except Exception as error:  # of a dozen kinds, depending on what is wrong with the bytes
            reason = str(error).partition("\n")[0] or type(error).__name__
            if isinstance(error, zipfile.BadZipFile):
                reason = "it is cut short, or something else altogether"
            raise DamagedFile(
                f"{path} is not a checkpoint of this run: {reason}. Delete it to train from the start"
            ) from error
        self.record.epochs.extend(state["epochs"])


def _differences(one, other):
    """How two runs differ, in words, the most telling first."""
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
