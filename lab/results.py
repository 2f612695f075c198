"""Run records: what one training run leaves behind, and the statistics over several of them."""

import hashlib
import json
import platform
import statistics
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from lab.carry import equal_digests
from lab.data import MNIST_DIGEST, ROOT
from lab.files import write_atomically
from lab.recipe import without_held_out
from lab.schema import DamagedFile, read_json

LAST = 5  # the headline is the mean over so many last epochs
TARGET = 0.994
STEADY_SHARE = 0.8  # of the seeds must hold the target in each of the last epochs to call a rung consistent
RESULTS = ROOT / "results"
COMPILED = "lab/native"  # stands as the trainer among the versions of a run that it made


def describe_versions():
    return {"python": platform.python_version(), "torch": torch.__version__}


@dataclass(kw_only=True)
class RunRecord:
    """Everything about one run that a reader may want to check.

    `epochs` holds a row per epoch: losses are means per image in nats, seconds are wall-clock.
    `clean_train_correct` counts the training images that the final network classifies correctly in eval mode
    and without augmentation; it is None until the run has finished.
    """

    rung: str
    seed: int
    dataset: str
    dataset_sha256: str
    train_total: int
    parameters: int
    recipe: dict
    code_digest: str
    device: str
    threads: int
    versions: dict
    epochs: list = field(default_factory=list)
    clean_train_correct: int | None = None
    clean_train_total: int | None = None

    def finish(self, correct, total):
        self.clean_train_correct, self.clean_train_total = correct, total

    def key(self):
        """Twelve hex digits over all that decides the bits of the run: equal keys, equal numbers."""
        identity = {name: value for name, value in asdict(self).items() if not name.startswith(("epochs", "clean_"))}
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12]

    def to_json(self):
        """JSON with one epoch per line, so that two records can be compared by eye and by git."""
        values = asdict(self)
        lines = [f'"{name}": {json.dumps(values[name])}' for name in values if name != "epochs"]
        rows = ",\n  ".join(json.dumps(row) for row in self.epochs)
        return "{" + ",\n ".join([*lines, f'"epochs": [\n  {rows}]']) + "}\n"

    @classmethod
    def read(cls, path):
        """The record in a file; DamagedFile, naming file and field, if it is none."""
        return cls(**read_json(Path(path), "run record"))

    # accuracies are fractions

    @property
    def test_accuracies(self):
        return [row["test_correct"] / row["test_total"] for row in self.epochs]

    @property
    def last5(self):
        return statistics.fmean(self.test_accuracies[-LAST:])

    @property
    def best(self):
        return max(self.test_accuracies)

    @property
    def final(self):
        return self.test_accuracies[-1]

    @property
    def clean_train(self):
        return self.clean_train_correct / self.clean_train_total

    @property
    def held(self):
        """Whether each of the last epochs reached the target."""
        return min(self.test_accuracies[-LAST:]) >= TARGET

    @property
    def train_seconds(self):
        return statistics.median(row["train_seconds"] for row in self.epochs)


class RefusedRecord(ValueError):
    """A run record that does not belong among the published results."""


@dataclass(frozen=True)
class Summary:
    """Statistics over the seeds of one rung; accuracies are fractions."""

    rung: str
    headlines: tuple[float, ...]  # of every seed the mean of its last five epochs, or its last epoch if that counts
    mean: float  # of these
    std: float | None  # of these; None for a single seed
    worst: float  # the lowest of these
    best_epoch: float  # highest accuracy of any epoch and seed: shown, never claimed
    last5: float  # mean over seeds of the mean of the last five epochs
    final: float  # mean over seeds of the last epoch
    clean_train: float
    consistent: bool

    @property
    def n(self):
        return len(self.headlines)

    @classmethod
    def of(cls, records, *, at_the_end=False):
        """Summarise records; `at_the_end` says that the last epoch counts, as in some goals."""
        headlines = [record.final if at_the_end else record.last5 for record in records]
        mean = statistics.fmean(headlines)
        return cls(
            rung=records[0].rung,
            headlines=tuple(headlines),
            mean=mean,
            std=statistics.stdev(headlines) if len(records) > 1 else None,
            worst=min(headlines),
            best_epoch=max(record.best for record in records),
            last5=statistics.fmean(record.last5 for record in records),
            final=statistics.fmean(record.final for record in records),
            clean_train=statistics.fmean(record.clean_train for record in records),
            consistent=mean >= TARGET and sum(r.held for r in records) >= STEADY_SHARE * len(records),
        )


def load_records(rung, folder=RESULTS):
    """The published records of a rung in seed order; an empty list if it has none yet.

    Raises: DamagedFile naming the file and what is wrong: no such format, a seed twice, or a run that cannot be.
    """
    path = Path(folder) / f"{rung}.json"
    if not path.exists():
        return []
    records = [RunRecord(**run) for run in read_json(path, "file of results")["runs"]]
    seeds = [record.seed for record in records]
    for record in records:
        reason = why_impossible(record, rung) or ("it is there twice" if seeds.count(record.seed) > 1 else None)
        if reason:
            raise DamagedFile(f"{path}, seed {record.seed}: {reason}. Restore the file from a good copy")
    return records


