"""Numbers as they are written: rounded once, from whole counts, the same way everywhere."""

from decimal import ROUND_HALF_UP, Decimal
from fractions import Fraction

import numpy as np
import pytest

from lab.ladders.effects import compare_runs, format_difference
from lab.ladders.measures import MEASURES, Summary, accuracy_with_spread
from lab.ladders.rungs import find_rungs
from lab.numbers import limit, percent, rounded, signed
from lab.run.results import load_records

RECORDS = [record for rung in find_rungs() for record in load_records(rung.id)]


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (Fraction("99.235"), "99.24"),
        (99.235, "99.24"),  # which lies below, as a float
        (99.245, "99.25"),
        (np.float64(0.1) + 0.2, "0.30"),
        (-0.005, "-0.01"),
        (99.2349, "99.23"),
        (Fraction(1, 3), "0.33"),
    ],
)
def test_a_tie_is_rounded_away_from_zero_whatever_it_is_written_in(number, text):
    assert rounded(number) == text


def test_signs_and_units():
    assert (signed(0.125), signed(-0.125), signed(Fraction(0))) == ("+0.13", "-0.13", "+0.00")
    assert (percent(Fraction("0.994")), limit(Fraction("0.994")), limit(Fraction("0.8"))) == (
        "99.40 %",
        "99.4 %",
        "80 %",
    )


def test_every_published_accuracy_is_what_its_counts_say():
    for record in RECORDS:
        correct = [row["test_correct"] for row in record.epochs]
        expected = Decimal(sum(correct[-5:])) / len(correct[-5:]) / 100
        assert rounded(MEASURES["test accuracy"].read(record)) == str(expected.quantize(Decimal("0.01"), ROUND_HALF_UP))


@pytest.mark.parametrize("rung", find_rungs(), ids=lambda rung: rung.id)
def test_a_gap_is_the_same_in_a_claim_and_in_a_table(rung):
    """Differences of means, taken in either order, over the seeds of a rung."""
    records, summary = load_records(rung.id), rung.summary
    gap = sum(map(Fraction, MEASURES["gap"].of(records))) / len(records)
    assert signed(gap) == signed(summary.gap)
    assert format_difference(compare_runs(records, records, "gap")).startswith("+0.00")


def test_the_spread_of_a_summary_is_in_its_text():
    records = load_records("a07")
    heads = [100 * float(record.last5) for record in records]
    text = accuracy_with_spread(Summary.of(records))
    assert text == f"{np.mean(heads):.2f} ± {np.std(heads, ddof=1):.2f} (n={len(heads)})"


def test_the_test_set_is_compared_with_images_that_were_held_out():
    for record in load_records("d06"):
        rows = record.epochs[-5:]
        test = np.mean([row["test_correct"] / row["test_total"] for row in rows])
        held_out = np.mean([row["held_out_correct"] / 6_000 for row in rows])
        assert float(MEASURES["test minus held out"].read(record)) == pytest.approx(100 * (test - held_out))
    with pytest.raises(ValueError, match="d05, seed 0: no images were held out"):
        MEASURES["test minus held out"].read(load_records("d05")[0])
