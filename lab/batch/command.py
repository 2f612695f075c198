"""The commands `python -m lab run`, which executes notebooks, and `python -m lab train`, which does without."""

import os
import signal
from dataclasses import replace

from lab.batch.executions import run_all
from lab.batch.index import write_index
from lab.batch.outcomes import format_seeds, format_table
from lab.files import require_writable
from lab.ladders.rungs import find_notebooks, find_recipe, find_rung
from lab.run.fit import fit
from lab.run.parameters import check_values
from lab.training.data import load_digits, mnist_folder

NOTES = {
    "sample": "Data: the bundled sample of 5,000 real MNIST digits, a quick look whose accuracies cannot be compared "
    "with those of the full set. The published runs: make run DATASET=mnist",
    "mnist": "Data: the full MNIST. The rungs below 50,000 parameters take minutes each, the largest hours.",
}


def run(options):
    """Execute what the options of the command line ask for; return its exit status."""
    parameters = _parameters(options)
    if options.seeds and "seed" in parameters:
        raise ValueError(
            f"--seeds {options.seeds} and -p seed {parameters['seed']} exclude each other: give one of them"
        )
    notebooks = find_notebooks(options.rungs)
    require_writable(options.run_dir)
    folder = mnist_folder()
    dataset = parameters.pop("dataset", options.dataset)
    if dataset == "auto":
        dataset = "mnist" if folder else "sample"
    if folder:
        os.environ["MNIST_ROOT"] = str(folder)
    elif "MNIST_ROOT" in os.environ:
        print(f"MNIST_ROOT={os.environ['MNIST_ROOT']} does not hold the four files in MNIST/raw", flush=True)
    print(NOTES[dataset], flush=True)
    if dataset == "mnist" and not folder:
        load_digits("mnist")  # before several notebooks fetch the same files at once
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a batch that is terminated ends its kernels too
    parameters |= {"dataset": dataset}
    try:
        outcomes = run_all(notebooks, options.run_dir, parameters, options.jobs, seeds=options.seeds)
    finally:  # also when interrupted
        index = write_index(options.run_dir)
    print(format_table(outcomes))
    if options.seeds:
        print(format_seeds(notebooks, outcomes))
    print(f"\nPages: {index}")
    return int(any(outcome.error for outcome in outcomes))


def train(options):
    """Train one recipe under the name of its results: that of a rung, of an ablation or of an exercise."""
    recipe = find_recipe(options.name)
    values = find_rung(options.name.partition("_")[0]).defaults() | {"epochs": recipe.epochs} | _parameters(options)
    digits = load_digits(values.pop("dataset"), train_limit=values.pop("train_limit"))
    recipe = replace(recipe, epochs=values.pop("epochs"))
    fit(recipe, digits, rung=options.name, **values | {"run_dir": options.run_dir})


def _parameters(options):
    """Those of the notebook's cell that the command line sets."""
    parameters = {name: _literal(value) for name, value in options.parameters}
    check_values(parameters)
    if "run_dir" in parameters:
        raise ValueError(f"parameter run_dir={parameters['run_dir']!r} is set by --run-dir")
    return parameters


def _literal(value):
    """An integer if it reads as one, else the text itself."""
    try:
        return int(value)
    except ValueError:
        return value
