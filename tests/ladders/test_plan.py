"""What a batch has to run: all that results/ lacks, and nothing that it holds."""

from dataclasses import replace

import pytest

from lab.ladders import plan
from lab.ladders.rungs import find_rungs


def rungs(*names):
    return find_rungs(names)


def missing(planned):
    """Recipes and seed of every job."""
    return [("+".join(planned["jobs"][key]["recipes"]), seed) for key, seed in planned["missing"]]


@pytest.fixture
def published(monkeypatch):
    """Seeds with a valid record, by name of the results."""
    found = {}
    monkeypatch.setattr(plan, "_published", lambda name, recipe: found.get(name, set()))
    return found


def test_missing_is_what_is_not_published(published):
    published |= {"a06": {0, 2}, "a06_try": {0, 1, 2}}
    assert missing(plan.plan(rungs("a06"), 4, 1)) == [("a06", 1), ("a06", 3), ("a06_try", 3)]
    assert missing(plan.plan(rungs("a06"), 1, 1)) == []


def test_large_rungs_have_seeds_of_their_own(published):
    assert missing(plan.plan(rungs("a00", "b03"), 2, 1))[:3] == [("a00", 0), ("b03", 0), ("b03", 1)]


def test_a_seed_is_there_when_its_ablations_are(published):
    published |= {"b07": {0, 1}, "b07_no_dropout": {1}, "b07_remeasured": {0}}
    assert missing(plan.plan(rungs("b07"), 2, 1)) == [("b07+b07_no_dropout", 0), ("b07_remeasured", 1)]


def test_ablations_may_have_fewer_seeds_than_their_rung(published):
    """The rung's further seeds are trained alone; one without ablations keeps its notebook."""
    published |= {"b07": {3}}
    planned = plan.plan(rungs("b07"), 4, 1, 1)
    assert missing(planned) == [("b07+b07_no_dropout", 0), ("b07_remeasured", 0), ("b07", 1), ("b07", 2)]
    notebooks = [bool(job["notebook"]) for job in planned["jobs"].values()]
    assert notebooks == [True, False, False]
    assert missing(plan.plan(rungs("b07"), 1, 1, 0)) == [("b07", 0)]
    assert missing(plan.plan(rungs("b07"), 1, 1, 5)) == missing(plan.plan(rungs("b07"), 1, 1))
    planned = plan.plan(rungs("a06"), 2, 1, 0)
    assert missing(planned) == [("a06", 0), ("a06", 1)]
    assert all(planned["jobs"][key]["notebook"] for key, _ in planned["missing"])


def test_plan_says_what_a_job_needs(published):
    planned = plan.plan(rungs("a00", "b02", "b07"), 1, 1)["jobs"]
    assert all(len(key) == 12 for key in planned)
    jobs = {job["recipes"][0]: job for job in planned.values()}
    assert jobs["b07"]["notebook"] == "notebooks/b_no_dense_layer/b07_more_capacity.ipynb"
    assert [jobs[name]["minutes"] for name in ("a00", "b02", "b07")] == [600, 240, 2 * 60]
    assert (jobs["b07_remeasured"]["notebook"], jobs["b07_remeasured"]["minutes"]) == (None, 60)
    assert [job["folder"] for job in planned.values()] == ["a00", "b02", "b07", "b07_remeasured"]
    assert [job["rung"] for job in planned.values()] == ["a00", "b02", "b07", "b07"]


def test_a_recipe_that_is_being_changed_has_a_folder_of_its_own(published):
    (rung,) = rungs("a07")
    for change, folder in ({"epochs": 3}, "a07"), ({"batch_size": 50}, "a07-own"):
        rung.page_recipes["a07"] = replace(rung.recipe, **change)
        assert next(iter(plan.plan([rung], 1, 1)["jobs"].values()))["folder"] == folder


def test_key_follows_the_recipes_of_a_rung_and_nothing_else():
    (rung,) = rungs("b07")
    before = plan.key(rung.page_recipes)
    rung.content["cells"][0]["source"] = ["Another text."]
    assert plan.key(rung.page_recipes) == before
    rung.page_recipes["b07_no_dropout"] = replace(rung.recipes["b07_no_dropout"], learning_rate=0.02)
    assert plan.key(rung.page_recipes) != before
    assert len({plan.key(other.page_recipes) for other in find_rungs()}) == len(find_rungs())


def test_published_are_records_of_the_present_code_only():
    (rung,) = rungs("a05")
    assert {0, 1, 2} <= plan._published("a05", rung.recipe)
    assert plan._published("a05", replace(rung.recipe, epochs=14)) == set()
