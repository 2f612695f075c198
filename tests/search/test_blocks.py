"""One comparison on several blocks of held-out images, against scipy's intervals."""

import json

import numpy as np
import pytest
from scipy import stats

from lab.run.results import load_records
from lab.search.blocks import ALL, TEST, differences_by_block, plot_blocks

CORRECT = {  # by rung and block: of the last epoch, one per seed
    "e03": {0: [9940, 9950, 9945], 1: [9920, 9931, 9926]},
    "e03_one": {0: [9935, 9938, 9941], 1: [9925, 9911, 9919]},
}


@pytest.fixture
def folder(tmp_path):
    lines = [
        {"settings": {"rung": name}, "seed": 2 * position + block, "block": block, "correct": [9000, correct]}
        | {"parameters": 1, "loss": [0.1, 0.1], "seconds": 1.0, "code_digest": ""}
        for name, blocks in CORRECT.items()
        for block, found in blocks.items()
        for position, correct in enumerate(found)
    ]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return tmp_path


def test_a_block_is_compared_over_seeds_and_all_of_them_over_blocks(folder):
    found = differences_by_block("e03", "e03_one", at_the_end=True, topic="t", folder=folder)
    assert [*found] == ["40,001 – 50,000", "50,001 – 60,000", ALL, TEST]
    points = {name: [np.array(blocks[block]) / 100 for block in (1, 0)] for name, blocks in CORRECT.items()}
    for after, before, one in zip(points["e03"], points["e03_one"], found.values(), strict=False):
        interval = stats.ttest_ind(after, before, equal_var=False).confidence_interval()
        assert one.interval == pytest.approx((interval.low, interval.high))
    means = [after.mean() - before.mean() for after, before in zip(*points.values(), strict=True)]
    interval = stats.ttest_1samp(means, 0).confidence_interval()
    assert found[ALL].estimate == pytest.approx(np.mean(means))
    assert found[ALL].interval == pytest.approx((interval.low, interval.high))


def test_the_test_images_are_those_of_the_published_runs(folder):
    found = differences_by_block("e03", "e03_one", at_the_end=True, topic="t", folder=folder)[TEST]
    after, before = ([100 * record.final for record in load_records(name)] for name in ("e03", "e03_one"))
    assert found.estimate == pytest.approx(float(np.mean(after) - np.mean(before)))


def test_the_picture_says_what_it_draws(folder):
    picture = plot_blocks("e03", "e03_one", at_the_end=True, topic="t", folder=folder)
    assert "40,001 – 50,000 +0.07" in picture.words
    (axis,) = picture.figure.axes
    assert [label.get_text() for label in axis.get_yticklabels()][-2:] == [ALL, TEST]


def test_a_recipe_that_was_not_tried_on_two_blocks_is_named(folder):
    with pytest.raises(ValueError, match="'t' has not tried 'e04' on two blocks of images"):
        differences_by_block("e03", "e04", at_the_end=True, topic="t", folder=folder)
