"""Every reading of the test set for ladder E, against the files of its runs."""

import json

import numpy as np
import pytest

from lab.files import ROOT
from lab.ladders.rungs import find_rung
from lab.run.results import RESULTS
from lab.search import readings
from lab.search.readings import READINGS, readings_of

LISTED = json.loads(READINGS.read_text())


def accuracies(reading, *, at_the_end):
    """In percent, one per seed: of the last epoch, or the mean over the last five."""
    runs = json.loads((RESULTS / reading["folder"] / f"{reading['name']}.json").read_text())["runs"]
    tested = np.array([[row["test_correct"] / 100 for row in run["epochs"]] for run in runs])
    return tested[:, -1] if at_the_end else tested[:, -5:].mean(1)


@pytest.mark.parametrize(("question", "count"), [("e01", 4), ("e02", 7), ("e03", 8), ("e04", 5), ("e05", 4)])
def test_all_readings_of_a_question_are_told(question, count):
    table, listed = readings_of(question), [one for one in LISTED if one["question"] == question]
    assert len(table) == len(listed) == count
    assert table["tested"].is_monotonic_increasing
    for (_, row), reading in zip(table.iterrows(), listed, strict=True):
        found = accuracies(reading, at_the_end=find_rung(question).goal.at_the_end)
        assert row["test accuracy, %"].startswith(f"{found.mean():.2f} ± {found.std(ddof=1):.2f} (n={len(found)})")
        checks = []
        if reading["mean_at_least"]:
            checks.append(found.mean() >= reading["mean_at_least"] - 1e-9)
        if reading["most_seeds_at_least"]:
            checks.append((found >= reading["most_seeds_at_least"] - 1e-9).mean() >= 0.8)
        assert row["target met"] == ({True: "yes", False: "no"}[all(checks)] if checks else "–")


def test_every_file_of_earlier_runs_is_told():
    """A file that is published, or was, and that no list names, would be a reading that nobody is told of."""
    told = {(one["folder"], one["name"]) for one in LISTED}
    earlier = {("earlier", path.stem) for path in (ROOT / "results" / "earlier").glob("*.json")}
    assert earlier | {("", path.stem) for path in RESULTS.glob("e*.json")} == told


def test_a_second_opinion_is_that_of_the_same_recipe_on_held_out_images(tmp_path, monkeypatch):
    correct = {"e03": [[9900, 9940], [9800, 9950]], "e02": [[9000, 9910, 9920, 9930, 9940, 9950]] * 2}
    other = {"parameters": 1, "loss": [0.1], "seconds": 1.0, "code_digest": ""}
    lines = [
        json.dumps({"settings": {"rung": name}, "seed": seed, "correct": found} | other)
        for name, runs in correct.items()
        for seed, found in enumerate(runs)
    ]
    monkeypatch.setattr(readings, "SECOND_OPINION", tmp_path / "second_opinion.jsonl")
    readings.SECOND_OPINION.write_text("\n".join(lines))
    found = readings_of("e03").set_index("name")["held-out images, %"]
    assert (found["e03"], found["e03_sgd"], found["e03, first round"]) == ("99.45 ± 0.07 (n=2)", "–", "–")
    assert readings_of("e02").set_index("name").loc["e02", "held-out images, %"] == "99.30 ± 0.00 (n=2)"
