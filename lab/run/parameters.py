"""Checks of what papermill or a reader puts into a notebook's parameters cell."""

import ast
import re

from lab.rules import Rule, check, one_of, whole
from lab.training.data import SOURCES

DEVICES = ("auto", "cpu", "cuda", "mps")
INJECTED = "# Parameters"  # first line of the cell that papermill inserts
CONTROL = re.compile(r"[\x00-\x1f\x7f]")
RULES = {  # one row per line of the parameters cell
    "epochs": whole(1, 10_000),
    "seed": whole(0, 2**63 - 1),
    "dataset": one_of(*SOURCES),
    "train_limit": whole(0, 60_000),
    "device": one_of(*DEVICES),
    "threads": whole(0, 1_024),
    "run_dir": Rule(
        "the name of a folder", lambda value: isinstance(value, str) and value != "" and not CONTROL.search(value)
    ),
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
    check("parameter", values, {name: RULES[name] for name in values})


def _injected_names(namespace):
    """Names that papermill's cell assigns, read from the cells that have run."""
    cells = [ast.parse(cell) for cell in namespace.get("In", []) if cell.startswith(INJECTED)]
    nodes = [node for cell in cells for node in ast.walk(cell)]
    return {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
