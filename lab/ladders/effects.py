"""Effects: the difference between runs, and how certain it is."""

import math
import statistics
from dataclasses import dataclass

from scipy import stats

from lab.ladders.measures import MEASURES
from lab.numbers import signed

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Difference:
    """An estimate, in the unit of what is compared, and what is known of its error.

    `error` is its standard error, with as many degrees of `freedom` as Student's distribution has; None with fewer than
    two seeds in a group. `spread` is what the error would be with one seed in each group. `n` counts their seeds.
    """

    estimate: float
    n: tuple[int, ...]
    error: float | None = None
    freedom: float = math.inf
    spread: float | None = None

    @property
    def interval(self):
        """The ends of its 95 % interval; None without an error."""
        if self.error is None:
            return None
        half = stats.t.ppf((1 + CONFIDENCE) / 2, self.freedom) * self.error
        return self.estimate - half, self.estimate + half

    @property
    def low(self):
        return self.interval and self.interval[0]

    @property
    def high(self):
        return self.interval and self.interval[1]

    def p_value(self, value=0.0):
        """How often chance alone would take the estimate so far from a true `value`, on either side.

        It is below 0.05 where the 95 % interval does not hold the value. Runs equal to the last bit leave nothing to
        chance: 0.
        """
        if self.error == 0:
            return 0.0
        return 2 * stats.t.sf(abs(self.estimate - value) / self.error, self.freedom)


def difference(after, before):
    """Compare two lists of numbers, one entry per seed, with Welch's interval for unequal variances."""
    return contrast([(1, after), (-1, before)])


def contrast(parts):
    """A weighted sum of the means of several groups of runs, with the interval of Welch and Satterthwaite.

    Args:
        parts: (weight, list of numbers, one entry per seed) of each group.

    Source: Satterthwaite 1946; for two groups with weights 1 and -1 it is Welch's interval.
    """
    estimate, n = sum(weight * statistics.mean(group) for weight, group in parts), tuple(len(g) for _, g in parts)
    if min(n) < 2:
        return Difference(estimate, n)
    single = [float(weight**2 * statistics.variance(group)) for weight, group in parts]
    variances = [variance / count for variance, count in zip(single, n, strict=True)]
    if not any(variances):
        return Difference(estimate, n, 0.0, spread=0.0)
    freedom = sum(variances) ** 2 / sum(v**2 / (count - 1) for v, count in zip(variances, n, strict=True))
    return Difference(estimate, n, math.sqrt(sum(variances)), freedom, math.sqrt(sum(single)))


def difference_from(values, constant=0.0):
    """Compare one list of numbers, one entry per seed, with a constant, by Student's interval.

    With differences of paired runs as values this is the paired comparison.
    """
    estimate, n = statistics.mean(values) - constant, (len(values),)
    if len(values) < 2:
        return Difference(estimate, n)
    spread = statistics.stdev(values)
    return Difference(estimate, n, spread / math.sqrt(len(values)), len(values) - 1, spread)


def compare_runs(after, before, name="test accuracy"):
    """Compare the runs of two recipes in one measure, in points: in pairs where seeds pair, else by Welch's interval.

    Seeds pair where every random number is the same: recipes that differ only in learning rate or schedule begin with
    the same weights and see the same images in the same order, with the same distortions and dropout.
    """
    return compare_seeds(_by_seed(after, name), _by_seed(before, name), alike=are_alike(after, before))


def compare_seeds(after, before, *, alike):
    """As `compare_runs`, for one number per seed on each side; `alike`: whether their random numbers are the same."""
    pairs = _in_pairs(after, before) if alike else []
    return difference_from(pairs) if len(pairs) > 1 else difference(list(after.values()), list(before.values()))


def compare_changes(both, first, second, neither, name="test accuracy"):
    """What two changes do together beyond the sum of what each does alone, in points.

    Args:
        both, first, second, neither: runs with both changes, with one of them, and with none.

    `both` is paired with `first`, and `second` with `neither`, where seeds pair; the order matters only for that.
    """
    values = [_by_seed(records, name) for records in (both, first, second, neither)]
    if are_alike(both, first) and are_alike(second, neither):
        pairs = _in_pairs(*values[:2]), _in_pairs(*values[2:])
        if min(map(len, pairs)) > 1:
            return difference(*pairs)
    return contrast([(sign, list(side.values())) for sign, side in zip((1, -1, -1, 1), values, strict=True)])


def _by_seed(records, name):
    return {record.seed: MEASURES[name].read(record) for record in records}


def _in_pairs(after, before):
    return [after[seed] - before[seed] for seed in after if seed in before]


def are_alike(after, before):
    """Whether two lists of runs begin alike and see the same, so that their seeds pair."""
    return draws(after[0].recipe) == draws(before[0].recipe)


def draws(recipe):
    """What decides random numbers in a recipe, a dictionary: runs equal in it begin alike and see the same."""
    names = ("network", "arguments", "augmentation", "batch_size", "held_out", "epochs")
    return [*(recipe[name] for name in names), recipe.get("compiled", False)]  # it has its own dropout


def format_difference(found):
    """A difference in points: "+0.12 [+0.05, +0.19]", or without an interval if there is one seed only."""
    return format_estimate(found.estimate, found.low, found.high)


def format_estimate(estimate, low, high):
    """The same from its three numbers; `low` and `high` are None without an interval."""
    interval = "" if low is None else f" [{signed(low)}, {signed(high)}]"
    return f"{signed(estimate)}{interval}"
