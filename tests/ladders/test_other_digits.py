"""The spread over seeds and images against closed forms, and against new seeds and new images."""

import math
from dataclasses import replace

import numpy as np
import pytest
from test_claims import run

from lab.ladders.other_digits import on_other_digits

IMAGES = 10_000


def runs_of(wrong, **settings):
    """A run for every row of a matrix that says which images are wrong, bool (runs, images)."""
    made = [run(seed, 99.0, **settings) for seed in range(len(wrong))]
    return [replace(record, errors=np.flatnonzero(row).tolist()) for record, row in zip(made, wrong, strict=True)]


def draw(generator, runs, *, images=IMAGES, share=0.006, harder=0.0):
    """Runs that err on hard images often: how often on which image, and how good a run is, are drawn at random."""
    hardness = generator.beta(0.02, 0.02 * (1 / share - 1), images)
    skill = np.exp(harder + 0.1 * generator.standard_normal((runs, 1)))
    return generator.random((runs, images)) < np.clip(hardness * skill, 0, 1)


def test_one_accuracy_has_the_binomial_error_of_its_images():
    """Runs that all err on the same 60 images leave only the images: the textbook's sqrt(p (1 - p) / n)."""
    wrong = np.zeros((5, IMAGES), dtype=bool)
    wrong[:, :60] = True
    found = on_other_digits(runs_of(wrong), minus=99.4)
    assert (found.estimate, found.of_seeds) == (pytest.approx(0.0, abs=1e-9), pytest.approx(0.0, abs=1e-9))
    assert found.of_images == pytest.approx(100 * math.sqrt(0.006 * 0.994 / IMAGES), rel=0.05)  # 0.077 points
    assert (found.low, found.high) == pytest.approx((-0.15, 0.15), abs=0.02)


def test_errors_are_those_of_a_crossed_design():
    """Without interaction the variances of the row and column means, over their numbers: analysis of variance."""
    wrong = draw(np.random.default_rng(0), 20)
    found = on_other_digits(runs_of(wrong))
    assert found.estimate == pytest.approx(100 - 100 * wrong.mean())
    assert found.of_seeds == pytest.approx(100 * wrong.mean(1).std() / math.sqrt(20), rel=0.05)
    assert found.of_images == pytest.approx(100 * wrong.mean(0).std() / math.sqrt(IMAGES), rel=0.05)


def test_a_difference_is_taken_on_the_same_images():
    wrong = draw(np.random.default_rng(1), 40)
    after, before = wrong[:20], wrong[20:]
    found = on_other_digits(runs_of(after), runs_of(before, network="B"))
    by_image = after.mean(0) - before.mean(0)
    assert found.of_images == pytest.approx(100 * by_image.std() / math.sqrt(IMAGES), rel=0.05)
    alone = on_other_digits(runs_of(after)).of_images
    assert found.of_images < alone / 2
    spread = math.sqrt(sum(part.mean(1).var() / 20 for part in (after, before)))
    assert found.of_seeds == pytest.approx(100 * spread, rel=0.05)


def test_seeds_are_drawn_in_pairs_where_they_pair():
    wrong = draw(np.random.default_rng(2), 20)
    found = on_other_digits(runs_of(wrong), runs_of(wrong, schedule={"name": "StepLR"}))
    assert (found.of_seeds, found.of_images, found.low, found.high) == pytest.approx((0, 0, 0, 0))


def test_the_interval_covers_what_other_seeds_and_images_give():
    """The truth is the mean over many runs and images of which those seen are a sample."""
    generator, covered, trials = np.random.default_rng(3), 0, 60
    world = draw(generator, 200, images=60_000)
    truth = 100 - 100 * world.mean()
    for _ in range(trials):
        seen = world[np.ix_(generator.choice(200, 12), generator.choice(60_000, IMAGES))]
        found = on_other_digits(runs_of(seen))
        covered += found.low <= truth <= found.high
    assert covered / trials > 0.95 - 4 * math.sqrt(0.95 * 0.05 / trials)


def test_what_cannot_be_known_is_not_said():
    wrong = draw(np.random.default_rng(4), 3)
    assert on_other_digits(runs_of(wrong[:1])) is None
    assert on_other_digits([replace(record, errors=None) for record in runs_of(wrong)]) is None
    assert on_other_digits(runs_of(wrong), runs_of(wrong[:1])) is None
