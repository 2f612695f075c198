"""All rungs side by side: costs counted by hand, the front by its definition, tables against their files."""

import re

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from scipy.stats import false_discovery_control
from torch import nn

import model
import utils
from lab.ladders.measures import Summary
from lab.ladders.originals import original_claims, source_steps
from lab.ladders.rungs import find_rung, find_rungs
from lab.ladders.verdicts import Family
from lab.pages.tables import SortableTable, count_of
from lab.run.results import RESULTS, load_records


def by_hand(*layers):
    """Each layer as side of its map, channels in and out, side of its kernel."""
    return sum(size**2 * given * made * kernel**2 for size, given, made, kernel in layers)


def test_multiply_accumulates_by_hand():
    pooled = [
        (26, 1, 8, 3),
        (24, 8, 16, 3),
        (12, 16, 8, 1),
        (10, 8, 10, 3),
        (8, 10, 10, 3),
        (6, 10, 16, 3),
        (6, 16, 10, 1),
    ]
    assert utils.multiply_accumulates(model.PooledSkeleton()) == by_hand(*pooled) == 917_856
    large = [(28, 1, 32, 3), (28, 32, 64, 3), (14, 64, 128, 3), (14, 128, 256, 3)]
    large += [(5, 256, 512, 3), (3, 512, 1024, 3), (1, 1024, 10, 3)]
    assert utils.multiply_accumulates(model.Oversized().eval()) == by_hand(*large)
    assert utils.multiply_accumulates(nn.Sequential(nn.Flatten(), nn.Linear(784, 10))) == 7_840


def clean_and_gap_by_hand(record):
    """Over the last five epochs; over the last one in shorter runs and in those that measured no more."""
    rows = [row for row in record.epochs if "clean_train_correct" in row]
    if len(rows) == 5:
        counts = [(row["clean_train_correct"], row["test_correct"]) for row in rows]
    else:
        counts = [(record.clean_train_correct, record.epochs[-1]["test_correct"])]
    clean = np.mean([100 * correct / record.clean_train_total for correct, _ in counts])
    return clean, clean - np.mean([correct / 100 for _, correct in counts])


def test_overview_has_every_rung_and_numbers_that_sort():
    table = utils.overview()
    assert list(table.index) == [rung.id for rung in find_rungs()]
    assert all(
        pd.api.types.is_numeric_dtype(table[column]) for column in table.columns if column not in ("idea", "constraint")
    )
    for name, row in table.iterrows():
        records = load_records(name)
        assert row["n"] == len(records)
        if records:
            count = 1 if find_rung(name).goal.at_the_end else 5
            headlines = np.array([record.test_accuracies[-count:] for record in records]).mean(axis=1)
            assert row["last five"] == pytest.approx(100 * headlines.mean())
            by_hand = np.mean([clean_and_gap_by_hand(record) for record in records], axis=0)
            assert (row["clean train"], row["gap"]) == pytest.approx(tuple(by_hand))
        assert (row["constraint"] == "–") == (not records)


@pytest.mark.parametrize(("name", "saved"), [("e02", 99), ("a03", 68), ("b08", 0), ("a01", 0)])
def test_a_folded_normalisation_saves_a_number_per_channel(name, saved):
    """Counted by hand: the channels of all normalisations that stand right behind a convolution."""
    recipe = utils.find_recipe(name)
    stored = f" ({recipe.parameters - saved:,} stored)" if saved else ""
    assert count_of(recipe) == f"{recipe.parameters:,}{stored}"


def table_of(*rows):
    return pd.DataFrame(rows, columns=["parameters", "last five"], index=list("pqrstu"[: len(rows)]))


def test_front_is_what_no_rung_beats():
    table = table_of((100, 98.0), (50, 97.0), (60, 96.0), (200, 98.0), (100, 97.5), (300, np.nan))
    assert list(utils.pareto_front(table).index) == ["q", "p"]
    random = np.random.default_rng(0)
    table = pd.DataFrame({"parameters": random.integers(1, 20, 60), "last five": random.integers(90, 99, 60) * 1.0})
    beaten = [
        any(
            other["parameters"] <= row["parameters"]
            and other["last five"] >= row["last five"]
            and tuple(other) != tuple(row)
            for _, other in table.iterrows()
        )
        for _, row in table.iterrows()
    ]
    front = utils.pareto_front(table)
    assert set(map(tuple, front.to_numpy())) == set(map(tuple, table[~np.array(beaten)].to_numpy()))
    assert front["last five"].is_monotonic_increasing


def test_originals_stand_beside_what_was_measured():
    table, steps = utils.originals_table(), source_steps()
    assert list(table.index) == list(steps)
    assert table.loc["t001-4", ["rung", "said", "logged best"]].tolist() == ["b04", "98.34", "99.34"]
    assert table.loc["t002-1", ["said", "logged best", "difference"]].tolist() == ["99.31", "–", "–"]
    records = load_records("a07")
    logged = np.mean(steps["t000-6"]["test_by_epoch"][-5:])
    assert table.loc["t000-6", "difference"] == f"{100 * Summary.of(records).mean - logged:+.2f}"


