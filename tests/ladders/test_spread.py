"""The spread over seeds against closed forms; what the intervals and the word "consistent" are worth, by simulation."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from test_claims import run

from lab.ladders.effects import difference, difference_from
from lab.ladders.measures import MEASURES
from lab.ladders.rungs import find_rungs
from lab.ladders.spread import chance_to_be_consistent, pool_spreads
from lab.run.results import load_records

DRAWS = 3_000


def test_the_pooled_spread_is_the_error_of_an_analysis_of_variance():
    generator = np.random.default_rng(0)
    groups = [generator.normal(99, 0.05, n).tolist() for n in (5, 10, 20)]
    found = pool_spreads(groups)
    residuals = np.concatenate([np.array(group) - np.mean(group) for group in groups])
    assert (found.freedom, found.spread) == (32, pytest.approx(np.sqrt((residuals**2).sum() / 32)))


def test_the_test_on_spreads_is_an_analysis_of_distances_from_medians():
    """Brown and Forsythe: a one-way analysis of variance of the distances from the median of each group."""
    generator = np.random.default_rng(1)
    groups = [generator.normal(99, spread, 20).tolist() for spread in (0.03, 0.03, 0.2)]
    distances = [np.abs(np.array(group) - np.median(group)) for group in groups]
    assert pool_spreads(groups).p_value == pytest.approx(stats.f_oneway(*distances).pvalue)
    assert pool_spreads(groups).p_value < 0.001 < 0.05 < pool_spreads(groups[:2]).p_value


def covers(found, truth):
    return found.low <= truth <= found.high


@pytest.mark.parametrize("n", [5, 20])
@pytest.mark.parametrize("ratio", [1, 4, 16])
def test_welchs_interval_covers_in_95_of_100_even_where_spreads_differ(n, ratio):
    """A03's seeds lie 0.02 points apart, those of A02 0.34."""
    generator = np.random.default_rng(n + ratio)
    draws = generator.normal([[1.0], [0.0]], [[0.02], [0.02 * ratio]], (DRAWS, 2, n))
    share = np.mean([covers(difference(after.tolist(), before.tolist()), 1.0) for after, before in draws])
    assert share == pytest.approx(0.95, abs=0.015)


def test_students_interval_covers_in_95_of_100():
    draws = np.random.default_rng(0).normal(0.1, 0.05, (DRAWS, 5)).tolist()
    assert np.mean([covers(difference_from(values), 0.1) for values in draws]) == pytest.approx(0.95, abs=0.015)


@pytest.mark.parametrize("n", [5, 20])
def test_it_covers_as_often_where_runs_are_spread_as_those_published(n):
    """Accuracies are not normal, the worst seed least of all: drawn from the residuals of the published runs.

    Not of three: scaled by their own deviation, none of them lies further out than 1.42, whatever they come from.
    """
    groups = [MEASURES["test accuracy"].of(load_records(rung.id)) for rung in find_rungs()]
    groups = [np.array(group, dtype=float) for group in groups if len(group) >= 5]
    shapes = np.concatenate([(group - group.mean()) / group.std() for group in groups])
    draws = np.random.default_rng(n).choice(shapes, (DRAWS, 2, n)) * [[0.03], [0.1]]
    share = np.mean([covers(difference(after.tolist(), before.tolist()), 0.0) for after, before in draws])
    assert share == pytest.approx(0.95, abs=0.015)


def last_five(seed, *accuracies):
    rows = [{"test_correct": round(100 * accuracy), "test_total": 10_000} for accuracy in accuracies]
    return replace(run(seed, 99.0), epochs=rows)


def test_the_chance_to_be_consistent_by_hand():
    """Runs that keep one of two accuracies: a coin that has to fall right four times of five, or five of five."""
    groups = [[run(0, 99.3), run(1, 99.5)]]  # 0.14 points on either side of the mean, as new ones
    assert chance_to_be_consistent(groups, 99.5, 1) == pytest.approx(1 / 2, abs=0.015)
    assert chance_to_be_consistent(groups, 99.5, 5) == pytest.approx(6 / 32, abs=0.015)
    assert chance_to_be_consistent(groups, 99.5, 10) == pytest.approx(stats.binom.sf(7, 10, 0.5), abs=0.015)
    assert chance_to_be_consistent(groups, 99.6, 5) == 1.0
    assert chance_to_be_consistent(groups, 99.2, 5) == 0.0


def test_one_epoch_below_the_target_is_enough_to_miss():
    swinging = [[last_five(seed, 99.45, 99.45, 99.45, 99.45, 99.35) for seed in (0, 1)]]
    assert chance_to_be_consistent(swinging, 99.44, 5) == 0.0
    assert chance_to_be_consistent(swinging, 99.48, 5) == 1.0
