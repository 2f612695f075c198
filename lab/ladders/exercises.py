"""Exercises: a change to the recipe of a rung that a reader is asked to try, and the results that answer it."""

import re
import statistics
from dataclasses import dataclass
from functools import cached_property

import model
from lab.ladders.cells import NAMES
from lab.ladders.effects import compare_runs, format_difference
from lab.ladders.measures import accuracy_with_spread
from lab.numbers import percent
from lab.run.results import load_records

TAG = "exercise"
DIFF = re.compile(r"^```diff\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Exercise:
    """The change that the cell tagged "exercise" of a rung shows as a diff of the cell tagged "recipe"."""

    rung: object  # a Rung
    before: tuple[str, ...]  # lines of the recipe's cell
    after: tuple[str, ...]  # what a reader makes of them

    @property
    def cell(self):
        """The recipe's cell with the change.

        Raises: ValueError naming the notebook, if the lines to change are not there exactly once.
        """
        lines, size = self.rung.tagged("recipe").splitlines(), len(self.before)
        places = [at for at in range(len(lines) - size + 1) if tuple(lines[at : at + size]) == self.before]
        if len(places) != 1:
            raise ValueError(
                f"{self.rung.path.name}: what the exercise changes stands {len(places)} times in the recipe"
            )
        return "\n".join([*lines[: places[0]], *self.after, *lines[places[0] + size :]])

    @cached_property
    def recipe(self):
        scope = self.rung.defaults() | {"model": model, "utils": NAMES}
        return self.rung.run_text(self.cell, scope, "the exercise")["recipe"]

    @cached_property
    def answered_by(self):
        """Name of the results of exactly this change, and how many of their epochs count.

        Those of an ablation, if it is the same recipe; else results of its own, "a01_try". With a constant rate a run
        of fewer epochs is the beginning of a longer one.
        """
        changed, own = self.recipe.as_dict(), self.rung.recipe
        for name, recipe in self.rung.described.items():
            if changed == recipe.as_dict():
                return name, recipe.epochs
        is_shorter = changed == own.as_dict() | {"epochs": changed["epochs"]} and changed["epochs"] < own.epochs
        if is_shorter and not own.schedule:
            return self.rung.id, changed["epochs"]
        return f"{self.rung.id}_try", changed["epochs"]

    @property
    def answer(self):
        """What came of it, in a sentence."""
        name, epochs = self.answered_by
        records = load_records(name)
        if not records:
            return f"Not run yet: `make all RUNGS={self.rung.id}`."
        if name == self.rung.id:
            means = [*map(statistics.mean, zip(*(record.test_accuracies for record in records), strict=True))]
            then, last = percent(means[epochs - 1]), percent(means[-1])
            runs = f"the {len(records)} runs of this page are" if len(records) > 1 else "the run of this page (n=1) is"
            return f"After {epochs} epochs {runs} at {then}, at the end at {last}."
        change = format_difference(compare_runs(records, load_records(self.rung.id), self.rung.measure))
        summary = accuracy_with_spread(self.rung.summary_of(name))
        return f"**{summary}**, {change} points against the recipe of this page."

    @property
    def minutes(self):
        """Of one core, for training alone: those of the quickest seed, since other runs may have shared it; or None."""
        name, epochs = self.answered_by
        seconds = [sum(row["train_seconds"] for row in record.epochs[:epochs]) for record in load_records(name)]
        return min(seconds) / 60 if seconds else None


def exercise_of(rung):
    """The exercise of a rung; None if its notebook has no cell for it.

    Raises: ValueError naming the notebook, without exactly one diff there.
    """
    if not rung.has(TAG):
        return None
    diffs = DIFF.findall(rung.tagged(TAG))
    if len(diffs) != 1:
        raise ValueError(f"{rung.path.name}: its exercise shows {len(diffs)} diffs; it needs exactly one")
    lines = diffs[0].splitlines()
    before, after = (tuple(line[1:] for line in lines if line[0] in f" {sign}") for sign in "-+")
    return Exercise(rung, before, after)
