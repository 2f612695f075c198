"""How executions ended: a line as each one does, a table at the end, and a summary over seeds."""

from dataclasses import dataclass
from pathlib import Path

from lab.files import ROOT
from lab.ladders.measures import Summary, measured_over
from lab.ladders.rungs import Rung
from lab.numbers import in_percent, percent
from lab.run.record import LAST, RunRecord
from lab.run.results import folder_of, load_records


@dataclass(frozen=True)
class Outcome:
    """How the execution of one notebook ended; accuracy is the final one, None where nothing was trained."""

    id: str
    seconds: float
    accuracy: float | None
    path: Path
    error: str | None
    record: RunRecord | None = None

    @property
    def name(self):
        """Its name among the executions of a batch: "a03", or "a03 seed 1"."""
        seed = self.path.stem.removeprefix("seed")
        return self.id if seed == "0" else f"{self.id} seed {seed}"


def format_outcome(outcome):
    accuracy = "" if outcome.accuracy is None else percent(outcome.accuracy)
    ending = f"FAILED  {outcome.error}" if outcome.error else str(_short(outcome.path))
    return f"{outcome.name}  ended  {outcome.seconds:6.0f} s  {accuracy:>7}  {ending}"


def _short(path):
    path = path.resolve()
    return path.relative_to(ROOT) if path.is_relative_to(ROOT) else path


def format_table(outcomes):
    lines = ["", "rung             seconds  accuracy  result"]
    for outcome in outcomes:
        accuracy = "–" if outcome.accuracy is None else percent(outcome.accuracy)
        lines.append(f"{outcome.name:15}  {outcome.seconds:7.0f}  {accuracy:>8}  {'FAILED' if outcome.error else 'ok'}")
    return "\n".join(lines)


# -------------------------------------------------------------------------------- what several seeds come to


def format_seeds(notebooks, outcomes):
    """A row per rung: test accuracy in percent over the seeds of a batch, and the published mean beside it.

    Args:
        notebooks: all that were executed.
        outcomes: Outcomes; those without a record have failed and are not counted.

    Returns: text; empty if no rung was trained.
    """
    rows, remarks = [], {}
    for rung in (notebook for notebook in notebooks if isinstance(notebook, Rung)):
        records = [outcome.record for outcome in outcomes if outcome.id == rung.id and outcome.record]
        if records:
            rows.append(_row(rung, records))
            remarks |= dict.fromkeys(_remarks(rung, records))
    if not rows:
        return ""
    header = ("rung", "test accuracy, %", "n", "mean", "std", "worst", "published")
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    lines = ["  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)) for row in [header, *rows]]
    return "\n".join(["", *(line.rstrip() for line in lines), *remarks])


def _row(rung, records):
    counts = {1 if rung.goal.at_the_end else min(LAST, len(record.epochs)) for record in records}
    summary = Summary.of(records, at_the_end=rung.goal.at_the_end)
    spread = "–" if summary.std is None else in_percent(summary.std)
    measures = " or ".join(measured_over(count) for count in sorted(counts))
    return (
        rung.id,
        measures,
        str(summary.n),
        in_percent(summary.mean),
        spread,
        in_percent(summary.worst),
        _published(rung),
    )


def _published(rung):
    records = load_records(rung.id)
    if not records:
        return "–"
    summary = Summary.of(records, at_the_end=rung.goal.at_the_end)
    return f"{in_percent(summary.mean)} (n={summary.n})"


def _remarks(rung, records):
    """Why what was measured cannot be compared with the published mean beside it; one line each."""
    published = load_records(rung.id)
    if not published:
        return
    if any(record.dataset == "sample" for record in records):
        yield "The sample and the full MNIST cannot be compared: the published means are of the full set."
    elif any(record.train_total != published[0].train_total for record in records):
        yield f"{rung.id} was trained on {records[0].train_total:,} images, not on all: it cannot be compared."
    ours, theirs = records[0].recipe, published[0].recipe
    if folder_of(rung.id, ours) != rung.id:
        yield f"{rung.id} was trained with a recipe that is not the published one."
    elif ours != theirs:
        yield f"{rung.id} was trained for {ours['epochs']} of the {theirs['epochs']} epochs of the published runs."