def published_recipe(name, folder=RESULTS):
    """The recipe, as a dictionary, that the published runs of a rung or ablation were made with; None without any."""
    path = Path(folder) / f"{name}.json"
    return read_json(path, "file of results")["recipe"] if path.exists() else None


def folder_of(name, recipe, folder=RESULTS):
    """Where the run records of a recipe lie below the run_dir: in the folder of its name, or in "<name>-own".

    The first is kept for the recipe that was published under this name, whatever a notebook says by now; how many
    epochs it is trained for is a parameter of every notebook, and does not count.
    """
    published = published_recipe(name, folder)
    is_own = published is not None and recipe | {"epochs": 0} != published | {"epochs": 0}
    return f"{name}-own" if is_own else name


def merge_records(rung, recipe, digest, run_dir, folder=RESULTS):
    """Add the records in `folder_of(rung, recipe)` to `results/<rung>.json`; a newer one of a seed replaces the older.

    Args:
        recipe: the published recipe as a dictionary.
        digest: code digest of the present code.

    Returns: list of RunRecord, all that the file now holds, and a dictionary with the reason for every seed that it
        held and that was left out.
    Raises: RefusedRecord naming the file and the reason, for a record of other data, recipe or code; DamagedFile;
        FileNotFoundError if there is no folder `run_dir`.
    """
    if not Path(run_dir).is_dir():
        raise FileNotFoundError(f"there is no folder {run_dir} with run records")
    kept, left_out = {}, {}
    for record in load_records(rung, folder):
        if reason := why_refused(record, rung, recipe, digest):
            left_out[record.seed] = reason
        else:
            kept[record.seed] = record
    for path in sorted((Path(run_dir) / folder_of(rung, recipe, folder)).glob("seed*.json")):
        if "-" in path.stem:  # set aside by a later run with the same seed
            continue
        record = RunRecord.read(path)
        reason = why_refused(record, rung, recipe, digest)
        if path.stem != f"seed{record.seed}":
            reason = f"it says that its seed is {record.seed}"
        if reason:
            raise RefusedRecord(f"{path} cannot be published: {reason}")
        kept[record.seed] = record
    if kept:
        runs = [kept[seed] for seed in sorted(kept)]
        text = ",\n".join(run.to_json().strip() for run in runs)
        header = f'{{"rung": {json.dumps(rung)},\n "recipe": {json.dumps(recipe)},\n "runs": [\n'
        write_atomically(Path(folder) / f"{rung}.json", header + text + "\n]}\n")
    reasons = {seed: reason for seed, reason in left_out.items() if seed not in kept}
    return [kept[seed] for seed in sorted(kept)], reasons


def why_refused(record, rung, recipe, digest):
    """Say in words why a record may not stand among the results of a rung, or return None.

    Args:
        recipe: the published recipe as a dictionary.
        digest: code digest of the present code.
    """
    if reason := why_impossible(record, rung):
        return reason
    if record.recipe != recipe:
        return "its recipe is not the one in the notebook"
    if recipe.get("compiled") and record.versions.get("trainer") != COMPILED:
        return "it was trained with torch, and those published with the compiled trainer"
    if record.code_digest not in equal_digests(rung, digest):
        return "the code that decides its numbers has changed since"
    return None


def why_impossible(record, rung):
    """Say in words why a record cannot be that of a finished run of a rung on the full data, or return None."""
    full = without_held_out(60_000, record.recipe["held_out"])
    clean = record.clean_train_correct
    checks = {
        f"it is of rung {record.rung}, not {rung}": record.rung == rung,
        f"it was made on {record.dataset}, not on mnist": record.dataset == "mnist",
        "its data were not those of MNIST": record.dataset_sha256 == MNIST_DIGEST,
        f"it was trained on {record.train_total:,} images, not on {full:,}": record.train_total == full,
        "it has not finished": clean is not None,
        "its epochs are not those of its recipe": [row["epoch"] for row in record.epochs]
        == [*range(1, record.recipe["epochs"] + 1)],
        "its counts cannot be": all(_counts_are_possible(row, full) for row in record.epochs)
        and (clean or 0) <= record.clean_train_total == full,
    }
    return next((reason for reason, holds in checks.items() if not holds), None)


def _counts_are_possible(row, train_total):
    totals = {"train": train_total, "held_out": 60_000 - train_total, "test": 10_000}
    return all(
        row[f"{split}_correct"] <= row[f"{split}_total"] == total
        for split, total in totals.items()
        if f"{split}_total" in row
    )
