"""Test images that published runs get wrong: by one of two networks, or by all of them."""

from collections import Counter
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from statsmodels.stats.contingency_tables import mcnemar

from lab.ladders.weights import load_weights
from lab.pages.plots import plot_digits, plot_groups
from lab.run.record import TEST_IMAGES
from lab.run.results import load_records
from lab.training.data import load_digits, mnist_folder
from lab.training.loop import prepare


@dataclass(frozen=True)
class Disagreement:
    """Test images that one of two networks alone gets wrong, as indices by its name, and how many both do.

    `p_value` says how often chance alone would divide them so unevenly between two networks that are equally good.
    """

    alone: dict[str, list[int]]
    both: int
    p_value: float


def compare_mistakes(one, other, *, seed=0):
    """What two published runs get wrong after their last epoch, by McNemar's exact test.

    Both have seen the same test images, so those on which they agree say nothing about which is better.

    Args:
        one, other: names of rungs or ablations.

    Raises: ValueError naming the one that has no such run with its errors.
    Source: McNemar 1947, "Note on the sampling error of the difference between correlated proportions".
    """
    wrong = {name: _errors(name).get(seed) for name in (one, other)}
    if missing := [name for name, errors in wrong.items() if errors is None]:
        raise ValueError(f"compare_mistakes: {missing[0]} has no published run with seed={seed}")
    only = {one: sorted(wrong[one] - wrong[other]), other: sorted(wrong[other] - wrong[one])}
    both = len(wrong[one] & wrong[other])
    right = TEST_IMAGES - both - sum(map(len, only.values()))
    found = mcnemar([[both, len(only[one])], [len(only[other]), right]], exact=True)
    return Disagreement(only, both, float(found.pvalue))


def show_disagreement(found):
    """Draw the images that one of two networks alone gets wrong with their labels; see `compare_mistakes`."""
    if (test := _test_images()) is None:
        return None
    groups = {f"{name} alone is wrong: {len(images)}": images for name, images in found.alone.items()}
    return plot_groups(
        {title: (test.images[images], [f"{test.labels[i]}" for i in images]) for title, images in groups.items()}
    )


def hardness_table(names):
    """How many test images are wrong in every run of all networks, in most of them, in some, in none.

    Args:
        names: of rungs or ablations; each counts alike, whatever its number of runs.
    """
    shares = _wrong_shares(names)
    mean = shares.mean(axis=0)
    every, never = (shares == 1).all(axis=0), (shares == 0).all(axis=0)
    most = ~every & (mean >= 0.5)
    rows = {
        "every run of every network": every,
        "most runs, but not all": most,
        "some runs, but not most": ~every & ~most & ~never,
        "no run": never,
    }
    return pd.DataFrame({"test images": {name: int(images.sum()) for name, images in rows.items()}})


def nobodys_digits(names):
    """Test images that every published run of all these networks gets wrong, as indices."""
    return np.flatnonzero((_wrong_shares(names) == 1).all(axis=0)).tolist()


def show_nobodys_digits(names):
    """Draw them with their labels, and what the networks say in their place: those of `load_weights`, by frequency."""
    if (test := _test_images()) is None:
        return None
    images = nobodys_digits(names)
    batch = prepare(test.images[images], ())
    with torch.inference_mode():
        said = [load_weights(name)(batch).argmax(1).tolist() for name in names]
    answers = [Counter(each).most_common() for each in zip(*said, strict=True)]
    captions = [
        f"{test.labels[image]}: " + ", ".join(f"{count}x {digit}" for digit, count in counted)
        for image, counted in zip(images, answers, strict=True)
    ]
    return plot_digits(test.images[images], captions, columns=6)


def _wrong_shares(names):
    """For every network and test image, which share of runs gets it wrong: (networks, images)."""
    shares = np.zeros((len(names), TEST_IMAGES))
    for row, name in zip(shares, names, strict=True):
        runs = _errors(name)
        for errors in runs.values():
            row[list(errors)] += 1 / len(runs)
    return shares.round(9)  # twenty twentieths are a whole


def _errors(name):
    """The errors of every published run, a set by seed.

    Raises: ValueError naming a run without.
    """
    found = {record.seed: record.errors for record in load_records(name)}
    if not found or None in found.values():
        raise ValueError(f"{name}: not every published run says which test images it gets wrong. make all makes them")
    return {seed: set(errors) for seed, errors in found.items()}


def _test_images():
    """The test images, uint8 (10,000, 1, 28, 28), and labels, if MNIST is here; says so if not."""
    if mnist_folder():
        return load_digits("mnist").test
    print('MNIST is not on this machine. utils.load_digits("mnist") fetches it.')
    return None
