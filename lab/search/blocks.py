"""One comparison on every block of training images that is held out, and on the test set: do they agree?"""

import matplotlib.pyplot as plt

from lab.ladders.effects import compare_runs, compare_seeds, difference_from, format_difference
from lab.pages.picture import finish, listed
from lab.run.results import load_records
from lab.search.page import MEASURES, trials_of
from lab.search.trials import HELD_OUT, OWN

IMAGES = 60_000  # to train on
ALL, TEST = "all of these", "test images"


def differences_by_block(after, before, *, at_the_end=False, topic="second_opinion", folder=OWN):
    """How far one rung's recipe is ahead of another's in points, by the images that were held out.

    Args:
        after, before: names of published recipes that the topic has tried, {"rung": name}.
        at_the_end: compare the last epoch, not the mean of the last five.

    Returns: dictionary of Difference by the numbers of the images: over the seeds that held them out, by Welch's
        interval; then for `ALL`, over the blocks, so that its interval speaks for other images as well; then for the
        published runs on the test images.
    Raises: ValueError naming a recipe that the topic has not tried on two blocks.
    """
    value, trials, sides = MEASURES["last epoch, %" if at_the_end else "last five, %"], trials_of(topic, folder), []
    for name in (after, before):
        side = {}
        for trial in trials:
            if trial.settings == {"rung": name}:
                side.setdefault(trial.block, {})[trial.seed] = value(trial)
        if len(side) < 2:
            raise ValueError(f"differences_by_block: {topic!r} has not tried {name!r} on two blocks of images")
        sides.append(side)
    found = {}
    for block in sorted(sides[0].keys() & sides[1].keys(), reverse=True):
        last = IMAGES - block * HELD_OUT
        found[f"{last - HELD_OUT + 1:,} – {last:,}"] = compare_seeds(*(side[block] for side in sides), alike=False)
    found[ALL] = difference_from([one.estimate for one in found.values()])
    records = [load_records(name) for name in (after, before)]
    found[TEST] = compare_runs(*records, "final test accuracy" if at_the_end else "test accuracy")
    return found


def plot_blocks(after, before, **knobs):
    """Draw `differences_by_block` with their 95 % intervals."""
    found = differences_by_block(after, before, **knobs)
    figure, axis = plt.subplots(figsize=(5.2, 2.9))
    for place, (name, one) in enumerate(found.items()):
        low, high = one.interval or (one.estimate, one.estimate)
        reach = [[one.estimate - low], [high - one.estimate]]
        axis.errorbar(
            one.estimate, place, xerr=reach, fmt="o", capsize=3, color={ALL: "C0", TEST: "C1"}.get(name, "0.5")
        )
    axis.axvline(0, color="0.7", zorder=0)
    axis.set_yticks(range(len(found)), found, fontsize=8)
    axis.set(xlabel=f"{after} minus {before}, points", ylim=(len(found) - 0.5, -0.5))
    said = listed([f"{name} {format_difference(one)}" for name, one in found.items()], len(found))
    return finish(figure, f"Accuracy of {after} minus that of {before} in points, by the images held out: {said}")
