"""Digits as training sees them."""

import torch

from lab.pages.picture import listed
from lab.pages.plots import plot_groups
from lab.training.augment import distort

TIMES = 3


def plot_distorted(name, recipe, split):
    """Draw digits as they are stored and, three times, as a recipe may distort them; always in the same way.

    Args:
        name: of the recipe.
        split: the digits, ten at most.
    """
    labels, rows = [f"{label}" for label in split.labels], {"as stored": split.images}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for time in range(1, TIMES + 1):
            rows[f"as {name} may see them, {time}"] = distort(split.images, recipe.augmentation)
    kinds = listed(recipe.augmentation) or "nothing"
    what = f"Ten digits as stored, then {TIMES} times as {name} may see them, changed by {kinds}"
    return plot_groups({title: (images, labels) for title, images in rows.items()}, what=what)