def test_tally_counts_what_stands_alone_and_among_all():
    """Against scipy's own correction; Holm's lets no more stand."""
    table, family = utils.tally_verdicts(), Family.of_all_pages()
    decided = table.loc[["shown", "refuted"]].sum()
    values = np.array(list(family.p_values.values()))
    assert decided["alone"] == (values < 0.05).sum()
    assert decided["Benjamini-Hochberg"] == (false_discovery_control(values, method="bh") < 0.05).sum()
    assert 0 < decided["Holm"] < decided["Benjamini-Hochberg"] < decided["alone"]
    comparisons = {claim.comparison for rung in find_rungs() for claim in rung.claims.values()}
    assert table["alone"].sum() == len(comparisons | {claim.comparison for _, claim in original_claims()})


def test_audit_has_every_claim_of_the_originals():
    table, steps = utils.audit(), source_steps()
    assert list(table["step"]) == [name for name, step in steps.items() for _ in step.get("claims", [])]
    assert {re.split(",| together", verdict)[0] for verdict in table["verdict"]} <= {"shown", "not shown", "refuted"}
    names = {name for rung in find_rungs() for name in rung.recipes}
    for name, step in steps.items():
        for claim in step.get("claims", []):
            (rung,) = [rung for rung in find_rungs() if name in rung.source]
            assert claim["of"].partition("_")[0] == rung.id
            assert claim["of"] in names
            assert isinstance(claim["against"], float) or claim["against"] in names


def test_originals_best_is_that_of_their_log():
    for name, step in source_steps().items():
        if log := step.get("test_by_epoch"):
            assert (step["best_test"], step["final_test"]) == (max(log), log[-1]), name


def test_selection_is_worth_what_numpy_says():
    table = utils.selection_table()
    rungs = [rung.id for rung in find_rungs() if not rung.goal.at_the_end]  # else nothing is chosen
    runs = [np.array(record.test_accuracies, dtype=float) for rung in rungs for record in load_records(rung)]
    gains = [100 * (run.max() - run[-5:].mean()) for run in runs]
    row = table.loc["measured here"]
    assert (row["runs"], row["mean gain"], row["largest"]) == (
        len(runs),
        f"{np.mean(gains):.2f}",
        f"{max(gains):.2f}",
    )
    assert table.loc["the originals' logs", "runs"] == 24  # 26 logs, two of them shown twice


def test_consistency_shows_every_seed():
    records = load_records("a07")
    picture = utils.plot_consistency({"a07": records})
    (axis,) = (axis for axis in picture.figure.axes if axis.get_visible())
    shown = np.sort(axis.collections[0].get_array().reshape(len(records), 5), axis=0)
    beyond = [[row["test_correct"] / 100 - 99.4 for row in record.epochs[-5:]] for record in records]
    np.testing.assert_allclose(shown, np.sort(beyond, axis=0), atol=1e-9)
    steady = sum(min(row) >= -1e-9 for row in beyond)
    assert axis.get_title() == f"a07: {steady} of {len(records)}"
    assert picture.words.endswith(axis.get_title())


def test_sortable_table_formats_and_stays_a_table():
    table = pd.DataFrame({"size": [1000.0, np.nan], "name": ["x", "y"]}, index=["a", "b"])
    page = SortableTable(table, {"size": "{:,.0f}".format})._repr_html_()
    assert page.count("onclick=") == 3  # the rung and two columns
    assert "<td>1,000</td>" in page
    assert "<td>–</td>" in page
    assert table["size"].iloc[0] == 1000.0


def test_figures_show_the_table():
    table = utils.overview()
    front, measured = utils.pareto_front(table), table.dropna(subset="last five")
    whole, closer = utils.plot_size_against_accuracy(table, front).figure.axes
    labels = " ".join(text.get_text() for axis in (whole, closer) for text in axis.texts).split()
    assert set(front.index) <= set(labels) <= set(measured.index)  # others only where they have room
    assert len(set(labels)) == len(labels)
    assert list(whole.lines[0].get_ydata()) == list(closer.lines[0].get_ydata()) == front["last five"].tolist()
    roads = [axis for axis in utils.plot_roads(table).figure.axes if axis.has_data()]
    assert len(roads) == measured.index.str[0].nunique()
    records = [load_records(path.stem)[0] for path in sorted(RESULTS.glob("a0*.json"))[-2:]]
    curves = utils.plot_test_accuracy({"one": records[0], "two": records})
    mean = np.mean([np.array(record.test_accuracies, dtype=float) for record in records], axis=0)
    assert list(curves.figure.axes[0].lines[1].get_ydata()) == pytest.approx(list(100 * mean))
    assert plt.get_fignums() == []
