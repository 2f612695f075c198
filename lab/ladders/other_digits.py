"""What would hold on other digits: the test images are a sample, too.

A network that is right on 99.4 % of 10,000 images has a standard error of 0.077 points from the images alone, however
many seeds are run. Runs share the test images, so a difference between recipes is surer than either accuracy.

Sources: Owen 2007, "The pigeonhole bootstrap"; Dietterich 1998, "Approximate statistical tests for comparing supervised
classification learning algorithms".
"""

from dataclasses import dataclass

import numpy as np

from lab.ladders.effects import CONFIDENCE, are_alike
from lab.run.record import TEST_IMAGES

DRAWS = 4_000
MEASURED = ("test accuracy", "final test accuracy")  # what errors after the last epoch can speak for


@dataclass(frozen=True)
class OnOtherDigits:
    """A mean over seeds after the last epoch, or a difference of two, in points.

    `low` and `high` are the ends of the 95 % interval over seeds and images, `of_seeds` and `of_images` the parts of
    the standard error: what stays with endless images, and with endless seeds.
    """

    estimate: float
    low: float
    high: float
    of_seeds: float
    of_images: float


def on_other_digits(after, before=None, *, minus=0.0):
    """Resample runs and test images, each on its own, as often as it takes to see how far the estimate moves.

    Args:
        after, before: runs with `errors`; where their seeds pair, see `are_alike`, they are drawn in pairs. Without
            `before`, the accuracy itself in percent, less `minus`.

    Returns: OnOtherDigits; None with fewer than two runs on a side, or where a run does not say what it gets wrong.
    """
    sides = [after] if before is None else [after, before]
    if any(len(side) < 2 or any(run.errors is None for run in side) for side in sides):
        return None
    shared = {run.seed for run in sides[0]} & {run.seed for run in sides[-1]}
    paired = len(sides) == 2 and len(shared) > 1 and are_alike(*sides)
    if paired:
        sides = [[run for run in side if run.seed in shared] for side in sides]
    images = sorted({image for side in sides for run in side for image in run.errors})
    wrong = [np.array([np.isin(images, run.errors) for run in side]).T for side in sides]

    generator = np.random.default_rng(0)
    chances = [*[1 / TEST_IMAGES] * len(images), 1 - len(images) / TEST_IMAGES]  # the others are right in every run
    drawn_images = generator.multinomial(TEST_IMAGES, chances, DRAWS)[:, :-1]
    drawn_runs = [generator.multinomial(len(side), [1 / len(side)] * len(side), DRAWS) / len(side) for side in sides]
    drawn_runs = [drawn_runs[0]] * len(sides) if paired else drawn_runs
    all_images, all_runs = np.ones((1, len(images))), [np.full((1, len(side)), 1 / len(side)) for side in sides]

    def estimates(images, runs):
        """Of every draw, given how often it has each image, and with which share each run."""
        errors = [((images @ part) * shares).sum(axis=1) for part, shares in zip(wrong, runs, strict=True)]
        percent = [100 * (1 - count / TEST_IMAGES) for count in errors]
        return percent[0] - (percent[1] if len(percent) == 2 else float(minus))

    low, high = np.quantile(estimates(drawn_images, drawn_runs), [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    of_seeds, of_images = estimates(all_images, drawn_runs).std(), estimates(drawn_images, all_runs).std()
    return OnOtherDigits(estimates(all_images, all_runs)[0], low, high, of_seeds, of_images)
