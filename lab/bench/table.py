"""`make bench`: rounds alternate between contestants, every measurement is a process of its own, medians count."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

from lab.bench.contestants import RECIPE
from lab.bench.meter import SECONDS
from lab.files import write_atomically
from lab.pages.probes import multiply_accumulates
from lab.pages.speed import KEPT, compare_speeds
from lab.training.data import load_digits

ROUNDS = 3
ONE = "one"
WORKERS = (0, 1, 2, 4)  # of the originals' DataLoader; the fastest number competes
SIDE_BY_SIDE = {  # what runs on one thread each, as many as there are cores, but no more than two
    "originals": "the originals' loop, a run on each core",
    "with_torch": "our loop with torch",
    "torch_compile": "our loop with torch.compile",
    "jax": "JAX, jitted",
    "floor": "torch, one ready batch, no dropout",
    "compiled": "compiled",
    "compiled_undistorted": "compiled, no distortions",
    "compiled_bare": "compiled, no distortions, no dropout",
    "arithmetic": "limit of the cores' arithmetic",
}


def bench(peers=None, *, keep=False):
    """Measure and print the table.

    Args:
        peers: the Python of an environment with JAX, if there is one.
        keep: write the measurement to results/bench.json, from where README shows it.
    """
    cores = min(2, os.cpu_count())
    names = [name for name in SIDE_BY_SIDE if peers or name != "jax"]
    machine = f"{cores} cores with {torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__}"
    print(f"{machine}, {ROUNDS} rounds of {SECONDS:.0f} s each, {load_digits()!r}")
    with tempfile.TemporaryDirectory() as folder:
        digits = Path(folder, "digits.npz")
        train = load_digits().train
        np.savez(digits, images=train.images[:, 0].numpy(), labels=train.labels.numpy())
        commands = {name: [sys.executable, "-m", "lab.bench.contestants", name] for name in names}
        if peers:
            commands["jax"] = [peers, str(Path(__file__).with_name("jax_peer.py")), str(digits)]
        original = commands["originals"]
        commands["originals"] = [*original, "0"]
        workers = max(WORKERS, key=lambda count: together([[*original, str(count)]], threads=cores))
        rates = {name: [] for name in (ONE, *names)}
        for _ in range(ROUNDS):
            rates[ONE].append(together([[*original, str(workers)]], threads=cores))
            for name, command in commands.items():
                copies = [[*command, str(core)] if name == "jax" else command for core in range(cores)]
                rates[name].append(together(copies, threads=1))
    rates["arithmetic"] = [rate / work_per_image() for rate in rates["arithmetic"]]
    labels = {ONE: f"the originals' loop, {workers} workers, one run on all cores"} | SIDE_BY_SIDE
    measured = {labels[name]: values for name, values in rates.items()}
    print("\n".join(table(measured)))
    if keep:
        kept = {"machine": machine, "rounds": ROUNDS, "seconds": SECONDS, "rates": measured}
        write_atomically(KEPT, json.dumps(kept, indent=1) + "\n")


def work_per_image():
    """Multiply-accumulates that training on an image takes, convolved directly: forward, and twice as many back."""
    return 3 * multiply_accumulates(RECIPE.specimen())


def table(rates):
    """Lines of the table: `rates` gives images per second of every round; the first and last are compared with."""
    width = max(map(len, rates))
    yield f"\n{'':{width}} images/s   lowest  highest s/60,000  x first  below limit"
    for name, (rate, times, below) in compare_speeds(rates).items():
        spread = f"{min(rates[name]):8,.0f} {max(rates[name]):8,.0f}"
        yield f"{name:{width}} {rate:8,.0f} {spread} {60_000 / rate:8.1f} {times:8.2f} {below:12.2f}"


def together(commands, *, threads):
    """What processes side by side print, a number each, added up: images per second, or seconds."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    settings = {"env": environment, "stdout": subprocess.PIPE, "encoding": "utf-8"}
    started = [subprocess.Popen(command, **settings) for command in commands]
    printed = [process.communicate()[0] for process in started]
    for process in started:
        if process.returncode:
            raise RuntimeError(f"{' '.join(process.args)} failed; what it said is above")
    return sum(map(float, printed))
