"""What several seeds come to, against the records that it is made of."""

import statistics
from dataclasses import replace
from pathlib import Path

import pytest

from lab.batch.outcomes import Outcome, format_outcome, format_seeds, format_table
from lab.ladders.rungs import find_notebooks, find_rungs
from lab.run.results import load_records

PUBLISHED = load_records("a03")


def outcomes(records):
    return [Outcome(r.rung, 1.0, r.final, Path(f"runs/{r.rung}/seed{r.seed}.ipynb"), None, r) for r in records]


def shortened(epochs, records=PUBLISHED, **changes):
    return [
        replace(record, epochs=record.epochs[:epochs], recipe=record.recipe | {"epochs": epochs}, **changes)
        for record in records
    ]


def row_and_remarks(rung, records):
    lines = format_seeds(find_rungs([rung]), outcomes(records)).splitlines()
    return lines[2], lines[3:]


def percent(value):
    return f"{100 * value:.2f}"


@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize(
    ("epochs", "count", "words"),
    [(15, 5, "mean of the last 5 epochs"), (2, 2, "mean of the last 2 epochs"), (1, 1, "after the last epoch")],
)
def test_the_row_of_a_rung_says_what_it_is_the_mean_of(seeds, epochs, count, words):
    records = shortened(epochs)[:seeds]
    values = [statistics.fmean(record.test_accuracies[-count:]) for record in records]
    spread = percent(statistics.stdev(values)) if seeds > 1 else "–"
    published = statistics.fmean(record.last5 for record in PUBLISHED)
    row, remarks = row_and_remarks("a03", records)
    expected = ["a03", words, str(seeds), percent(statistics.fmean(values)), spread, percent(min(values))]
    expected.append(f"{percent(published)} (n={len(PUBLISHED)})")
    assert row.split() == " ".join(expected).split()
    assert remarks == (
        [] if epochs == 15 else [f"a03 was trained for {epochs} of the 15 epochs of the published runs."]
    )


def test_where_the_end_counts_the_end_is_shown():
    records = load_records("e03")
    row, remarks = row_and_remarks("e03", records)
    mean = percent(statistics.fmean(record.final for record in records))
    assert "after the last epoch" in row
    assert row.split()[-2] == row.split()[-5] == mean
    assert remarks == []


@pytest.mark.parametrize(
    ("changes", "remark"),
    [
        ({"dataset": "sample", "train_total": 4000}, "The sample and the full MNIST cannot be compared"),
        ({"train_total": 512}, "a03 was trained on 512 images, not on all"),
        (
            {"recipe": PUBLISHED[0].recipe | {"batch_size": 50}},
            "a03 was trained with a recipe that is not the published",
        ),
    ],
)
def test_what_cannot_be_compared_is_said(changes, remark):
    _, remarks = row_and_remarks("a03", [replace(record, **changes) for record in PUBLISHED])
    assert len(remarks) == 1
    assert remarks[0].startswith(remark)


def test_only_rungs_that_were_trained_have_a_row():
    failed = Outcome("a03", 1.0, None, Path("seed1.ipynb"), "boom")
    assert format_seeds(find_notebooks(["00", "a03", "a05"]), [failed]) == ""
    row = format_seeds(find_notebooks(["00", "a03", "a05"]), [failed, *outcomes(PUBLISHED[:2])]).splitlines()[2]
    assert row.split()[-6] == "2"


def test_every_seed_has_a_line_of_its_own():
    lines = format_table(outcomes(PUBLISHED[:2])).splitlines()[2:]
    assert [line[:10].strip() for line in lines] == ["a03", "a03 seed 1"]
    assert format_outcome(outcomes(PUBLISHED)[1]).startswith("a03 seed 1  ended")
