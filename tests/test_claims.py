"""Welch's interval against the formula by hand, against the one case with a closed form, and by simulation."""

import math

import numpy as np
import pytest
from scipy.stats import t

from lab.claims import CONFIDENCE, Difference, difference


def welch(after, before):
    """Half-width of the interval, from the textbook (Welch 1947) and the distribution's quantile."""
    parts = [np.var(group, ddof=1) / len(group) for group in (after, before)]
    freedom = sum(parts) ** 2 / sum(part**2 / (len(g) - 1) for part, g in zip(parts, (after, before), strict=True))
    return t.ppf((1 + CONFIDENCE) / 2, freedom) * math.sqrt(sum(parts))


@pytest.mark.parametrize(("n_after", "n_before"), [(2, 2), (5, 5), (3, 10), (10, 2)])
def test_interval_is_welch(n_after, n_before):
    generator = np.random.default_rng(n_after)
    after = (0.9940 + 0.0004 * generator.standard_normal(n_after)).tolist()
    before = (0.9925 + 0.0011 * generator.standard_normal(n_before)).tolist()
    found, middle, half = difference(after, before), np.mean(after) - np.mean(before), welch(after, before)
    np.testing.assert_allclose([found.estimate, found.low, found.high], [middle, middle - half, middle + half])
    assert found.n == (n_after, n_before)


def test_interval_in_closed_form():
    """Two pairs of equal spread: two degrees of freedom, whose quantile at 0.975 is 0.95 / sqrt(2 x 0.975 x 0.025)."""
    found = difference([0.990, 0.994], [0.980, 0.984])
    half = 0.95 / math.sqrt(2 * 0.975 * 0.025) * 0.004 / math.sqrt(2)
    np.testing.assert_allclose([found.low, found.high], [0.01 - half, 0.01 + half])
    assert found.verdict == "not shown"


def test_interval_covers_the_truth_as_often_as_it_says():
    generator, trials = np.random.default_rng(0), 400
    groups = [(generator.normal(3, 1, 5), generator.normal(1, 4, 5)) for _ in range(trials)]
    covered = sum(found.low <= 2 <= found.high for found in (difference(*pair) for pair in groups))
    assert abs(covered / trials - 0.95) < 4 * math.sqrt(0.95 * 0.05 / trials)


def test_verdicts():
    low, high = [0.980, 0.981, 0.982], [0.990, 0.991, 0.992]
    assert difference(high, low).verdict == "up"
    assert difference(low, high).verdict == "down"
    assert difference(low, low[::-1]).verdict == "not shown"
    assert Difference(0.1, 0.0, 0.2, (5, 5)).verdict == "not shown"  # zero is not excluded


@pytest.mark.parametrize("pair", [([0.99], [0.5]), ([0.99, 0.98], [0.5]), ([0.99], [0.5, 0.6])])
def test_one_seed_gives_no_interval(pair):
    found = difference(*pair)
    assert found.estimate == pytest.approx(np.mean(pair[0]) - np.mean(pair[1]))
    assert (found.low, found.high, found.verdict) == (None, None, "not shown")
