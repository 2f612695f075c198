"""Checks of what papermill or a reader puts into a notebook's parameters cell."""

import ast

from lab.data import SOURCES

DEVICES = ("auto", "cpu", "cuda", "mps")
INJECTED = "# Parameters"  # first line of the cell that papermill inserts

# name: (type, test, what is expected); one row per line of the parameters cell
RULES = {
    "epochs": (int, lambda value: value >= 1, "a whole number of at least 1"),
    "seed": (int, lambda value: 0 <= value < 2**63, "a whole number of at least 0"),
    "dataset": (str, lambda value: value in SOURCES, f"one of {', '.join(SOURCES)}"),
    "train_limit": (int, lambda value: value >= 0, "a whole number of at least 0 (0 takes all images)"),
    "device": (str, lambda value: value in DEVICES, f"one of {', '.join(DEVICES)}"),
    "threads": (int, lambda value: value >= 0, "a whole number of at least 0 (0 keeps torch's setting)"),
    "run_dir": (str, lambda value: value != "", "the name of a folder"),
}


def check_parameters(namespace):
    """Refuse parameters that are misspelt or of the wrong type or range, before anything runs.

    Args:
        namespace: the notebook's `globals()`.

    Raises: ValueError naming the parameter, its value and what is expected.
    """
    names = _injected_names(namespace) | (set(RULES) & set(namespace))
    check_values({name: namespace[name] for name in sorted(names)})


def check_values(values):
    """As `check_parameters`, for a dictionary of some parameters and their values."""
    for name, value in values.items():
        if name not in RULES:
            raise ValueError(f"parameter {name}={value!r} does not exist; the parameters are {', '.join(RULES)}")
        kind, test, expected = RULES[name]
        if type(value) is not kind or not test(value):
            raise ValueError(f"parameter {name}={value!r} must be {expected}")


def _injected_names(namespace):
    """Names that papermill's cell assigns, read from the cells that have run."""
    cells = [ast.parse(cell) for cell in namespace.get("In", []) if cell.startswith(INJECTED)]
    assignments = [node for cell in cells for node in cell.body if isinstance(node, ast.Assign)]
    return {target.id for node in assignments for target in node.targets}
