"""How long a batch of notebooks will still take."""

import time

from lab.ladders.rungs import Rung
from lab.pages.probes import multiply_accumulates


class TimeLeft:
    """Counts what has ended, and guesses from its work how long the rest takes.

    Args:
        works: of all that will run, in any unit; what is running when something ends counts as half done.
        jobs: how many run at a time.
    """

    def __init__(self, works, jobs):
        self.works, self.jobs, self.ended, self.done = works, jobs, 0, 0.0
        self.started = time.monotonic()

    def after(self, work):
        """Something with this much work has ended: "3 of 40 done, about 25 min left"."""
        self.ended, self.done = self.ended + 1, self.done + work
        waiting, elapsed = len(self.works) - self.ended, time.monotonic() - self.started
        if not waiting:
            return f"{self.ended} of {self.ended} done in {_words(elapsed)}"
        left = sum(self.works) - self.done
        running = left / waiting * min(self.jobs - 1, waiting) / 2
        seconds = elapsed * (left - running) / (self.done + running)
        return f"{self.ended} of {len(self.works)} done, {_words(seconds)} left"


def _words(seconds):
    hours, minutes = divmod(round(seconds / 60), 60)
    return (
        f"about {hours} h {minutes:02d} min" if hours else f"about {minutes} min" if minutes else "less than a minute"
    )


def work_of(notebook, parameters):
    """Multiply-accumulates of its training, per image; a small number where nothing is trained."""
    try:
        recipe = notebook.recipe if isinstance(notebook, Rung) else None
        epochs = parameters.get("epochs", recipe.epochs) if recipe else 0
        return 1e5 + (epochs * multiply_accumulates(recipe.specimen()) if recipe else 0)
    except Exception:  # a reader's network may raise anything, and will say so when its notebook runs
        return 1e5
