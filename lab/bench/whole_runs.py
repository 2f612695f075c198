"""`make bench RUNGS="e03 e04"`: how many seconds their whole runs take on one core, with either trainer.

Every measurement is a process of its own, and rounds alternate between recipes and trainers.
"""

import json
import sys

import torch

from lab.bench.table import together
from lab.files import write_atomically
from lab.ladders.rungs import find_recipe
from lab.native.trainer import train_epoch_compiled
from lab.pages.speed import KEPT_RUNS, seconds_of
from lab.run.machine import keep_freed_memory
from lab.training.data import load_digits
from lab.training.loop import begin, train_epoch

ROUNDS = 3
TRAINERS = {"compiled": train_epoch_compiled, "torch": train_epoch}


def bench_runs(names, *, keep=False):
    """Measure and print the table.

    Args:
        names: of rungs or ablations.
        keep: write the measurement to results/seconds.json, from where pages show it.

    Raises: ValueError naming a recipe that there is not, before anything is measured.
    """
    for name in names:
        find_recipe(name)
    machine = f"one core with {torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__}"
    print(f"{machine}, {ROUNDS} rounds, {load_digits()!r}", flush=True)
    measured = {name: {trainer: [] for trainer in TRAINERS} for name in names}
    for _ in range(ROUNDS):
        for name, by_trainer in measured.items():
            for trainer, seconds in by_trainer.items():
                command = [sys.executable, "-m", "lab.bench.whole_runs", name, trainer]
                seconds.append(round(together([command], threads=1), 3))
    for name, (compiled, plain) in seconds_of(measured).items():
        print(f"{name:20} {compiled:7.2f} s, {plain:7.2f} s with torch, {plain / compiled:5.1f} times as long")
    if keep:
        kept = {"machine": machine, "rounds": ROUNDS, "seconds": measured}
        write_atomically(KEPT_RUNS, json.dumps(kept, indent=1) + "\n")


def train(name, trainer):
    """Seconds that the epochs of a run take, without what is measured between them."""
    recipe, train_images = find_recipe(name), load_digits().train
    torch.set_num_threads(1)
    keep_freed_memory()
    trainee = begin(recipe, 0, torch.device("cpu"), len(train_images))
    return sum(TRAINERS[trainer](trainee, recipe, train_images).seconds for _ in range(recipe.epochs))


if __name__ == "__main__":
    print(train(*sys.argv[1:]))
