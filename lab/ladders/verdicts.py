"""Verdicts on claims, as one among many: with a hundred claims, chance alone would show five.

Sources: Benjamini & Hochberg 1995, "Controlling the false discovery rate"; Holm 1979, "A simple sequentially
rejective multiple test procedure".
"""

import bisect

import pandas as pd
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestIndPower, TTestPower

from lab.ladders.effects import CONFIDENCE, format_difference
from lab.ladders.originals import original_claims
from lab.ladders.rungs import find_rungs

CORRECTIONS = {"Benjamini-Hochberg": "fdr_bh", "Holm": "holm"}
POWER = 0.8  # the chance to show an effect that is there
UNDECIDABLE = 1_000


class Family:
    """Claims that are corrected for one another; one without several seeds has no p value and does not count.

    Args:
        claims: any; those that compare the same count once.
    """

    def __init__(self, claims):
        found = {claim.comparison: claim.p_value for claim in claims}
        self.p_values = {comparison: p for comparison, p in found.items() if p is not None}
        self.corrected = {name: correct(self.p_values, method) for name, method in CORRECTIONS.items()}

    @classmethod
    def of_all_pages(cls, others=()):
        """The claims of all pages, those of the original tutorials, and others."""
        return cls([*_all_claims(), *others])

    def survives(self, claim, correction="Benjamini-Hochberg"):
        """Whether the claim's finding stands among all; a claim that is not shown has nothing to lose."""
        return self.corrected[correction].get(claim.comparison, 1.0) < 1 - CONFIDENCE

    def verdict(self, claim):
        """The finding in words, with all that a reader should know of it: "shown, uncorrected, asked afterwards"."""
        words = claim.finding
        if words != "not shown":
            words += f" together with {claim.together_with}" if claim.together_with else ""
            words += "" if self.survives(claim) else ", uncorrected"
        return words + (", asked afterwards" if claim.afterwards else "")


def correct(p_values, method):
    """Corrected p values of a dictionary of them, by one of the methods of statsmodels."""
    values = multipletests(list(p_values.values()), method=method)[1] if p_values else []
    return dict(zip(p_values, values, strict=True))


def tally_verdicts():
    """How many claims of all pages and of the originals are shown, refuted and open: alone, and corrected for all.

    Returns: DataFrame of counts by finding; a comparison that several pages make counts once.
    """
    claims = {claim.comparison: claim for claim in _all_claims()}.values()
    family = Family(claims)
    rows = {}
    for finding in ("shown", "refuted", "not shown"):
        found = [claim for claim in claims if claim.finding == finding]
        survivors = {name: sum(family.survives(claim, name) for claim in found) for name in CORRECTIONS}
        rows[finding] = {"alone": len(found)} | (survivors if finding != "not shown" else dict.fromkeys(survivors, "–"))
    return pd.DataFrame.from_dict(rows, orient="index")


def _all_claims():
    pages = [claim for rung in find_rungs() for claim in rung.claims.values()]
    return [*pages, *(claim for _, claim in original_claims())]


class UncutTable(pd.DataFrame):
    """A table that shows long texts in full."""

    def _repr_html_(self):
        with pd.option_context("display.max_colwidth", None):
            return super()._repr_html_()


def judge(claims, family=None):
    """One row per claim, numbered from 1 as the Analysis cites them.

    Args:
        family: the claims that it is corrected for; by default those of all pages, and these.

    Columns: what is compared, the difference in points with its 95 % interval over seeds, n of both sides, the verdict,
    how many seeds it would take to decide what is open, and, for accuracies, the interval over seeds and test images.
    """
    family = family or Family.of_all_pages(claims)
    rows = []
    for claim in claims:
        found, elsewhere = claim.compare(), claim.on_other_digits()
        estimate, n = ("–", "0") if found is None else (format_difference(found), ", ".join(map(str, found.n)))
        rows.append(
            {
                "claim": claim.sentence,
                "compared": claim.compared,
                "points": estimate,
                "n": n,
                "verdict": family.verdict(claim),
                "n to decide": seeds_to_decide(claim),
                "on other digits": "" if elsewhere is None else format_difference(elsewhere),
            }
        )
    return UncutTable(rows, index=pd.RangeIndex(1, len(claims) + 1))


def seeds_to_decide(claim):
    """How many seeds would decide an open claim, see `seeds_needed`, as a text; "" for one that is not open.

    It is also "" with a single seed on a side, which has no spread to reckon with.
    """
    found = claim.compare()
    if claim.finding != "not shown" or found is None or not found.error:
        return ""
    needed = seeds_needed(found, claim.boundary(found.estimate))
    return f"{needed}" if needed <= UNDECIDABLE else f"over {UNDECIDABLE:,}"


def seeds_needed(found, boundary):
    """How many seeds in each group give a chance of 80 % to tell a Difference from a boundary, if it were exact.

    Returns: a number, at most one more than UNDECIDABLE: beyond that, it is as good as undecidable.
    """
    distance, settings = abs(found.estimate - boundary) / found.spread, {"alpha": 1 - CONFIDENCE}

    def power(n):
        if len(found.n) == 1:
            return TTestPower().power(distance, n, **settings)
        return TTestIndPower().power(2**0.5 * distance, n, **settings)  # two groups, with half of the variance each

    return bisect.bisect_left(range(UNDECIDABLE + 1), POWER, lo=2, key=power)
