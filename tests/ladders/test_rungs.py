"""What a rung tells of itself, and what its ladder asks of it."""

import json
import shutil
from dataclasses import replace
from fractions import Fraction as F

import pytest
from scipy import stats
from torch import nn

from lab.batch import executions as notebooks
from lab.ladders import rungs
from lab.ladders.goals import CONSISTENT, LADDERS, Goal
from lab.ladders.measures import Summary
from lab.ladders.rungs import Notebook, Rung, find_notebooks, find_rungs
from lab.run.schema import DamagedFile

GOOD = Summary(
    rung="x",
    headlines=(F("0.994"), F("0.9942")),
    mean=F("0.9941"),
    std=0.0001,
    worst=F("0.994"),
    best_epoch=F("0.995"),
    last5=F("0.9941"),
    final=F("0.994"),
    clean_train=F("0.995"),
    gap=F("0.1"),
    epochs_of_gap=5,
    steady=2,
)


class Dense(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(784, 10))


def rung(name):
    return find_rungs([name])[0]


def with_recipe(name, **changes):
    found = rung(name)
    found.page_recipes[name] = replace(found.recipe, **changes)
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
            "at least 99.4 % held over the last five epochs",
        ),
        (
            Goal(parameters_below=2_000, steady=False, floor=F("0.9935")),
            "fewer than 2,000 parameters, at most 15 epochs, at least 99.4 % on average over the last five epochs, "
            "99.35 % by at least 80 % of seeds",
        ),
        (
            Goal(epochs_at_most=2, steady=False, at_the_end=True),
            "fewer than 8,000 parameters, at most 2 epochs, at least 99.4 % on average after the last epoch",
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
    low = replace(GOOD, mean=F("0.9939"), steady=1)
    assert [name for name, met in rung("a07").checks(low).items() if not met] == ["mean of at least 99.4 %", CONSISTENT]


@pytest.mark.parametrize(
    ("goal", "changes", "missed"),
    [
        (Goal(steady=False), {"steady": 0}, []),
        (
            Goal(steady=False, floor=F("0.9935")),
            {"headlines": (F("0.9936"), *[F("0.9935")] * 3, F("0.993"))},
            [],
        ),
        (
            Goal(steady=False, floor=F("0.9935")),
            {"headlines": (F("0.9936"), F("0.9935"), F("0.9935"), F("0.993"))},
            ["99.35 % by at least 80 % of seeds"],
        ),
        (Goal(steady=False, at_the_end=True), {"final": F("0.994"), "mean": F("0.99")}, []),
        (Goal(steady=False, at_the_end=True), {"final": F("0.9939"), "mean": F("0.995")}, ["mean of at least 99.4 %"]),
    ],
    ids=["mean alone", "floor reached", "floor missed", "end reached", "end missed"],
)
def test_other_goals(goal, changes, missed):
    checks = goal.checks(rung("a07").recipe, replace(GOOD, **changes))
    assert [name for name, met in checks.items() if not met] == missed


@pytest.mark.parametrize(
    ("goal", "changes", "words"),
    [
        (Goal(), {}, "held by 2 of 2 seeds (not shown)"),
        (Goal(), {"steady": 1}, "**missed** (not shown): held by 1 of 2 seeds (2 are needed)"),
        (Goal(), {"mean": F("0.99382"), "steady": 0}, "**missed** by 2 images (not shown), held by 0 of 2 seeds"),
        (Goal(), {"mean": F("0.99389"), "steady": 0}, "**missed** by 1 image (not shown), held by 0 of 2 seeds"),
        (Goal(), {"mean": F("0.99397")}, "**missed** by less than one image (not shown), held by 2 of 2 seeds"),
        (
            Goal(parameters_below=6_000, epochs_at_most=14),
            {},
            "**missed**: too many parameters, too many epochs, held by 2 of 2 seeds",
        ),
        (Goal(steady=False), {"steady": 0}, "met (not shown)"),
        (Goal(steady=False, accuracy=F("0.9965")), {}, "**missed** by 24 images (shown)"),
        (Goal(steady=False, floor=F("0.9935")), {}, "met (not shown): 99.35 % by 2 of 2 seeds"),
        (Goal(steady=False, floor=F("0.9941")), {}, "**missed** (not shown): 99.41 % by 1 of 2 seeds (2 are needed)"),
        (Goal(steady=False, at_the_end=True), {"mean": 0.9}, "met (not shown)"),
        (Goal(), {"headlines": (F("0.994"),), "steady": 1}, "held by 1 of 1 seed (not shown)"),
    ],
)
def test_a_verdict_in_words(goal, changes, words):
    assert goal.verdict(rung("a07").recipe, replace(GOOD, **changes)) == words


def verdict_of(accuracies, steady):
    accuracies = tuple(map(F, accuracies))
    mean = sum(accuracies) / len(accuracies)
    return Goal().verdict(rung("a07").recipe, replace(GOOD, headlines=accuracies, mean=mean, steady=steady))


@pytest.mark.parametrize(("n", "word"), [(16, "not shown"), (17, "shown")])
def test_it_takes_seventeen_seeds_without_a_miss_to_show_eight_of_ten(n, word):
    """With n of n, the lower end of the exact 95 % interval is the n-th root of 0.025: above 0.8 from 17 on."""
    assert (0.025 ** (1 / n) > 0.8) == (word == "shown")
    assert verdict_of(["0.9948", "0.9952"] * (n // 2) + ["0.9950"] * (n % 2), n) == f"held by {n} of {n} seeds ({word})"


def test_a_mean_that_other_seeds_may_turn_is_not_shown():
    accuracies = ["0.9930", "0.9952"] * 10
    assert stats.ttest_1samp([*map(float, accuracies)], 0.994).pvalue > 0.05
    assert verdict_of(accuracies, 20).endswith("held by 20 of 20 seeds (not shown)")


@pytest.mark.parametrize(("steady", "word"), [(11, "shown"), (13, "not shown")])
def test_a_miss_is_shown_by_the_share_of_seeds_alone(steady, word):
    assert (stats.binomtest(steady, 20).proportion_ci().high < 0.8) == (word == "shown")
    words = f"**missed** ({word}): held by {steady} of 20 seeds (16 are needed)"
    assert verdict_of(["0.9948", "0.9952"] * 10, steady) == words


def test_a_verdict_names_a_dense_layer():
    found = with_recipe("b10", network=Dense, arguments={})
    assert found.goal.verdict(found.recipe, GOOD) == "**missed**: a `Linear` layer, held by 2 of 2 seeds"


def test_the_last_rung_with_a_source_ends_its_tutorial():
    assert [found.id for found in find_rungs() if found.ends_tutorial] == ["a07", "b10", "c06", "d06"]


def test_reading_order_begins_with_the_map_and_ends_with_all():
    names = [notebook.id for notebook in find_notebooks()]
    assert (names[0], names[-3:]) == ("00", ["97", "98", "99"])
    assert names[1:-3] == sorted(names[1:-3])


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


# ------------------------------------------------------------------------------- what readers put beside them

BADGE = '<a href="https://colab.research.google.com/x.ipynb" target="_parent"><img src="x.svg" alt="Colab"/></a>'
A_RECIPE = "recipe = utils.Recipe(network=model.TwoLayerHead)"
NETWORK = """
from scipy import stats
from torch import nn
class Tiny(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10))
"""


def write(path, *cells):
    """A notebook of pairs of a tag, or "markdown", and a source."""
    made = [
        {"cell_type": "markdown" if tag == "markdown" else "code", "metadata": {"tags": [tag]}, "source": text}
        for tag, text in cells
    ]
    path.write_text(json.dumps({"cells": made, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}), encoding="utf-8")
    return path


@pytest.fixture
def folder(monkeypatch, tmp_path):
    """A folder of notebooks that begins with the map and a07."""
    for name in ("00", "a07"):
        shutil.copy(find_notebooks([name])[0].path, tmp_path)
    monkeypatch.setattr(rungs, "NOTEBOOKS", tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("cells", "title"),
    [
        ([("markdown", BADGE), ("markdown", "\n# A07 · One cycle\n\n## Target")], "A07 · One cycle"),
        ([("code", "# a comment"), ("markdown", "text\n\n## Zähler #\n")], "Zähler"),
        ([("markdown", "")], "a08_mine"),
        ([], "a08_mine"),
    ],
    ids=["badge", "later", "no heading", "no cells"],
)
def test_a_title_is_the_first_heading_wherever_it_stands(tmp_path, cells, title):
    found = Rung(write(tmp_path / "a08_mine.ipynb", *cells))
    assert found.title == title
    assert found.idea in title


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("epochs: int = 15  # epochs\nseed: int = 1", {"epochs": 15, "seed": 1}),
        ("epochs = 5 * 3\nseed = 1", {"epochs": 15, "seed": 1}),
        ("import math\nepochs, seed = 15, 1\nlimit: int", {"epochs": 15, "seed": 1}),
        (
            "#@title Settings\nepochs = 15 #@param {type: 'integer'}\nfor seed in range(2):\n    pass",
            {"epochs": 15, "seed": 1},
        ),
        ("", {}),
    ],
)
def test_defaults_are_what_the_cell_sets(tmp_path, text, values):
    assert Notebook(write(tmp_path / "x.ipynb", ("parameters", text))).defaults() == values


@pytest.mark.parametrize("text", ["epochs =", "!pip install x", "epochs = nothing", "raise SystemExit"])
def test_a_cell_that_cannot_be_run_names_its_notebook(tmp_path, text):
    with pytest.raises(ValueError, match="x.ipynb: the cell tagged 'parameters' cannot be run by itself: "):
        Notebook(write(tmp_path / "x.ipynb", ("parameters", text))).defaults()


def test_notebooks_without_a_number_come_after_the_ladders_under_their_whole_name(folder):
    (folder / "ladder").mkdir()
    for name in ("Untitled", "Meine Übung 🙂", "ladder/Untitled", "my_first", "my_second", "._a07", "_x"):
        (folder / f"{name}.ipynb").touch()
    names = [notebook.id for notebook in find_notebooks()]
    assert names[:2] == ["00", "a07"]
    assert set(names[2:]) == {"Untitled", "Meine Übung 🙂", "ladder-Untitled", "my_first", "my_second", "_x"}
    assert [rung.id for rung in find_rungs()] == ["a07"]


def test_a_network_may_be_a_class_in_a_cell_of_its_own(folder):
    cells = [("code", "%matplotlib inline"), ("code", NETWORK + "print(undefined)")]
    recipe = ("recipe", "recipe = utils.Recipe(network=Tiny, epochs=epochs)")
    write(folder / "a08_mine.ipynb", ("parameters", "epochs = 3"), *cells, recipe)
    found = find_rungs()[-1]
    assert (found.id, found.recipe.epochs, found.recipe.parameters) == ("a08", 3, 90)
    assert found.previous.id == "a07"


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        (None, "is not a notebook"),
        ([], "has 0 cells tagged 'recipe'"),
        ([("recipe", "recipe = utils.Recipe(network=Tiny)")], "NameError: name 'Tiny' is not defined"),
        ([("recipe", "rung = 'a08'")], "sets no recipe"),
        ([("recipe", A_RECIPE), ("ablations", "ablations = {'a07_x': recipe}")], "'a07_x' must be called a08_ and"),
        ([("recipe", "recipe = utils.fit(utils)")], "may use of utils Claim, .*, and not fit"),
        ([("recipe", "recipe = utils.Recipe(network=model.Nothing)")], "AttributeError"),
        ([("recipe", "recipe = utils.Recipe(network=int)")], "a08_mine.ipynb"),
    ],
    ids=[
        "empty file",
        "no cells",
        "no network",
        "no recipe",
        "foreign ablation",
        "more of utils",
        "unknown network",
        "no module",
    ],
)
def test_a_rung_that_cannot_be_trained_is_named_and_keeps_no_other_from_anything(folder, cells, reason):
    path = folder / "a08_mine.ipynb"
    path.touch() if cells is None else write(path, *cells)
    with pytest.warns(UserWarning, match=f"left out: .*a08_mine.ipynb.*{reason}|left out: .*{reason}"):
        assert [rung.id for rung in find_rungs()] == ["a07"]
    assert [notebook.id for notebook in find_notebooks()] == ["00", "a07", "a08"]
    with pytest.raises(Exception, match="a08_mine.ipynb|parameters"):
        _ = find_rungs(["a08"])[0].recipe.parameters
    assert notebooks._cost(Rung(path)) == 0


def test_only_rungs_are_trained():
    assert [notebook.id for notebook in find_notebooks(["00", "a05"])] == ["00", "a05"]
    with pytest.raises(ValueError, match="00: not a rung"):
        find_rungs(["00", "a05"])


@pytest.mark.parametrize(
    ("text", "field"), [("{", "Expecting"), ("{}", "'cells'"), ('{"cells": 1, "metadata": {}}', "cells must")]
)
def test_a_damaged_notebook_is_named(tmp_path, text, field):
    path = tmp_path / "a05.ipynb"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DamagedFile, match=f"{path} is not a notebook: .*{field}"):
        _ = Notebook(path).title
