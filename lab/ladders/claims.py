"""Sentences about effects, and the comparison of published runs that decides whether they may be said."""

from dataclasses import dataclass
from fractions import Fraction

from lab.ladders.effects import CONFIDENCE, compare_changes, compare_runs, difference_from
from lab.ladders.measures import MEASURES
from lab.ladders.other_digits import MEASURED, on_other_digits
from lab.run.results import load_records

RELATIONS = ("above", "below", "within")


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
        together_with: in words, what else differs between the two sides.
        afterwards: whether it was asked with these results known.
        from_seed: seeds below it do not count. So seeds that were run after an answer was known test it anew.

    Raises: ValueError for an unknown measure or relation.
    """

    sentence: str
    of: str
    relation: str
    against: str | float | tuple[str, str, str]
    measure: str = "test accuracy"
    margin: float = 0.0
    together_with: str = ""
    afterwards: bool = False
    from_seed: int = 0

    def __post_init__(self):
        for value, known in ((self.measure, tuple(MEASURES)), (self.relation, RELATIONS)):
            if value not in known:
                raise ValueError(f"Claim {self.sentence!r}: {value!r} must be one of {', '.join(known)}")
        if isinstance(self.against, tuple) and len(self.against) != 3:
            raise ValueError(
                f"Claim {self.sentence!r}: against={self.against!r} must be a name, a number, or three names"
            )

    @property
    def comparison(self):
        """What is compared, whatever the sentence: claims on several pages may share it."""
        return self.of, self.relation, self.against, self.measure, self.margin, self.from_seed

    def compare(self):
        """Difference in points from the published runs; None if one side has none."""
        runs = self._runs()
        if not all(runs):
            return None
        if not self._others:
            return difference_from(MEASURES[self.measure].of(*runs), Fraction(str(self.against)))
        return (compare_runs if len(runs) == 2 else compare_changes)(*runs, self.measure)

    def on_other_digits(self):
        """The same after the last epoch, with an interval over seeds and images; None where it cannot be known."""
        runs = self._runs()
        if self.measure not in MEASURED or not all(runs) or len(runs) > 2:
            return None
        return on_other_digits(*runs, minus=0.0 if self._others else self.against)

    def _runs(self):
        every = (load_records(name) for name in (self.of, *self._others))
        return [[record for record in records if record.seed >= self.from_seed] for records in every]

    @property
    def _others(self):
        """Names of what it is compared with; none for a number."""
        if isinstance(self.against, tuple):
            return self.against
        return (self.against,) if isinstance(self.against, str) else ()

    @property
    def compared(self):
        """Both sides in words: "gap, b08 minus 0.1"; against zero, only the measure; and which seeds count."""
        bound = "" if self.against == 0 else f" minus {self.against}"
        if isinstance(self.against, tuple):
            bound = " minus {}, beyond {} minus {}".format(*self.against)
        seeds = f", seeds from {self.from_seed} on" if self.from_seed else ""
        return f"{self.measure}, {self.of}{bound}{seeds}"

    def holds(self, estimate):
        """Whether it would be true if the estimate were exact."""
        beyond = {"above": estimate > self.margin, "below": -estimate > self.margin}
        return beyond.get(self.relation, abs(estimate) < self.margin)

    def boundary(self, estimate):
        """Of the values that part true from false, the one that is nearest to an estimate."""
        signs = {"above": 1, "below": -1}
        return signs.get(self.relation, 1 if estimate > 0 else -1) * self.margin

    @property
    def p_value(self):
        """How often chance alone would take the runs so far from the boundary; None without several seeds."""
        return self._p_value_of(self.compare())

    def _p_value_of(self, found):
        if found is None or found.error is None:
            return None
        return found.p_value(self.boundary(found.estimate))

    @property
    def finding(self):
        """What the published runs say by themselves: "shown", "not shown", or "refuted" where they show the opposite.

        It is "not shown" where the 95 % interval holds the boundary, or with one seed on a side.
        """
        found = self.compare()
        p_value = self._p_value_of(found)
        if p_value is None or p_value >= 1 - CONFIDENCE:
            return "not shown"
        return "shown" if self.holds(found.estimate) else "refuted"
