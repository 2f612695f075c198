"""Effects, how sure they are, and sentences that may only be said if they are."""

import math
import statistics
from dataclasses import dataclass

import pandas as pd
from scipy import stats

from lab.results import LAST, load_records

CONFIDENCE = 0.95
MEASURES = {  # of one run, in percent or points
    "test accuracy": lambda record: 100 * record.last5,
    "final test accuracy": lambda record: 100 * record.final,
    "clean train accuracy": lambda record: 100 * record.clean_train,
    "gap": lambda record: 100 * (record.clean_train - record.final),  # overfitting is judged on this alone
    "first epoch": lambda record: 100 * record.test_accuracies[0],
    "swing": lambda record: 100 * statistics.pstdev(record.test_accuracies[-LAST:]),  # among the last epochs
    "best minus mean": lambda record: 100 * (record.best - record.last5),
}
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

    Source: Satterthwaite 1946; of two groups with weights 1 and -1 it is Welch's interval.
    """
    estimate, n = sum(weight * statistics.fmean(group) for weight, group in parts), tuple(len(g) for _, g in parts)
    if min(n) < 2:
        return Difference(estimate, None, None, n)
    variances = [weight**2 * statistics.variance(group) / len(group) for weight, group in parts]
    if not any(variances):
        return Difference(estimate, estimate, estimate, n)
    freedom = sum(variances) ** 2 / sum(v**2 / (count - 1) for v, count in zip(variances, n, strict=True))
    half = stats.t.ppf((1 + CONFIDENCE) / 2, freedom) * math.sqrt(sum(variances))
    return Difference(estimate, estimate - half, estimate + half, n)


def difference_from(values, constant=0.0):
    """Compare one list of numbers, one entry per seed, with a constant, by Student's interval.

    With differences of paired runs as values this is the paired comparison.
    """
    estimate, n = statistics.fmean(values) - constant, (len(values),)
    if len(values) < 2:
        return Difference(estimate, None, None, n)
    half = stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    return Difference(estimate, estimate - half, estimate + half, n)


def compare_runs(after, before, name="test accuracy"):
    """Compare the runs of two recipes in one measure, in points: in pairs where seeds pair, else by Welch's interval.

    Seeds pair where every random number is the same: recipes that differ in learning rate or schedule only begin with
    the same weights and see the same images in the same order, distorted and dropped out alike.
    """
    pairs = _in_pairs(after, before, name)
    return difference_from(pairs) if pairs else difference(measure(after, name), measure(before, name))


def compare_changes(both, first, second, neither, name="test accuracy"):
    """What two changes do together beyond the sum of what each does alone, in points.

    Args:
        both, first, second, neither: runs with both changes, with one of them, and with none.

    `both` is paired with `first`, and `second` with `neither`, where seeds pair; the order matters for nothing else.
    """
    pairs = _in_pairs(both, first, name), _in_pairs(second, neither, name)
    if all(pairs):
        return difference(*pairs)
    signs = (1, both), (-1, first), (-1, second), (1, neither)
    return contrast([(sign, measure(records, name)) for sign, records in signs])


def _in_pairs(after, before, name):
    """Differences of two recipes, seed by seed; none where seeds do not pair."""
    seeds = {record.seed for record in after} & {record.seed for record in before}
    if len(seeds) < 2 or draws(after[0].recipe) != draws(before[0].recipe):
        return []
    sides = [measure([r for r in records if r.seed in seeds], name) for records in (after, before)]
    return [a - b for a, b in zip(*sides, strict=True)]


def draws(recipe):
    """What of a recipe, as a dictionary, decides random numbers: runs alike in it begin alike and see the same."""
    names = ("network", "arguments", "augmentation", "batch_size", "held_out", "epochs")
    return [*(recipe[name] for name in names), recipe.get("compiled", False)]  # which drops out in its own way


def measure(records, name):
    """One of MEASURES of every run."""
    return [MEASURES[name](record) for record in records]


@dataclass(frozen=True)
class Claim:
    """A sentence about an effect, and the comparison of published runs that decides whether it may be said.

    Args:
        sentence: what is claimed.
        of: name of a rung or ablation.
        relation: "above", "below", or "within" (no further than `margin` from).
        against: another name, or a number in the unit of the measure. Three names: with `of` four runs of two changes,
            where `of` has both, then one of them, the other, and neither; what both do beyond the sum of each alone.
        measure: a key of MEASURES.
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
            return difference_from(measure(*runs, self.measure), self.against)
        return (compare_runs if len(runs) == 2 else compare_changes)(*runs, self.measure)

    @property
    def _others(self):
        """Names of what it is compared with; none for a number."""
        if isinstance(self.against, tuple):
            return self.against
        return (self.against,) if isinstance(self.against, str) else ()

    @property
    def compared(self):
        """Both sides in words: "gap, b08 minus 0.1"; against zero only what is measured."""
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
        else:
            holds, fails = low > self.margin, high < self.margin
        return "shown" if holds else "refuted" if fails else "not shown"


class Sentences(pd.DataFrame):
    """A table that shows long texts whole."""

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
    return Sentences(rows, index=pd.RangeIndex(1, len(claims) + 1))


def format_difference(found):
    """A difference in points: "+0.12 [+0.05, +0.19]", or without an interval if there is one seed only."""
    interval = "" if found.low is None else f" [{found.low:+.2f}, {found.high:+.2f}]"
    return f"{found.estimate:+.2f}{interval}"
