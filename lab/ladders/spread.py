"""How much runs that differ in their seed alone differ in accuracy, and what that makes of a target."""

import math
import statistics
from dataclasses import dataclass

import numpy as np
from scipy import stats

from lab.ladders.measures import STEADY_SHARE
from lab.run.record import LAST, TARGET, TEST_IMAGES

DRAWS = 20_000


@dataclass(frozen=True)
class PooledSpread:
    """One standard deviation over seeds for several recipes, in the unit of what was measured.

    `p_value` says how often chance alone would make the spreads of recipes with a common one differ so much.
    """

    spread: float
    freedom: int
    p_value: float


def pool_spreads(groups):
    """Pool the spread of several recipes, and test whether they may have it in common.

    Args:
        groups: for each recipe a list of numbers, one entry per seed, two or more.

    Source: Brown & Forsythe 1974, "Robust tests for the equality of variances".
    """
    groups = [[*map(float, group)] for group in groups]
    squares = sum(statistics.variance(group) * (len(group) - 1) for group in groups)
    freedom = sum(len(group) - 1 for group in groups)
    p_value = stats.levene(*groups, center="median").pvalue if len(groups) > 1 else 1.0
    return PooledSpread(math.sqrt(squares / freedom), freedom, float(p_value))


def chance_to_be_consistent(groups, mean, seeds):
    """How often a recipe with a true `mean` would be called consistent, by drawing runs from those of like recipes.

    A run is drawn as its last five accuracies, moved so that the runs of its recipe have the true mean on average: the
    swing of its epochs and the spread over seeds stay as they are.

    Args:
        groups: for each recipe its runs, two or more.
        mean: in percent.
        seeds: how many runs are judged.
    """
    deviations = []
    for runs in groups:
        accuracies = np.array([[float(100 * accuracy) for accuracy in run.test_accuracies[-LAST:]] for run in runs])
        means, n = accuracies.mean(axis=1, keepdims=True), len(runs)
        apart = (means - means.mean()) * math.sqrt(n / (n - 1))  # as far as new ones from the true mean
        deviations.append(apart + accuracies - means)
    deviations = np.concatenate(deviations)
    picked = np.random.default_rng(0).integers(len(deviations), size=(DRAWS, seeds))
    correct = np.round((mean + deviations)[picked] * TEST_IMAGES / 100)
    target = math.ceil(TEST_IMAGES * TARGET)
    steady = (correct >= target).all(axis=2).sum(axis=1)
    return float(np.mean((correct.mean(axis=(1, 2)) >= target) & (steady >= math.ceil(STEADY_SHARE * seeds))))
