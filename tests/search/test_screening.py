"""Designs and effects against their definitions, and against scipy's two-sample interval."""

from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from lab.search.screening import effects, screen
from lab.search.trials import Trial

BASE = {"rate": 0.1, "epochs": 3}


def trial(settings, value):
    return Trial(settings, 0, 1, [value], [0.0], 1.0, "")


def value(trial):
    return trial.correct[0]


@pytest.mark.parametrize("count", [1, 2, 3, 8, 11])
def test_no_effect_is_mixed_with_that_of_another_setting_or_of_a_pair(count):
    names = [f"x{position}" for position in range(count)]
    candidates = screen({"layers": "c8 G"} | {name: [-1, 1] for name in names})
    assert len(candidates) < 4 * count + 1
    assert all(candidate["layers"] == "c8 G" for candidate in candidates)
    columns = {name: np.array([candidate[name] for candidate in candidates]) for name in names}
    for name, column in columns.items():
        assert column.sum() == 0
        others = [columns[other] for other in names if other != name]
        assert all(column @ other == 0 for other in others)
        assert all(column @ (one * two) == 0 for one, two in combinations(others, 2))


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"rate": 0.1}, "nothing varies"), ({"rate": [0.1]}, "rate=.* two"), ({"rate": [1, 1]}, "two different values")],
)
def test_what_cannot_be_screened_is_told(settings, message):
    with pytest.raises(ValueError, match=message):
        screen(settings)


def test_effects_that_add_up_are_found_exactly():
    def truth(settings):
        return 99.0 + 0.1 * (settings["rate"] == 0.2) - 0.3 * (settings["epochs"] == 2)

    candidates = screen({"rate": [0.1, 0.2], "epochs": [3, 2], "scale": [0.1, 0.2]})
    table = effects([trial(settings, truth(settings)) for settings in candidates], value, BASE | {"scale": 0.1})
    assert table["effect"].to_dict() == pytest.approx(
        {"rate = 0.2": 0.1, "epochs = 2": -0.3, "scale = 0.2": 0}, abs=1e-9
    )


def test_one_setting_has_the_interval_of_two_samples():
    before, after = [99.1, 99.3, 99.2], [99.5, 99.4, 99.9, 99.6]
    trials = [trial({}, accuracy) for accuracy in before] + [trial({"rate": 0.2}, accuracy) for accuracy in after]
    row = effects([*trials, Trial({"rate": 0.2}, 9, 1, None, None, 1.0, "")], value, BASE).loc["rate = 0.2"]
    expected = stats.ttest_ind(after, before).confidence_interval(0.95)
    assert (row["low"], row["high"], row["n"]) == pytest.approx((expected.low, expected.high, 4))


def test_too_few_trials_are_refused():
    trials = [trial({}, 1), trial({"rate": 0.2, "epochs": 2}, 2), trial({}, 3), trial({"rate": 0.2, "epochs": 2}, 3)]
    with pytest.raises(ValueError, match="4 trials are too few, or too much alike, to tell 2 settings apart"):
        effects(trials, value, BASE)
