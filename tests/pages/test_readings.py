"""Every reading of the test set for ladder E, against the files of its runs."""

import json

import numpy as np
import pytest

from lab.files import ROOT
from lab.pages.readings import READINGS, readings_of
from lab.run.results import RESULTS

LISTED = json.loads(READINGS.read_text())


def accuracies(reading, *, at_the_end):
    """In percent, one per seed: of the last epoch, or the mean over the last five."""
    runs = json.loads((RESULTS / reading["folder"] / f"{reading['name']}.json").read_text())["runs"]
    tested = np.array([[row["test_correct"] / 100 for row in run["epochs"]] for run in runs])
    return tested[:, -1] if at_the_end else tested[:, -5:].mean(1)


@pytest.mark.parametrize(("question", "count"), [("e01", 3), ("e02", 5), ("e03", 8), ("e04", 5)])
def test_all_readings_of_a_question_are_told(question, count):
    table, listed = readings_of(question), [one for one in LISTED if one["question"] == question]
    assert len(table) == len(listed) == count
    assert table["tested"].is_monotonic_increasing
    for (_, row), reading in zip(table.iterrows(), listed, strict=True):
        found = accuracies(reading, at_the_end=question in ("e03", "e04"))
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
