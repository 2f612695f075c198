"""Results survive a code change that changes no number; `python -m lab carry COMMIT` checks that it changes none.

The code at COMMIT and the present code train every recipe once more, for all of its epochs, on part of the bundled
sample. Where losses, counts and final weights agree to the last bit, results/same_bits.json says so, and what was made
with the old code stands. It is a check on little data, not a proof; where it fails, the rung has to run again.
"""

import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lab.files import ROOT
from lab.run.results import TORCH
from lab.run.same_bits import SAME_BITS, note

# run in either tree, so it may only use what has existed since the first results
PROBE = """
import contextlib, dataclasses, hashlib, json, sys
import utils
try:
    from lab.ladders.rungs import find_rungs
    from lab.run.code import recipe_digest
except ModuleNotFoundError:  # before lab/ had rooms
    from lab.fitting import recipe_digest
    from lab.rungs import find_rungs

name, images, run_dir, trainer = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
recipe = {name: recipe for rung in find_rungs() for name, recipe in rung.recipes.items()}[name]
recipe = dataclasses.replace(recipe, compiled=False) if trainer == "torch" else recipe
with contextlib.redirect_stdout(sys.stderr):
    digits = utils.load_digits("sample", train_limit=images)
    run = utils.fit(recipe, digits, rung=name, seed=0, device="cpu", threads=1, run_dir=run_dir)
weights = hashlib.sha256()
for key, value in run.network.state_dict().items():
    weights.update(key.encode() + value.contiguous().numpy().tobytes())
rows = [  # earlier code measures no clean training images before the end
    {key: row[key] for key in row if not key.endswith("seconds") and not key.startswith("clean_train")}
    for row in run.record.epochs
]
bits = {"epochs": rows, "clean_train_correct": run.record.clean_train_correct, "weights": weights.hexdigest()}
print(json.dumps({"digest": recipe_digest(recipe), "bits": bits}))
"""


def carry(names, commit, *, images=512, jobs=2, path=SAME_BITS):
    """Compare the code at a commit with the present code; yield a name, and None or what differs, as each is done.

    Recipes that are compiled now and have runs of torch in results/torch are compared with both trainers.

    Args:
        names: of results, ablations included.
        commit: anything git understands.
        images: of the sample, to train on.
        jobs: recipes at a time, on one thread each.
        path: the file that records what was found equal.

    Raises: ValueError if the commit is unknown; RuntimeError with the last lines of a run that failed.
    """
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(jobs) as pool:
        old = Path(folder) / "old"
        added = _git("worktree", "add", "--detach", str(old), commit)
        if added.returncode:
            raise ValueError(f"commit {commit!r} cannot be checked out: {added.stderr.strip()}")
        try:
            hash_of_old = _git("-C", str(old), "rev-parse", "HEAD").stdout.strip()
            trees = {"old": old, "new": ROOT}
            runs = [(name, "") for name in names]
            runs += [(name, "torch") for name in names if (TORCH / f"{name}.json").exists()]
            pairs = {
                run: {tag: pool.submit(_probe, tree, images, Path(folder) / tag, *run) for tag, tree in trees.items()}
                for run in runs
            }
            for (name, trainer), pair in pairs.items():
                before, after = pair["old"].result(), pair["new"].result()
                difference = _first_difference(before["bits"], after["bits"])
                if difference is None and before["digest"] != after["digest"]:
                    entry = {"rung": name, "old": before["digest"], "new": after["digest"]}
                    note(path, entry | {"commit": hash_of_old, "images": images})
                yield f"{name}, {trainer}" if trainer else name, difference
        finally:
            pool.shutdown(wait=False, cancel_futures=True)  # after an error the remaining runs are pointless
            _git("worktree", "remove", "--force", str(old))


def _probe(tree, images, run_dir, name, trainer):
    command = [sys.executable, "-c", PROBE, name, str(images), f"{run_dir}{trainer}", trainer]
    environment = os.environ | {"PYTHONUTF8": "1"}  # earlier code read files in the locale's encoding
    done = subprocess.run(command, cwd=tree, capture_output=True, encoding="utf-8", env=environment)
    if done.returncode:
        raise RuntimeError(f"{name} failed in {tree}:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def _first_difference(before, after):
    for epoch, (old, new) in enumerate(zip(before["epochs"], after["epochs"], strict=False), start=1):
        for key in old.keys() | new.keys():
            if old.get(key) != new.get(key):
                return f"{key} of epoch {epoch} was {old.get(key)} and is {new.get(key)}"
    return next((f"{key} differs" for key in before if before[key] != after[key]), None)


def _git(*arguments):
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, encoding="utf-8")
