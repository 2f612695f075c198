"""The record of one run: what it was, and the results of every epoch."""

import hashlib
import json
import platform
import statistics
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Annotated

import torch

from lab.run.schema import SCHEMAS, object_schema, read_json, schema_of
from lab.training.data import SIZES
from lab.training.recipe import without_held_out

LAST = 5  # the headline is the mean over this many last epochs
TARGET = Fraction("0.994")
TEST_IMAGES = 10_000
UNTRACEABLE = "untraceable: "  # precedes the reason, in place of a digest
RUN_RECORD = "run record"  # a kind of file
OUTCOME = ("epochs", "clean_train", "errors")  # how the fields begin that say what came of a run
COMPILED = "lab/native"  # names the trainer among the versions of a run that it made

RECIPE = schema_of({"network": str, "epochs": int, "held_out": float})
EPOCH = object_schema(
    {
        "epoch": {"type": "integer", "minimum": 1},
        "learning_rate": schema_of(float),
        **{f"{split}_{count}": schema_of(int) for split in ("train", "test") for count in ("correct", "total")},
        **{f"{split}_loss": schema_of(float) for split in ("train", "test")},
    },
    {f"{split}_{count}": schema_of(int) for split in ("held_out", "clean_train") for count in ("correct", "total")}
    | {f"{split}_loss": schema_of(float) for split in ("held_out", "clean_train")}
    | {f"{split}_seconds": schema_of(float) for split in ("train", "held_out", "test", "clean_train")},
    additionalProperties=False,
)
EPOCHS = {"type": "array", "items": EPOCH}


def describe_versions():
    return {"python": platform.python_version(), "torch": torch.__version__}


@dataclass(kw_only=True)
class RunRecord:
    """Everything about one run that a reader may want to check.

    `epochs` holds a row per epoch: losses are means per image in nats, seconds are wall-clock.
    `clean_train_correct` counts the training images that the final network classifies correctly in eval mode
    and without augmentation, `errors` are the test images that it gets wrong, by index; both are None until the run has
    finished. `fingerprint` is of the run's first batches, see `lab.run.fingerprint`. Records of earlier code have
    neither errors nor fingerprint.
    """

    rung: str
    seed: int
    dataset: str
    dataset_sha256: str
    train_total: int
    parameters: int
    recipe: Annotated[dict, RECIPE]
    code_digest: str
    device: str
    threads: int
    versions: dict[str, str]
    epochs: Annotated[list, EPOCHS] = field(default_factory=list)
    clean_train_correct: int | None = None
    clean_train_total: int | None = None
    fingerprint: str | None = field(default=None, metadata={"optional": True})
    errors: list[int] | None = field(default=None, metadata={"optional": True})

    def finish(self, correct, total, errors):
        self.clean_train_correct, self.clean_train_total, self.errors = correct, total, errors

    def key(self):
        """Twelve hex digits over all that decides the bits of the run: equal keys, equal numbers."""
        identity = {name: value for name, value in asdict(self).items() if not name.startswith(OUTCOME)}
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12]

    def to_json(self):
        """JSON with one epoch per line, so that two records can be compared by eye and by git."""
        values = asdict(self)
        left_out = {"epochs"} if self.errors is not None else {"epochs", "errors"}
        lines = [f'"{name}": {json.dumps(values[name])}' for name in values if name not in left_out]
        rows = ",\n  ".join(json.dumps(row) for row in self.epochs)
        return "{" + ",\n ".join([*lines, f'"epochs": [\n  {rows}]']) + "}\n"

    @classmethod
    def read(cls, path):
        """The record in a file; DamagedFile, naming file and field, if it is not one."""
        return cls(**read_json(Path(path), RUN_RECORD))

    # accuracies are exact, so that whatever is rounded is rounded once, from whole counts

    @property
    def test_accuracies(self):
        return [Fraction(row["test_correct"], row["test_total"]) for row in self.epochs]

    @property
    def last5(self):
        return statistics.mean(self.test_accuracies[-LAST:])

    @property
    def best(self):
        return max(self.test_accuracies)

    @property
    def final(self):
        return self.test_accuracies[-1]

    @property
    def clean_train(self):
        """After the last epoch."""
        return Fraction(self.clean_train_correct, self.clean_train_total)

    @property
    def clean_accuracies(self):
        """Clean training accuracy after each of the last five epochs; after the last one alone in shorter runs, and in
        those of earlier code."""
        rows = [row for row in self.epochs[-LAST:] if "clean_train_correct" in row]
        if len(rows) < LAST:
            return [self.clean_train]
        return [Fraction(row["clean_train_correct"], row["clean_train_total"]) for row in rows]

    @property
    def gap(self):
        """Clean training accuracy minus test accuracy, the mean over the epochs of `clean_accuracies`."""
        clean = self.clean_accuracies
        return statistics.mean(clean) - statistics.mean(self.test_accuracies[-len(clean) :])

    @property
    def steady(self):
        """Whether each of the last epochs reached the target."""
        return min(self.test_accuracies[-LAST:]) >= TARGET

    @property
    def last_epochs(self):
        """What `last5` is the mean of, in words."""
        done = len(self.epochs)
        return {0: "no epoch", 1: "its only epoch"}.get(done, f"the last {'five' if done >= LAST else done} epochs")

    @property
    def data(self):
        """The data it was trained on, in a few words: "mnist", or "sample (512 images)" if not all of it."""
        whole = without_held_out(SIZES.get(self.dataset, 0), self.recipe["held_out"])
        return self.dataset if self.train_total == whole else f"{self.dataset} ({self.train_total:,} images)"

    @property
    def conditions(self):
        """How it was made, in a few words: "sample, 3 epochs"."""
        count = len(self.epochs)
        return f"{self.data}, {count} epoch{'s' if count != 1 else ''}"

    @property
    def train_seconds(self):
        return statistics.median(row["train_seconds"] for row in self.epochs)


SCHEMAS[RUN_RECORD] = schema_of(RunRecord)
SCHEMAS["list of epochs"] = EPOCHS
SCHEMAS["file of errors"] = schema_of(dict[str, list[int]])
SCHEMAS["file of results"] = schema_of({"rung": str, "recipe": dict, "runs": list[RunRecord]})
