"""Effects and how sure they are."""

from dataclasses import dataclass

from scipy.stats import ttest_ind

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Difference:
    """Mean of one group of runs minus that of another, with its 95 % interval (None with fewer than two seeds)."""

    estimate: float
    low: float | None
    high: float | None
    n: tuple[int, int]

    @property
    def verdict(self):
        """ "up" or "down" if the interval excludes zero, else "not shown"."""
        if self.low is None or self.low <= 0 <= self.high:
            return "not shown"
        return "up" if self.estimate > 0 else "down"


def difference(after, before):
    """Compare two lists of accuracies, one entry per seed, with Welch's interval for unequal variances."""
    estimate, n = sum(after) / len(after) - sum(before) / len(before), (len(after), len(before))
    if min(n) < 2:
        return Difference(estimate, None, None, n)
    interval = ttest_ind(after, before, equal_var=False).confidence_interval(CONFIDENCE)
    return Difference(estimate, float(interval.low), float(interval.high), n)
