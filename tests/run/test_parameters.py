"""Parameters of a notebook: wrong ones are refused by name and value, and every notebook has the same."""

import ast
import json
import logging

import papermill
import pytest

from lab.ladders.rungs import find_notebooks
from lab.run.parameters import RULES, check_parameters, check_values

VALID = {
    "epochs": 15,
    "seed": 0,
    "dataset": "auto",
    "train_limit": 0,
    "device": "auto",
    "threads": 0,
    "run_dir": "runs",
}
WRONG = [
    ("epochs", 0),
    ("epochs", "abc"),
    ("epochs", 1.0),
    ("epochs", True),
    ("seed", -1),
    ("seed", 2**63),
    ("seed", None),
    ("dataset", "cifar"),
    ("dataset", 1),
    ("train_limit", -1),
    ("train_limit", False),
    ("device", "tpu"),
    ("threads", -2),
    ("threads", "false"),
    ("run_dir", ""),
    ("sed", 3),
]
with_parameters = [notebook for notebook in find_notebooks() if '"parameters"' in json.dumps(notebook.content)]


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_wrong_values_are_named(name, value):
    with pytest.raises(ValueError, match=rf"parameter {name}=.*{value}"):
        check_values({name: value})
    with pytest.raises(ValueError, match=rf"parameter {name}=.*{value}"):
        check_parameters(VALID | {name: value, "In": ["", f"# Parameters\n{name} = {value!r}\n"]})


@pytest.mark.parametrize(
    "changes",
    [{}, {"seed": 2**63 - 1, "epochs": 1, "train_limit": 512}, {"dataset": "sample", "device": "cuda"}, {"threads": 8}],
)
def test_valid_values_pass(changes):
    check_values(changes)
    injected = "\n".join(f"{name} = {value!r}" for name, value in changes.items())
    check_parameters({"In": ["", "sed = 3  # a reader's own", f"# Parameters\n{injected}\n"]} | VALID | changes)
    check_parameters(VALID)  # outside IPython


@pytest.mark.parametrize("notebook", with_parameters, ids=lambda notebook: notebook.id)
def test_cell_papermill_and_rules_agree(notebook, caplog):
    cell = ast.parse(notebook.tagged("parameters"))
    assert [line.target.id for line in cell.body] == list(RULES)
    with caplog.at_level(logging.DEBUG, "papermill"):
        inspected = papermill.inspect_notebook(str(notebook.path))
    assert not [record.message for record in caplog.records if record.levelno >= logging.WARNING]
    assert list(inspected) == list(RULES)
    for name in RULES:
        assert inspected[name]["inferred_type_name"] == type(VALID[name]).__name__
        assert inspected[name]["help"]
    assert notebook.defaults() | {"epochs": VALID["epochs"]} == VALID  # a ladder's epochs are its own
