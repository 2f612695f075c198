"""The published results: what is read from there, and what may be added.

results/<rung>.json holds the runs, results/errors/<rung>.json which test images each of them gets wrong after its last
epoch, by seed; the latter is a file of its own, because nobody reads it by eye.
"""

import json
import math
from dataclasses import replace
from pathlib import Path

from lab.files import ROOT, write_atomically
from lab.run.record import COMPILED, TEST_IMAGES, UNTRACEABLE, RunRecord
from lab.run.same_bits import equal_digests
from lab.run.schema import DamagedFile, read_json
from lab.training.data import MNIST_DIGEST, SIZES
from lab.training.recipe import without_held_out

RESULTS = ROOT / "results"
TORCH = RESULTS / "torch"  # of recipes that are compiled now, when torch trained them
ERRORS = "errors"  # a folder in either
OTHER_RECIPE = "its recipe is not the one in the notebook"


class RefusedRecord(ValueError):
    """A run record that does not belong among the published results."""


def load_records(rung, folder=RESULTS):
    """The published records of a rung in seed order; an empty list if it has none yet.

    Raises: DamagedFile naming the file and what is wrong: no such format, a seed twice, or an impossible run.
    """
    path = Path(folder) / f"{rung}.json"
    if not path.exists():
        return []
    errors = read_errors(rung, folder)
    runs = read_json(path, "file of results")["runs"]
    records = [RunRecord(**run | {"errors": errors.get(str(run["seed"]))}) for run in runs]
    seeds = [record.seed for record in records]
    for record in records:
        reason = why_impossible(record, rung) or ("it is there twice" if seeds.count(record.seed) > 1 else None)
        if reason:
            raise DamagedFile(f"{path}, seed {record.seed}: {reason}. Restore the file from a good copy")
    return records


def read_errors(rung, folder=RESULTS):
    """Which test images each published run gets wrong, as indices, by seed as text; runs of earlier code have none."""
    path = Path(folder) / ERRORS / f"{rung}.json"
    return read_json(path, "file of errors") if path.exists() else {}


def published_recipe(name, folder=RESULTS):
    """The recipe, as a dictionary, that the published runs of a rung or ablation were made with; None without any."""
    path = Path(folder) / f"{name}.json"
    return read_json(path, "file of results")["recipe"] if path.exists() else None


def folder_of(name, recipe, folder=RESULTS):
    """Where the run records of a recipe lie below the run_dir: in the folder of its name, or in "<name>-own".

    The first is reserved for the recipe published under this name, whatever a notebook says now; the number of
    epochs is a parameter of every notebook, and does not count.
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
        held but that was left out.
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
        _write(runs, rung, recipe, Path(folder))
    reasons = {seed: reason for seed, reason in left_out.items() if seed not in kept}
    return [kept[seed] for seed in sorted(kept)], reasons


def _write(runs, rung, recipe, folder):
    """The two files of some runs."""
    errors = [f' "{run.seed}": {json.dumps(run.errors)}' for run in runs if run.errors is not None]
    if errors:
        (folder / ERRORS).mkdir(parents=True, exist_ok=True)
        write_atomically(folder / ERRORS / f"{rung}.json", "{\n" + ",\n".join(errors) + "\n}\n")
    text = ",\n".join(replace(run, errors=None).to_json().strip() for run in runs)
    header = f'{{"rung": {json.dumps(rung)},\n "recipe": {json.dumps(recipe)},\n "runs": [\n'
    write_atomically(folder / f"{rung}.json", header + text + "\n]}\n")


def why_refused(record, rung, recipe, digest):
    """Say in words why a record may not be among the results of a rung, or return None.

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
    """Say in words why a record is not a run of what was published under its name, or return None.

    What was published is in results/, whatever the notebook says now.
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
        "its errors are not those that its last epoch counts": record.errors is None
        or len({*record.errors}) == len(record.errors) == _errors_counted(record),
        "its counts are impossible": all(_counts_are_possible(row, full, record.recipe) for row in record.epochs)
        and (clean or 0) <= record.clean_train_total == full,
    }
    return next((reason for reason, holds in checks.items() if not holds), None)


def _errors_counted(record):
    return record.epochs[-1]["test_total"] - record.epochs[-1]["test_correct"] if record.epochs else 0


def _counts_are_possible(row, train_total, recipe):
    shown = math.ceil(recipe.get("hardest", 1) * train_total) if row["epoch"] > 1 else train_total
    totals = {"train": shown, "held_out": SIZES["mnist"] - train_total, "test": TEST_IMAGES}
    return all(
        row[f"{split}_correct"] <= row[f"{split}_total"] == total
        for split, total in totals.items()
        if f"{split}_total" in row
    )
