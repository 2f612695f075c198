"""Effects, how certain they are, and sentences allowed only when they are certain."""

import math
import statistics
from dataclasses import dataclass
from fractions import Fraction

import pandas as pd
from scipy import stats

from lab.ladders.measures import MEASURES
from lab.numbers import signed
from lab.run.results import load_records

CONFIDENCE = 0.95
RELATIONS = ("above", "below", "within")


@dataclass(frozen=True)
class Difference:
    """Mean of one group of runs minus that of another, with its 95 % interval (None with fewer than two seeds)."""

    estimate: float
    low: float | None
    high: float | None
    n: tuple[int, ...]


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
        return Difference(estimate, None, None, n)
    variances = [float(weight**2 * statistics.variance(group) / len(group)) for weight, group in parts]
    if not any(variances):
        return Difference(estimate, estimate, estimate, n)
    freedom = sum(variances) ** 2 / sum(v**2 / (count - 1) for v, count in zip(variances, n, strict=True))
    half = stats.t.ppf((1 + CONFIDENCE) / 2, freedom) * math.sqrt(sum(variances))
    return Difference(estimate, estimate - half, estimate + half, n)


def difference_from(values, constant=0.0):
    """Compare one list of numbers, one entry per seed, with a constant, by Student's interval.

    With differences of paired runs as values this is the paired comparison.
    """
    estimate, n = statistics.mean(values) - constant, (len(values),)
    if len(values) < 2:
        return Difference(estimate, None, None, n)
    half = stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    return Difference(estimate, estimate - half, estimate + half, n)


def compare_runs(after, before, name="test accuracy"):
    """Compare the runs of two recipes in one measure, in points: in pairs where seeds pair, else by Welch's interval.

    Seeds pair where every random number is the same: recipes that differ only in learning rate or schedule begin with
    the same weights and see the same images in the same order, with the same distortions and dropout.
    """
    return compare_seeds(_by_seed(after, name), _by_seed(before, name), alike=_are_alike(after, before))


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
    if _are_alike(both, first) and _are_alike(second, neither):
        pairs = _in_pairs(*values[:2]), _in_pairs(*values[2:])
        if min(map(len, pairs)) > 1:
            return difference(*pairs)
    return contrast([(sign, list(side.values())) for sign, side in zip((1, -1, -1, 1), values, strict=True)])


def _by_seed(records, name):
    return {record.seed: MEASURES[name].read(record) for record in records}


def _in_pairs(after, before):
    return [after[seed] - before[seed] for seed in after if seed in before]


def _are_alike(after, before):
    return draws(after[0].recipe) == draws(before[0].recipe)


def draws(recipe):
    """What decides random numbers in a recipe, a dictionary: runs equal in it begin alike and see the same."""
    names = ("network", "arguments", "augmentation", "batch_size", "held_out", "epochs")
    return [*(recipe[name] for name in names), recipe.get("compiled", False)]  # it has its own dropout


@dataclass(frozen=True)
class Claim:
    """A sentence about an effect, and the comparison of published runs that decides whether it may be said.

    Args:
        sentence: what is claimed.
        of: name of a rung or ablation.
        relation: "above", "below", or "within" (no further than `margin` from).
        against: another name, or a number in the unit of the measure. Three names for two changes: `of` has both,
            the three have the first, the second, and neither; what both do beyond the sum of each alone.
        measure: a key of `lab.ladders.measures.MEASURES`.
        margin: percentage points; the difference has to be beyond it, or for "within" inside it.

    Raises: ValueError for an unknown measure or relation.
    """

    sentence: str
    of: str
    relation: str
    against: str | float | tuple[str, str, str]
    measure: str = "test accuracy"
    margin: float = 0.0

    def __post_init__(self):
        for value, known in ((self.measure, tuple(MEASURES)), (self.relation, RELATIONS)):
            if value not in known:
                raise ValueError(f"Claim {self.sentence!r}: {value!r} must be one of {', '.join(known)}")
        if isinstance(self.against, tuple) and len(self.against) != 3:
            raise ValueError(
                f"Claim {self.sentence!r}: against={self.against!r} must be a name, a number, or three names"
            )

    def compare(self):
        """Difference in points from the published runs; None if one side has none."""
        names = [self.of, *self._others]
        runs = [load_records(name) for name in names]
        if not all(runs):
            return None
        if not self._others:
            return difference_from(MEASURES[self.measure].of(*runs), Fraction(str(self.against)))
        return (compare_runs if len(runs) == 2 else compare_changes)(*runs, self.measure)

    @property
    def _others(self):
        """Names of what it is compared with; none for a number."""
        if isinstance(self.against, tuple):
            return self.against
        return (self.against,) if isinstance(self.against, str) else ()

    @property
    def compared(self):
        """Both sides in words: "gap, b08 minus 0.1"; against zero, only the measure."""
        bound = "" if self.against == 0 else f" minus {self.against}"
        if isinstance(self.against, tuple):
            bound = " minus {}, beyond {} minus {}".format(*self.against)
        return f"{self.measure}, {self.of}{bound}"

    @property
    def verdict(self):
        """What the published runs say: "shown", "not shown", or "refuted" where they show the opposite."""
        found = self.compare()
        if found is None or found.low is None:
            return "not shown"
        low, high = (found.low, found.high) if self.relation != "below" else (-found.high, -found.low)
        if self.relation == "within":
            holds, fails = max(-low, high) < self.margin, low > self.margin or high < -self.margin
        else:  # an interval of zero width, of runs equal to the last bit, decides as well
            holds, fails = low > self.margin, high < self.margin or low == high <= self.margin
        return "shown" if holds else "refuted" if fails else "not shown"


class UncutTable(pd.DataFrame):
    """A table that shows long texts in full."""

    def _repr_html_(self):
        with pd.option_context("display.max_colwidth", None):
            return super()._repr_html_()


def judge(claims):
    """One row per claim, numbered from 1 as the Analysis cites them.

    Columns: what is compared, the difference in points with its 95 % interval, n of both sides, and the verdict.
    """
    rows = []
    for claim in claims:
        found = claim.compare()
        estimate, n = ("–", "0") if found is None else (format_difference(found), ", ".join(map(str, found.n)))
        rows.append(
            {"claim": claim.sentence, "compared": claim.compared, "points": estimate, "n": n, "verdict": claim.verdict}
        )
    return UncutTable(rows, index=pd.RangeIndex(1, len(claims) + 1))


def format_difference(found):
    """A difference in points: "+0.12 [+0.05, +0.19]", or without an interval if there is one seed only."""
    interval = "" if found.low is None else f" [{signed(found.low)}, {signed(found.high)}]"
    return f"{signed(found.estimate)}{interval}"
