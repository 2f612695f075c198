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
TEST_IMAGES = 10_000
STEADY_SHARE = 0.8  # of the seeds must hold the target in each of the last epochs to call a rung consistent
RESULTS = ROOT / "results"
SIZES = {"mnist": 60_000, "sample": 4_000}  # training images
OTHER_RECIPE = "its recipe is not the one in the notebook"
UNTRACEABLE = "untraceable: "  # stands in front of the reason, in place of a digest
COMPILED = "lab/native"  # stands as the trainer among the versions of a run that it made


def describe_versions():
    return {"python": platform.python_version(), "torch": torch.__version__}


@dataclass(kw_only=True)
class RunRecord:
    """Everything about one run that a reader may want to check.

    `epochs` holds a row per epoch: losses are means per image in nats, seconds are wall-clock.
    `clean_train_correct` counts the training images that the final network classifies correctly in eval mode
    and without augmentation; it is None until the run has finished. `fingerprint` is of the run's first batches, see
    `lab.checkpoints`; records of earlier code have none.
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
    fingerprint: str | None = None

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
    held_by: int  # so many seeds reached the target in each of their last epochs

    @property
    def n(self):
        return len(self.headlines)

    @property
    def consistent(self):
        return self.mean >= TARGET and self.held_by >= STEADY_SHARE * self.n

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
            held_by=sum(record.held for record in records),
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
    """Add the records of a recipe, see `folder_of`, to `results/<rung>.json`; a newer one of a seed replaces the older.

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
        return OTHER_RECIPE
    if recipe.get("compiled") and record.versions.get("trainer") != COMPILED:
        return "it was trained with torch, and those published with the compiled trainer"
    if record.code_digest.startswith(UNTRACEABLE):
        return f"its code cannot be followed: {record.code_digest.removeprefix(UNTRACEABLE)}"
    if record.code_digest not in equal_digests(rung, digest):
        return "the code that decides its numbers has changed since"
    return None


def why_not_published(record):
    """Say in words why a record is no run of what was published under its name, or return None.

    What was published stands in results/, whatever the notebook says by now.
    """
    published = load_records(record.rung)
    if not published:
        return f"nothing is published as {record.rung}"
    reason = why_refused(record, record.rung, published_recipe(record.rung), record.code_digest)
    if reason == OTHER_RECIPE:
        return "its recipe is not the published one"
    if reason:
        return reason
    same_code = {other.code_digest for other in published} & equal_digests(record.rung, record.code_digest)
    return None if same_code else "the code that decides its numbers is not the published one"


def why_impossible(record, rung):
    """Say in words why a record cannot be that of a finished run of a rung on the full data, or return None."""
    full = without_held_out(SIZES["mnist"], record.recipe["held_out"])
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
    totals = {"train": train_total, "held_out": SIZES["mnist"] - train_total, "test": 10_000}
    return all(
        row[f"{split}_correct"] <= row[f"{split}_total"] == total
        for split, total in totals.items()
        if f"{split}_total" in row
    )
