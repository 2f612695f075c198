"""Exercises: the change that a page shows is one that works, and that published runs answer."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

import utils
from lab.ladders.exercises import Exercise
from lab.ladders.rungs import find_rung, find_rungs

EXERCISES = [rung.exercise for rung in find_rungs() if rung.exercise]


def test_every_rung_ends_with_an_exercise():
    assert [exercise.rung.id for exercise in EXERCISES] == [rung.id for rung in find_rungs()]


@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda exercise: exercise.rung.id)
def test_the_change_trains_as_the_text_gives_it(exercise, tmp_path):
    recipe = replace(exercise.recipe, epochs=1)
    digits = utils.load_digits("sample", train_limit=256)
    run = utils.fit(recipe, digits, rung="x", device="cpu", threads=1, run_dir=tmp_path)
    assert len(run.record.epochs) == 1


@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda exercise: exercise.rung.id)
def test_the_answer_is_that_of_published_runs(exercise):
    name, epochs = exercise.answered_by
    records = utils.load_records(name)
    assert records
    if name != exercise.rung.id:
        assert records[0].recipe == exercise.recipe.as_dict()
    accuracies = np.array([[float(value) for value in record.test_accuracies] for record in records])
    count = 1 if exercise.rung.goal.at_the_end or epochs < accuracies.shape[1] else 5
    assert f"{100 * accuracies[:, epochs - count : epochs].mean():.2f}" in exercise.answer
    assert 0 < exercise.minutes < 300


@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda exercise: exercise.rung.id)
def test_one_line_changes(exercise):
    before, after = Counter(exercise.before), Counter(exercise.after)
    changed = (before - after).total(), (after - before).total()
    assert changed in {(1, 1), (0, 1), (1, 0)}


def test_the_diff_of_a_page_changes_its_recipe():
    found = find_rung("a05").exercise
    assert found.recipe.arguments == {"dropout": 0.1}
    assert replace(found.recipe, arguments={"dropout": 0.03}).as_dict() == found.rung.recipe.as_dict()
    assert found.answered_by == ("a05_dropout", 15)


def test_fewer_epochs_at_a_constant_rate_are_the_beginning_of_more():
    rung = find_rung("a01")
    shorter = Exercise(rung, ("    epochs=epochs,",), ("    epochs=5,",))
    assert shorter.answered_by == ("a01", 5)
    mean = np.mean([float(record.test_accuracies[4]) for record in utils.load_records("a01")])
    count = len(utils.load_records("a01"))
    assert shorter.answer.startswith(f"After 5 epochs the {count} runs of this page are at {100 * mean:.2f} %")
    scheduled = Exercise(find_rung("a08"), ("    epochs=epochs,",), ("    epochs=5,",))
    assert scheduled.answered_by == ("a08_try", 5)
    assert scheduled.answer.startswith("Not run yet")


def test_a_change_that_no_page_trains_has_results_of_its_own():
    rung = find_rung("a01")
    assert list(rung.page_recipes) == ["a01"]
    assert list(rung.recipes) == ["a01", "a01_try"]
    assert rung.recipes["a01_try"].as_dict() == rung.recipe.as_dict() | {"learning_rate": 0.1}
    assert list(find_rung("a08").recipes) == list(find_rung("a08").page_recipes)


def test_lines_that_are_not_there_are_named():
    with pytest.raises(ValueError, match="a01_first_skeleton.ipynb: what the exercise changes stands 0 times"):
        _ = Exercise(find_rung("a01"), ("    epochs=15,",), ()).recipe
