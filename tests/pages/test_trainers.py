"""Both trainers' runs in pairs, and one test over all rows."""

import json
import statistics

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from lab.pages import trainers
from lab.pages.plots import plot_trainers
from lab.run.results import RESULTS, load_records


@pytest.fixture
def torch_results(tmp_path):
    """Results of a05 in which every test count of the last epochs is one lower."""
    content = json.loads((RESULTS / "a05.json").read_text(encoding="utf-8"))
    for seed, run in enumerate(content["runs"]):
        for row in run["epochs"]:
            row["test_correct"] -= 10 + seed
            row["train_seconds"] = 2.0
    (tmp_path / "a05.json").write_text(json.dumps(content), encoding="utf-8")
    return tmp_path


def test_a_row_pairs_the_seeds(torch_results):
    table = trainers.compare_trainers(torch_results)
    assert list(table.index) == ["a05"]
    row, ours = table.loc["a05"], [float(100 * record.last5) for record in load_records("a05")]
    lower = [value - (10 + seed) / 100 for seed, value in enumerate(ours)]
    expected = stats.ttest_rel(ours, lower)
    assert row["compiled"] == pytest.approx(statistics.mean(ours))
    assert row["torch"] == pytest.approx(statistics.mean(lower))
    assert row["difference"] == pytest.approx(0.12)
    low, high = expected.confidence_interval()
    assert (row["low"], row["high"], row["p"]) == pytest.approx((low, high, expected.pvalue))
    assert (row["seeds"], row["torch, s"]) == (5, 2.0 * 15)
    shown = trainers.show_trainers(table).loc["a05"]
    assert shown["difference, points"] == f"+0.12 [{low:+.2f}, {high:+.2f}]"
    assert (shown["torch, %"], shown["torch, s"]) == (f"{statistics.mean(lower):.2f}", "30")


def test_the_figure_shows_every_difference_with_its_interval(torch_results):
    table = trainers.compare_trainers(torch_results)
    (axis,) = plot_trainers(table).figure.axes
    assert [label.get_text() for label in axis.get_yticklabels()] == ["a05"]
    line, _, (bar,) = axis.containers[0]
    assert line.get_xdata() == pytest.approx(table["difference"])
    assert [*bar.get_segments()[0][:, 0]] == pytest.approx([table["low"].iloc[0], table["high"].iloc[0]])


def rows_of(shift, rows=40, seeds=5):
    """Differences of a trainer that is `shift` standard deviations better."""
    found, generator = {}, np.random.default_rng(3)
    for name in range(rows):
        drawn = generator.normal(shift, 1, seeds)
        found[f"r{name}"] = {"difference": drawn.mean(), "p": stats.ttest_1samp(drawn, 0).pvalue}
    return pd.DataFrame.from_dict(found, orient="index")


def test_chance_passes_and_a_small_bias_of_all_rows_does_not():
    """Forty rows find a bias that none of them shows."""
    same, biased = (trainers.judge_trainers(rows_of(shift))[""] for shift in (0, 0.5))
    combined, even, *_ = same.index
    assert float(same[combined]) > 0.05
    assert float(same[even]) > 0.05
    assert float(biased[combined]) < 0.01
    assert (rows_of(0.5)["p"] < 0.05 / 40).sum() == 0


def test_one_row_that_is_wrong_is_named():
    table = rows_of(0)
    table.loc["r7", "p"] = 1e-5
    (holm,) = [name for name in trainers.judge_trainers(table).index if "Holm" in name]
    assert "r7" in holm
    assert trainers.judge_trainers(table).loc[holm, ""] == "0.00"
