"""The ladders, and what they ask of their rungs."""

import math
from dataclasses import dataclass, field
from fractions import Fraction

from scipy import stats
from torch import nn

from lab.ladders.effects import CONFIDENCE, difference_from
from lab.ladders.measures import STEADY_SHARE
from lab.numbers import limit
from lab.run.record import TARGET, TEST_IMAGES

MOST_SEEDS = f"by at least {limit(STEADY_SHARE)} of seeds"
CONSISTENT = f"held {MOST_SEEDS}"
NO_LINEAR = "no `Linear` layer"


@dataclass(frozen=True)
class Goal:
    """Limits on a recipe, and the test accuracy that its runs must reach on average; accuracies are exact."""

    parameters_below: int = 8_000
    epochs_at_most: int = 15
    linear_layers: bool = True  # whether fully connected layers are allowed
    accuracy: Fraction = TARGET
    at_the_end: bool = False  # the accuracy of the last epoch counts, not the mean of the last five
    steady: bool = True  # most seeds have to hold the accuracy in each of the last five epochs
    floor: Fraction | None = None  # what most seeds have to reach as their mean of the last five epochs

    def __str__(self):
        epochs = "after the last epoch" if self.at_the_end else "over the last five epochs"
        parts = (
            f"fewer than {self.parameters_below:,} parameters",
            f"at most {self.epochs_at_most} epochs" if self.epochs_at_most > 1 else "one epoch",
            None if self.linear_layers else "no fully connected layer",
            f"at least {limit(self.accuracy)} {'held' if self.steady else 'on average'} {epochs}",
            f"{limit(self.floor)} {MOST_SEEDS}" if self.floor else None,
        )
        return ", ".join(part for part in parts if part)

    def checks(self, recipe, summary):
        """Every part of the goal and whether it is met; `summary` is that of the published runs."""
        dense = any(isinstance(layer, nn.Linear) for layer in recipe.specimen().modules())
        found = {
            "parameters": recipe.parameters < self.parameters_below,
            "epochs": recipe.epochs <= self.epochs_at_most,
        }
        if not self.linear_layers:
            found[NO_LINEAR] = not dense
        found[f"mean of at least {limit(self.accuracy)}"] = self._mean(summary) >= self.accuracy
        if self.steady:
            found[CONSISTENT] = summary.consistent
        if self.floor:
            found[f"{limit(self.floor)} {MOST_SEEDS}"] = self._reaching(summary) >= STEADY_SHARE * summary.n
        return found

    def verdict(self, recipe, summary):
        """Whether runs meet the goal, in a few words, and how sure that is: "held by 20 of 20 seeds (shown)"."""
        checks = self.checks(recipe, summary)
        faults = [f"too many {limit}" for limit in ("parameters", "epochs") if not checks[limit]]
        faults += [] if checks.get(NO_LINEAR, True) else ["a `Linear` layer"]
        short = self.accuracy - self._mean(summary)
        by = [f"by {_images(short)}"] if short > 0 else []
        shares = [f"held by {_of_seeds(summary.steady, summary.n)}"] if self.steady else []
        shares += [f"{limit(self.floor)} by {_of_seeds(self._reaching(summary), summary.n)}"] if self.floor else []
        if all(checks.values()):
            head, *rest = shares if self.steady else ["met", *shares]
        elif faults:
            head, *rest = "**missed**", *faults, *by, *shares
        else:
            head, rest = " ".join(["**missed**", *by]), shares
        head += self._certainty(checks, summary)
        return f"{head}{', ' if by and not faults else ': '}{', '.join(rest)}" if rest else head

    def _certainty(self, checks, summary):
        """Whether other seeds would plausibly turn the verdict, in brackets; nothing where size decides it.

        It is shown to be met where all intervals lie on that side, and to be missed where one lies on the other.
        """
        if not all(checks[part] for part in ("parameters", "epochs", NO_LINEAR) if part in checks):
            return ""
        mean = difference_from([100 * accuracy for accuracy in summary.headlines], 100 * self.accuracy).interval
        counts = ([summary.steady] if self.steady else []) + ([self._reaching(summary)] if self.floor else [])
        shares = [stats.binomtest(count, summary.n).proportion_ci(CONFIDENCE) for count in counts]
        margins = ([mean] if mean else []) + [(low - STEADY_SHARE, high - STEADY_SHARE) for low, high in shares]
        if all(checks.values()):
            is_shown = mean and all(low > 0 for low, _ in margins)
        else:
            is_shown = any(high < 0 for _, high in margins)
        return " (shown)" if is_shown else " (not shown)"

    def _mean(self, summary):
        return summary.final if self.at_the_end else summary.mean

    def _reaching(self, summary):
        """How many seeds reach the floor."""
        return sum(accuracy >= self.floor for accuracy in summary.headlines)


def _of_seeds(count, n):
    needed = math.ceil(STEADY_SHARE * n)
    return f"{count} of {n} seed{'s' if n > 1 else ''}" + (f" ({needed} are needed)" if 0 < count < needed else "")


def _images(share):
    """A share of the test set as a number of its images."""
    count = round(TEST_IMAGES * share)
    return "less than one image" if count < 1 else f"{count:,} image{'s' if count > 1 else ''}"


@dataclass(frozen=True)
class Ladder:
    """A road of rungs and what its last rung has to reach; some rungs have goals of their own."""

    letter: str
    title: str
    goal: Goal
    own_goals: dict[str, Goal] = field(default_factory=dict)  # by rung
    is_road: bool = True  # every rung changes the one before; else each answers a question of its own

    def goal_of(self, rung_id):
        return self.own_goals.get(rung_id, self.goal)


LADDERS = {
    ladder.letter: ladder
    for ladder in (
        Ladder("a", "Below eight thousand", Goal()),
        Ladder("b", "No dense layer", Goal(parameters_below=20_000, epochs_at_most=19, linear_layers=False)),
        Ladder("c", "The receptive field", Goal(), {"c01": Goal(parameters_below=10_000)}),
        Ladder("d", "One by one", Goal()),
        Ladder(
            "e",
            "The frontier",
            Goal(accuracy=Fraction("0.9965"), steady=False),
            is_road=False,
            own_goals={
                "e02": Goal(parameters_below=2_500, steady=False, floor=Fraction("0.9935")),
                "e03": Goal(epochs_at_most=2, at_the_end=True, steady=False),
                "e04": Goal(epochs_at_most=4, at_the_end=True, steady=False),
                "e05": Goal(epochs_at_most=1, at_the_end=True, steady=False),
            },
        ),
    )
}
