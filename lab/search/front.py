"""The candidates of a search beside the best published ones of their size."""

import statistics
from dataclasses import dataclass

from lab.ladders.measures import measured_over
from lab.numbers import in_percent
from lab.run.record import LAST
from lab.search.trials import SEARCH, Trial, load_trials, name_of

HEADER = ("parameters", "epochs", "held-out accuracy, %", "", "n", "from", "candidate")


@dataclass(frozen=True)
class Candidate:
    """The results of one candidate's seeds; `accuracy` is the mean of their last epochs, a fraction."""

    topic: str
    trials: tuple[Trial, ...]

    @property
    def parameters(self):
        return self.trials[0].parameters

    @property
    def epochs(self):
        return len(self.trials[0].correct)

    @property
    def accuracy(self):
        return statistics.fmean(trial.last5 for trial in self.trials)

    @property
    def row(self):
        measure = measured_over(min(LAST, len(self.trials[0].correct)))
        numbers = f"{self.parameters:,}", str(self.epochs), in_percent(self.accuracy), measure, str(len(self.trials))
        return *numbers, self.topic, self.trials[0].name


def format_candidates(candidates, trials, folder=SEARCH):
    """A table of candidates and of what is published at their size, smallest first.

    Args:
        candidates: their settings.
        trials: Trials, of other candidates too.
        folder: of the published trials.

    Returns: text; candidates whose runs all broke off are named below it.
    """
    names = list(dict.fromkeys(map(name_of, candidates)))
    own = {found.trials[0].name: found for found in group("this search", trials)}
    published = [
        found
        for path in sorted(folder.glob("*.jsonl"))
        for found in group(f"published: {path.stem}", load_trials(path))
    ]
    shown = [own[name] for name in names if name in own]
    fronts = [best for candidate in shown if (best := best_of_size(candidate, published))]
    rows = {id(found): found for found in [*shown, *fronts]}.values()
    lines = [HEADER, *(found.row for found in sorted(rows, key=lambda found: (found.parameters, -found.accuracy)))]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = ["  ".join(f"{cell:{width}}" for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    broken = [f"every run diverged: {name}" for name in names if name not in own]
    return "\n".join([*(text if rows else []), *broken])


def group(topic, trials):
    """One Candidate for all completed trials with the same settings."""
    by_name = {}
    for trial in trials:
        if trial.correct:
            by_name.setdefault(trial.name, []).append(trial)
    return [Candidate(topic, tuple(found)) for found in by_name.values()]


def best_of_size(candidate, published):
    """The most accurate published candidate that is not larger, of as many epochs if there is one; None without any."""
    smaller = [other for other in published if other.parameters <= candidate.parameters]
    alike = [other for other in smaller if other.epochs == candidate.epochs]
    return max(alike or smaller, key=lambda other: other.accuracy, default=None)
