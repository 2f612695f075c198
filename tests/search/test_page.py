"""The search on a page: its tables against the trials that they are made of, and scipy."""

import json

import numpy as np
import pytest
from scipy import stats

from lab.search import page as search_page
from lab.search.trials import HELD_OUT, SEARCH, Trial, load_trials

BASE = {"layers": "c4 G", "epochs": 6}
OTHERS = [BASE | {"average": 0}, BASE | {"layers": "c8 G"}]


@pytest.fixture
def folder(tmp_path):
    """Three candidates with four seeds each, written seed by seed, and one run that broke off."""
    draw = np.random.default_rng(0)
    lines = []
    for seed in range(4):
        for size, settings in zip((100, 100, 200), (BASE, *OTHERS), strict=True):
            correct = draw.integers(9_800, 9_900, 6).tolist()
            lines.append(vars(Trial(settings, seed, size, correct, [0.1] * 6, 1800.0, "d")))
    lines.append(vars(Trial(BASE | {"rate": 9.0}, 0, 100, None, None, 1.0, "d")))
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return tmp_path


def values(folder, settings, count=5):
    trials = [trial for trial in load_trials(folder / "t.jsonl") if trial.settings == settings]
    return np.array([np.mean(trial.correct[-count:]) / HELD_OUT * 100 for trial in trials])


def test_changes_are_against_the_first_candidate(folder):
    """In pairs where both see the same from the same start, else by Welch's interval."""
    table = search_page.ablation_table("t", folder=folder)
    assert table.index.tolist() == ["all of it", "average 0", "layers c8 G"]
    assert table["parameters"].tolist() == ["100", "100", "200"]
    base, paired, other = (values(folder, settings) for settings in (BASE, *OTHERS))
    assert table["last five, %"].tolist()[0] == f"{base.mean():.2f} ± {base.std(ddof=1):.2f} (n=4)"
    expected = [
        (paired.mean() - base.mean(), stats.ttest_rel(paired, base).confidence_interval()),
        (other.mean() - base.mean(), stats.ttest_ind(other, base, equal_var=False).confidence_interval()),
    ]
    changes = table["last five, %: change"].tolist()
    assert changes == ["–", *(f"{mean:+.2f} [{bounds.low:+.2f}, {bounds.high:+.2f}]" for mean, bounds in expected)]


def test_another_measure(folder):
    last = search_page.ablation_table("t", "last epoch, %", folder)["last epoch, %"].tolist()[0]
    found = values(folder, BASE, count=1)
    assert last == f"{found.mean():.2f} ± {found.std(ddof=1):.2f} (n=4)"


def test_a_row_for_every_topic(folder):
    (row,) = search_page.search_table(folder).to_dict("records")
    assert (row["candidates"], row["runs"], row["hours"], row["parameters"]) == (3, 12, "6.0", "100 – 200")
    best = max(max(values(folder, settings, count=1)) for settings in (BASE, *OTHERS))
    assert row["best single run, %"] == f"{best:.2f}"


def test_a_topic_of_ones_own_is_as_good_as_a_published_one_and_is_not_listed(folder):
    published = sorted(path.stem for path in SEARCH.glob("*.jsonl"))
    assert search_page.search_table().index.tolist() == published
    assert len(search_page.trials_of("t", folder)) == 12
    assert len(search_page.trials_of(published[0], folder)) > 0
    with pytest.raises(FileNotFoundError, match=f"there are {published[0]}, .*, t$"):
        search_page.plot_search(["u"], folder=folder)


@pytest.mark.parametrize(
    ("epochs", "title"), [((3,), "last 3, %"), ((1, 2), "last 1 or 2, %"), ((5, 6), "last five, %")]
)
def test_means_of_fewer_than_five_epochs_say_so(tmp_path, epochs, title):
    trials = [Trial(BASE | {"epochs": count}, 0, 100, [9_800] * count, [0.1] * count, 1.0, "d") for count in epochs]
    (tmp_path / "u.jsonl").write_text("\n".join(json.dumps(vars(trial)) for trial in trials), encoding="utf-8")
    assert title in search_page.ablation_table("u", folder=tmp_path).columns
    assert search_page.plot_search(["u"], folder=tmp_path).figure.axes[0].get_ylabel() == f"held-out images, {title}"


def test_a_search_of_which_nothing_ended_is_named(tmp_path):
    (tmp_path / "u.jsonl").write_text(json.dumps(vars(Trial(BASE, 0, 100, None, None, 1.0, "d"))), encoding="utf-8")
    with pytest.raises(ValueError, match="every run of the search 'u' diverged"):
        search_page.screen_table("u", folder=tmp_path)


def test_a_figure_has_a_dot_for_every_run_that_ended(folder):
    (axis,) = search_page.plot_search(["t"], folder=folder).figure.axes
    assert len(axis.collections[0].get_offsets()) == 12


def test_a_topic_that_does_not_exist_is_named():
    known = sorted(path.stem for path in SEARCH.glob("*.jsonl"))[0]
    with pytest.raises(FileNotFoundError, match=f"'nothing'; there are {known}"):
        search_page.ablation_table("nothing")


@pytest.mark.parametrize("topic", ["accurate_recipe", "smaller_recipe", "sooner_recipe"])
def test_the_screens_that_were_made_can_be_read(topic):
    table = search_page.screen_table(topic)
    assert (table["low"] <= table["high"]).all()
    assert table["n"].min() >= 8


def test_a_schedule_with_its_defaults_is_the_same_as_without(tmp_path):
    """Rungs write schedules down whole, candidates as far as they say something."""
    whole = {"name": "OneCycleLR", "max_learning_rate": 0.015, "warmup": 0.3}
    settings = [
        {"rung": "a07", "schedule": schedule, **larger}
        for schedule in ({"name": "OneCycleLR", "max_learning_rate": 0.015}, whole)
        for larger in ({}, {"batch_size": 64})
    ]
    trials = [Trial(chosen, 0, 100, [9_800] * 5, [0.1] * 5, 1.0, "d") for chosen in settings]
    (tmp_path / "u.jsonl").write_text("\n".join(json.dumps(vars(trial)) for trial in trials), encoding="utf-8")
    assert search_page.screen_table("u", folder=tmp_path).index.tolist() == ["batch_size = 64"]
