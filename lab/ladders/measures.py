"""What is measured of runs: how it is read from a record, and how it is written."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

from lab.numbers import in_percent, rounded, signed
from lab.run.record import LAST, TARGET

STEADY_SHARE = Fraction("0.8")  # of the seeds must hold the target in each of the last epochs to call a rung consistent


@dataclass(frozen=True)
class Measure:
    """A number of one run, in percent or points: how it is read from a record, and how it is written."""

    name: str
    read: Callable
    write: Callable = rounded

    def of(self, records):
        """Its value for every run."""
        return [self.read(record) for record in records]


def _swing(record):
    return 100 * statistics.pstdev(map(float, record.test_accuracies[-LAST:]))


def _beyond_held_out(record):
    rows = record.epochs[-LAST:]
    if any("held_out_total" not in row for row in rows):
        raise ValueError(f"{record.rung}, seed {record.seed}: no images were held out")
    held_out = statistics.mean(Fraction(row["held_out_correct"], row["held_out_total"]) for row in rows)
    return 100 * (record.last5 - held_out)


MEASURES = {
    measure.name: measure
    for measure in (
        Measure("test accuracy", lambda record: 100 * record.last5),
        Measure("final test accuracy", lambda record: 100 * record.final),
        Measure("clean train accuracy", lambda record: 100 * statistics.mean(record.clean_accuracies)),
        Measure("gap", lambda record: 100 * record.gap, signed),  # overfitting is judged on it alone
        Measure("first epoch", lambda record: 100 * record.test_accuracies[0]),
        Measure("swing", _swing),  # among the last epochs
        Measure("test minus held out", _beyond_held_out, signed),  # of a network that has seen neither
        Measure("best minus mean", lambda record: 100 * (record.best - record.last5)),
    )
}


@dataclass(frozen=True)
class Summary:
    """Statistics over the seeds of one rung; accuracies are exact fractions, their deviation is not."""

    rung: str
    headlines: tuple[Fraction, ...]  # for every seed the mean of its last five epochs, or its last epoch if that counts
    mean: Fraction  # of these
    std: float | None  # of these; None for a single seed
    worst: Fraction  # the lowest of these
    best_epoch: Fraction  # highest accuracy of any epoch and seed: shown, never claimed
    last5: Fraction  # mean over seeds of the mean of the last five epochs
    final: Fraction  # mean over seeds of the last epoch
    clean_train: Fraction  # mean over seeds and the last five epochs, or the last one where runs do not hold more
    gap: Fraction  # of these to the test accuracy of the same epochs, in points
    epochs_of_gap: int
    steady: int  # how many seeds reached the target in each of their last epochs

    @property
    def n(self):
        return len(self.headlines)

    @property
    def consistent(self):
        return self.mean >= TARGET and self.steady >= STEADY_SHARE * self.n

    @classmethod
    def of(cls, records, *, at_the_end=False):
        """Summarise records; `at_the_end` says that the last epoch counts, as in some goals."""
        headlines = [record.final if at_the_end else record.last5 for record in records]
        mean = statistics.mean(headlines)
        return cls(
            rung=records[0].rung,
            headlines=tuple(headlines),
            mean=mean,
            std=statistics.stdev(headlines) if len(records) > 1 else None,
            worst=min(headlines),
            best_epoch=max(record.best for record in records),
            last5=statistics.mean(record.last5 for record in records),
            final=statistics.mean(record.final for record in records),
            clean_train=statistics.mean(MEASURES["clean train accuracy"].of(records)) / 100,
            gap=statistics.mean(MEASURES["gap"].of(records)),
            epochs_of_gap=min(len(record.clean_accuracies) for record in records),
            steady=sum(record.steady for record in records),
        )


def accuracy_with_spread(summary):
    """Mean over seeds in percent, with their deviation if there are several: "99.38 ± 0.08 (n=5)"."""
    spread = "" if summary.std is None else f" ± {in_percent(summary.std)}"
    return f"{in_percent(summary.mean)}{spread} (n={summary.n})"


def summary_row(summary):
    """Statistics of a rung as the text of a table row."""
    return {
        "test accuracy, %": accuracy_with_spread(summary),
        "worst seed, %": in_percent(summary.worst),
        "best epoch, %": in_percent(summary.best_epoch),
        "clean train, %": in_percent(summary.clean_train),
    }


def measured_over(count):
    """In words, for a mean over the last `count` epochs."""
    return "after the last epoch" if count == 1 else f"mean of the last {count} epochs"
