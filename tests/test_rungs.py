"""What a rung tells of itself, and what its ladder asks of it."""

import shutil
from dataclasses import replace

import pytest
from torch import nn

from lab import rungs
from lab.ladders import CONSISTENT, LADDERS, Goal
from lab.results import Summary
from lab.rungs import Notebook, find_notebooks, find_rungs
from lab.schema import DamagedFile

GOOD = Summary(
    rung="x",
    headlines=(0.994, 0.9942),
    mean=0.9941,
    std=0.0001,
    worst=0.994,
    best_epoch=0.995,
    last5=0.9941,
    final=0.994,
    clean_train=0.995,
    consistent=True,
)


class Dense(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(784, 10))


def rung(name):
    return find_rungs([name])[0]


def with_recipe(name, **changes):
    found = rung(name)
    found.recipes[name] = replace(found.recipe, **changes)
    return found


def test_limits_of_the_ladders():
    goals = {letter: ladder.goal for letter, ladder in LADDERS.items()}
    limits = {letter: (goal.parameters_below, goal.epochs_at_most) for letter, goal in goals.items()}
    assert limits == {"a": (8_000, 15), "b": (20_000, 19), "c": (8_000, 15), "d": (8_000, 15), "e": (8_000, 15)}
    assert [rung(name).goal.parameters_below for name in ("c01", "c02", "a00")] == [10_000, 8_000, 8_000]


@pytest.mark.parametrize(
    ("goal", "text"),
    [
        (
            Goal(linear_layers=False),
            "fewer than 8,000 parameters, at most 15 epochs, no fully connected layer, "
            "at least 99.4% held over the last five epochs",
        ),
        (
            Goal(parameters_below=2_000, held=False, floor=0.9935),
            "fewer than 2,000 parameters, at most 15 epochs, at least 99.4% on average over the last five epochs, "
            "99.35% by at least 80 % of seeds",
        ),
        (
            Goal(epochs_at_most=2, held=False, at_the_end=True),
            "fewer than 8,000 parameters, at most 2 epochs, at least 99.4% on average after the last epoch",
        ),
    ],
    ids=["held", "floor", "at the end"],
)
def test_a_goal_in_words(goal, text):
    assert str(goal) == text


@pytest.mark.parametrize(
    ("found", "missed"),
    [
        (rung("a07"), []),
        (rung("b10"), []),
        (rung("c01"), []),
        (rung("a00"), ["parameters"]),
        (with_recipe("a07", epochs=16), ["epochs"]),
        (with_recipe("b10", network=Dense, arguments={}), ["no `Linear` layer"]),
        (with_recipe("a07", network=Dense, arguments={}), []),
    ],
    ids=["a07", "b10", "c01", "size", "epochs", "dense in b", "dense in a"],
)
def test_checks_of_the_recipe(found, missed):
    assert [name for name, met in found.checks(GOOD).items() if not met] == missed


def test_checks_of_the_results():
    low = replace(GOOD, mean=0.9939, consistent=False)
    assert [name for name, met in rung("a07").checks(low).items() if not met] == ["mean of at least 99.4%", CONSISTENT]


@pytest.mark.parametrize(
    ("goal", "changes", "missed"),
    [
        (Goal(held=False), {"consistent": False}, []),
        (Goal(held=False, floor=0.9935), {"headlines": (0.9936, 0.9935, 0.9935, 0.9935, 0.993)}, []),
        (
            Goal(held=False, floor=0.9935),
            {"headlines": (0.9936, 0.9935, 0.9935, 0.993)},
            ["99.35% by at least 80 % of seeds"],
        ),
        (Goal(held=False, at_the_end=True), {"final": 0.994, "mean": 0.99}, []),
        (Goal(held=False, at_the_end=True), {"final": 0.9939, "mean": 0.995}, ["mean of at least 99.4%"]),
    ],
    ids=["mean alone", "floor reached", "floor missed", "end reached", "end missed"],
)
def test_other_goals(goal, changes, missed):
    checks = goal.checks(rung("a07").recipe, replace(GOOD, **changes))
    assert [name for name, met in checks.items() if not met] == missed


def test_reading_order_begins_with_the_map_and_ends_with_all():
    names = [notebook.id for notebook in find_notebooks()]
    assert (names[0], names[-2:]) == ("00", ["98", "99"])
    assert names[1:-2] == sorted(names[1:-2])


def test_ablations_change_the_recipe_of_their_rung():
    for found in find_rungs():
        names = list(found.recipes)
        assert names[0] == found.id
        assert all(name.startswith(f"{found.id}_") for name in names[1:])
        assert len({str(recipe.as_dict()) for recipe in found.recipes.values()}) == len(names)


def test_a_copy_of_a_notebook_is_not_taken_for_the_rung(monkeypatch, tmp_path):
    for name in ("a05_first", "a05_first-Copy1"):
        shutil.copy(rung("a05").path, tmp_path / f"{name}.ipynb")
    monkeypatch.setattr(rungs, "NOTEBOOKS", tmp_path)
    with pytest.raises(ValueError, match="two notebooks are called a05: a05_first.ipynb and a05_first-Copy1.ipynb"):
        find_notebooks()


def test_only_rungs_are_trained():
    assert [notebook.id for notebook in find_notebooks(["00", "a05"])] == ["00", "a05"]
    with pytest.raises(ValueError, match="00: not a rung"):
        find_rungs(["00", "a05"])


@pytest.mark.parametrize(
    ("text", "field"), [("{", "Expecting"), ("{}", "'cells'"), ('{"cells": 1, "metadata": {}}', "cells must")]
)
def test_a_damaged_notebook_is_named(tmp_path, text, field):
    path = tmp_path / "a05.ipynb"
    path.write_text(text)
    with pytest.raises(DamagedFile, match=f"{path} is not a notebook: .*{field}"):
        _ = Notebook(path).title
