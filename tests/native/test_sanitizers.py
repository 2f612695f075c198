"""The C++ reads and writes nothing beside its arrays and does nothing undefined: the compiler's own checks watch it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lab.files import ROOT

CHECKED = "g++ -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer"
RUNTIMES = "libasan.so", "libubsan.so"
TRAIN = """
import sys
from dataclasses import replace

import torch

sys.path.insert(0, "tests/native")
import test_small_networks as small
import test_trainer as other
from lab import compiling
from lab.native import trainer as native
from lab.training.augment import ColorJitter, RandomAffine, RandomRotation
from lab.training.data import load_digits
from lab.training.loop import begin, run_epoch
from lab.training.recipe import Recipe
from lab.search.notation import Notation

compiling.FLAGS = ["-O0" if flag == "-O3" else flag for flag in compiling.FLAGS]  # compiled in a third of the time
CPU, FULL = torch.device("cpu"), load_digits("sample")
TRANSFORMS = (
    (),
    (RandomRotation(180, fill=0.3), RandomAffine(180, 1.0, (0.1, 10), 89, 0.5), ColorJitter(10.0, 10.0)),
    (RandomAffine(180, 1.0, (0.1, 10), 89, 0.5, "bilinear"), RandomRotation(180, interpolation="bilinear")),
    (small.Softer(),),
)
NETWORKS = [(kind, arguments | {"dropout": 0.2}) for kind, arguments in small.NETWORKS.values()]
NETWORKS += [(small.DownToOne, {"dropout": 0.2}), (small.Shifted, {})]
NETWORKS += [(recipe.network, recipe.arguments) for name, recipe in small.SMALL.values() if name in SOME]
NETWORKS += [(Notation, {"layers": layers}) for layers in other.NETWORKS]
METHODS = (
    {"average": 0.9, "weight_decay": 0.1},
    {"optimizer": "Muon", "nesterov": True},
    {"momentum": 0.0},
    {"nesterov": True},
)
for number, (network, arguments) in enumerate(NETWORKS):
    size, settings = (13, 16, 1000, 5)[number % 4], METHODS[number // 4 % 4]
    recipe = Recipe(
        network=network, arguments=arguments, batch_size=size, augmentation=TRANSFORMS[number % 4], **settings
    )
    train, test = FULL.train.first(31), FULL.test.first(67 if number % 3 else 3)
    trainee = begin(recipe, number, CPU, len(train))
    row = run_epoch(trainee, recipe, train, train.first(1), test, native.COMPILED)
    print(network.__name__, size, row["train_loss"], flush=True)
    plain, compiled = replace(recipe, augmentation=()), native.Compiled(trainee.network, size)
    compiled.train(train, torch.arange(3), torch.ones(3, 0, 5), small.at((0.1, 0.9, 1, 5)), plain)
    compiled.masks(3)
print("all of them", len(NETWORKS))
"""
SOME = "a01", "a04", "b03", "b07", "d02", "d02_no_norm", "e02"


def runtimes():
    """The libraries that have to be loaded before all others, or why that cannot be."""
    if sys.platform != "linux" or shutil.which("g++") is None:
        return "needs g++ on Linux"
    found = [
        subprocess.run(["g++", f"-print-file-name={name}"], capture_output=True, check=True).stdout.decode().strip()
        for name in RUNTIMES
    ]
    missing = [path for path in found if not Path(path).is_absolute() or not Path(path).exists()]
    return f"this g++ comes without {' and '.join(missing)}" if missing else [Path(path).resolve() for path in found]


def test_nothing_is_read_or_written_beside_an_array_and_nothing_is_undefined(tmp_path):
    """Every kind of network, pooling, transform and optimiser, with batches of odd sizes and smaller last ones."""
    loaded = runtimes()
    if isinstance(loaded, str):
        pytest.skip(loaded)
    settings = {
        "CXX": CHECKED,
        "XDG_CACHE_HOME": str(tmp_path),
        "LD_PRELOAD": " ".join(map(str, loaded)),
        "ASAN_OPTIONS": "detect_leaks=0",
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "OMP_NUM_THREADS": "1",
    }
    script = f"SOME = {SOME!r}\n{TRAIN}"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=os.environ | settings, capture_output=True)
    said = done.stderr.decode(errors="replace")
    assert done.returncode == 0, said[-6000:]
    assert "all of them" in done.stdout.decode()
    assert "Sanitizer" not in said
    assert "runtime error" not in said
    assert [*tmp_path.glob("mnist-ladders/trainer-*.so")]  # what was watched is what was compiled with these checks
