"""Intervals against textbook and scipy, in closed form and by simulation; claims against runs made to decide them."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import t, ttest_1samp, ttest_ind, ttest_rel

from lab.ladders import claims
from lab.ladders.claims import Claim
from lab.ladders.effects import (
    CONFIDENCE,
    Difference,
    compare_changes,
    compare_runs,
    contrast,
    difference,
    difference_from,
)
from lab.ladders.verdicts import CORRECTIONS, Family, correct, judge, seeds_needed, seeds_to_decide
from lab.run.record import RunRecord


def welch(after, before):
    """Half-width of the interval, from the textbook (Welch 1947) and the distribution's quantile."""
    parts = [np.var(group, ddof=1) / len(group) for group in (after, before)]
    freedom = sum(parts) ** 2 / sum(part**2 / (len(g) - 1) for part, g in zip(parts, (after, before), strict=True))
    return t.ppf((1 + CONFIDENCE) / 2, freedom) * math.sqrt(sum(parts))


@pytest.mark.parametrize(("n_after", "n_before"), [(2, 2), (5, 5), (3, 10), (10, 2)])
def test_interval_is_welch(n_after, n_before):
    generator = np.random.default_rng(n_after)
    after = (0.9940 + 0.0004 * generator.standard_normal(n_after)).tolist()
    before = (0.9925 + 0.0011 * generator.standard_normal(n_before)).tolist()
    found, middle, half = difference(after, before), np.mean(after) - np.mean(before), welch(after, before)
    np.testing.assert_allclose([found.estimate, found.low, found.high], [middle, middle - half, middle + half])
    assert found.n == (n_after, n_before)


def test_interval_in_closed_form():
    """Two pairs of equal spread: two degrees of freedom, whose quantile at 0.975 is 0.95 / sqrt(2 x 0.975 x 0.025)."""
    found = difference([0.990, 0.994], [0.980, 0.984])
    half = 0.95 / math.sqrt(2 * 0.975 * 0.025) * 0.004 / math.sqrt(2)
    np.testing.assert_allclose([found.low, found.high], [0.01 - half, 0.01 + half])


@pytest.mark.parametrize("pair", [([0.99], [0.5]), ([0.99, 0.98], [0.5]), ([0.99], [0.5, 0.6])])
def test_one_seed_gives_no_interval(pair):
    found = difference(*pair)
    assert found.estimate == pytest.approx(np.mean(pair[0]) - np.mean(pair[1]))
    assert (found.interval, found.low, found.high, found.error) == (None,) * 4


def test_equal_seeds_have_an_interval_of_no_width():
    found = difference([0.99, 0.99], [0.98, 0.98])
    assert (found.estimate, found.low, found.high) == pytest.approx((0.01, 0.01, 0.01))


def test_the_interval_of_two_groups_is_scipys():
    after, before = [99.41, 99.45, 99.38, 99.5], [99.3, 99.1, 99.35]
    expected = ttest_ind(after, before, equal_var=False)
    found = difference(after, before)
    np.testing.assert_allclose(found.interval, expected.confidence_interval(CONFIDENCE), atol=1e-9)
    assert found.p_value() == pytest.approx(expected.pvalue)
    assert found.spread == pytest.approx(math.hypot(np.std(after, ddof=1), np.std(before, ddof=1)))


def test_a_contrast_of_equal_spreads_has_the_degrees_of_freedom_of_all():
    """Four groups of equal size and variance: Satterthwaite's degrees of freedom are those of the pooled variance."""
    groups = [[mean + off for off in (-0.1, 0.0, 0.1)] for mean in (99.6, 99.3, 99.2, 99.1)]
    found = contrast(list(zip((1, -1, -1, 1), groups, strict=True)))
    half = t.ppf((1 + CONFIDENCE) / 2, 4 * 2) * 0.1 * math.sqrt(4 / 3)
    np.testing.assert_allclose([found.estimate, found.low, found.high], [0.2, 0.2 - half, 0.2 + half], atol=1e-9)
    assert found.n == (3,) * 4


def test_a_contrast_covers_the_truth_as_often_as_it_says():
    generator, trials, sizes, spreads = np.random.default_rng(1), 400, (10, 5, 5, 3), (1, 3, 0.5, 2)
    covered = 0
    for _ in range(trials):
        groups = [generator.normal(2, spread, size) for size, spread in zip(sizes, spreads, strict=True)]
        found = contrast(list(zip((1, -1, -1, 1), groups, strict=True)))
        covered += found.low <= 0 <= found.high
    assert abs(covered / trials - 0.95) < 4 * math.sqrt(0.95 * 0.05 / trials)


def test_interval_of_one_group_is_students():
    values = np.random.default_rng(1).normal(99.4, 0.05, 5).tolist()
    found, expected = difference_from(values, 99.3), ttest_1samp(values, 99.3)
    np.testing.assert_allclose(found.interval, np.array(expected.confidence_interval(CONFIDENCE)) - 99.3, atol=1e-9)
    assert found.p_value() == pytest.approx(expected.pvalue)
    assert found.spread == pytest.approx(np.std(values, ddof=1))
    assert difference_from([99.4]).low is None


# ------------------------------------------------------------------------------------------ claims


def run(seed, percent, *, clean=99.0, schedule=None, network="A"):
    """A record whose epochs all have one test accuracy."""
    recipe = {"network": network, "arguments": {}, "augmentation": [], "batch_size": 1, "held_out": 0, "epochs": 5}
    rows = [{"test_correct": round(percent * 100), "test_total": 10_000}] * 5
    values = {"rung": "x", "seed": seed, "dataset": "mnist", "dataset_sha256": "", "train_total": 1, "parameters": 1}
    values |= {"code_digest": "", "device": "cpu", "threads": 1, "versions": {}, "epochs": rows}
    values |= {"clean_train_correct": round(clean * 100), "clean_train_total": 10_000}
    return RunRecord(recipe=recipe | {"schedule": schedule}, **values)


def runs(*percents, **settings):
    return [run(seed, percent, **settings) for seed, percent in enumerate(percents)]


@pytest.fixture
def published(monkeypatch):
    """Results by name that stand in for the files of results/."""
    found = {
        "low": runs(98.90, 98.95, 99.00),
        "high": runs(99.40, 99.45, 99.50, network="B"),
        "also_high": runs(99.41, 99.44, 99.51, network="C"),
        "single": runs(99.40),
        "fitted": runs(99.40, 99.45, 99.50, clean=99.99),
    }
    monkeypatch.setattr(claims, "load_records", lambda name: found.get(name, []))
    return found


@pytest.mark.parametrize(
    ("arguments", "finding"),
    [
        (("high", "above", "low"), "shown"),
        (("low", "above", "high"), "refuted"),
        (("low", "below", "high"), "shown"),
        (("high", "below", "low"), "refuted"),
        (("high", "above", "also_high"), "not shown"),
        (("also_high", "below", "high"), "not shown"),
        (("high", "above", "low", "test accuracy", 0.2), "shown"),
        (("high", "above", "low", "test accuracy", 0.5), "not shown"),
        (("high", "within", "also_high", "test accuracy", 0.2), "shown"),
        (("high", "within", "also_high", "test accuracy", 0.02), "not shown"),
        (("high", "within", "low", "test accuracy", 0.2), "refuted"),
        (("high", "above", 99.0), "shown"),
        (("high", "above", 99.4), "not shown"),
        (("low", "above", 99.4), "refuted"),
        (("low", "below", 99.4), "shown"),
        (("single", "above", "low"), "not shown"),
        (("single", "above", 98.0), "not shown"),
        (("nowhere", "above", "low"), "not shown"),
        (("high", "above", "nowhere"), "not shown"),
        (("fitted", "above", "high", "gap"), "shown"),
        (("fitted", "above", 0.3, "gap"), "shown"),
    ],
)
def test_findings(arguments, finding, published):
    claim = Claim("So it is.", *arguments)
    assert claim.finding == finding
    if claim.p_value is not None:  # the interval and the p value decide alike
        found = claim.compare()
        bounds = (-claim.margin, claim.margin) if claim.relation == "within" else (claim.boundary(found.estimate),)
        assert any(found.low <= bound <= found.high for bound in bounds) == (finding == "not shown")


def test_runs_equal_to_the_last_bit_decide(published):
    published |= {"same": runs(99.40, 99.45, 99.50, network="B", schedule={"name": "StepLR"})}
    assert Claim("It gains.", "same", "above", "high").finding == "refuted"
    assert Claim("It is the same.", "same", "within", "high", "test accuracy", 0.01).finding == "shown"


def test_a_claim_may_count_seeds_from_one_on_alone(published):
    """The first of them pull the other way."""
    published |= {"luck": runs(99.9, 99.9, 98.5, 98.4, 98.6), "base": runs(98.0, 98.1, 99.1, 99.0, 99.2, network="B")}
    every, later = (Claim("It gains.", "luck", "above", "base", from_seed=seed) for seed in (0, 2))
    assert (every.finding, later.finding) == ("not shown", "refuted")
    by_hand = ttest_ind([98.5, 98.4, 98.6], [99.1, 99.0, 99.2], equal_var=False)
    assert later.p_value == pytest.approx(by_hand.pvalue, rel=1e-6)
    assert later.compared == "test accuracy, luck minus base, seeds from 2 on"
    assert len(Family([every, later]).p_values) == 2


@pytest.mark.parametrize(("correction", "kept"), [("Benjamini-Hochberg", 4), ("Holm", 3)])
def test_corrections_are_those_of_the_paper(correction, kept):
    """The example of Benjamini & Hochberg 1995, section 3; Holm stops at 0.0095, which is above 0.05 / 12."""
    values = [0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240, 0.4262, 0.5719]
    values += [0.6528, 0.7590, 1.0]
    corrected = correct(dict(enumerate(values)), CORRECTIONS[correction])
    assert [corrected[position] < 0.05 for position in range(15)] == [True] * kept + [False] * (15 - kept)


def test_a_verdict_says_what_a_reader_should_know(published):
    up = Claim("Up.", "high", "above", "low")
    assert Family([up]).verdict(up) == "shown"
    others = [Claim("Who knows.", "high", "above", "also_high", margin=-step / 1e6) for step in range(200)]
    assert Family([up, *others]).verdict(up) == "shown, uncorrected"
    told = replace(up, together_with="its length", afterwards=True)
    assert Family([told]).verdict(told) == "shown together with its length, asked afterwards"
    open_claim = replace(others[0], together_with="its length", afterwards=True)
    assert Family([open_claim]).verdict(open_claim) == "not shown, asked afterwards"


def test_a_comparison_counts_once_in_a_family(published):
    up = Claim("Up.", "high", "above", "low")
    assert len(Family([up, replace(up, sentence="It rises.")]).p_values) == 1
    assert Family([Claim("Who knows.", "single", "above", "low")]).p_values == {}


@pytest.mark.parametrize("groups", [1, 2])
def test_as_many_seeds_as_it_says_decide_four_times_out_of_five(groups):
    generator, studies = np.random.default_rng(groups), 2_000
    found = Difference(0.7, (5,) * groups, 0.5, 4, spread=math.sqrt(groups))  # every run has a deviation of 1
    needed = seeds_needed(found, 0.0)
    samples = generator.normal(size=(groups, studies, needed))
    samples[0] += 0.7
    p_values = (ttest_1samp(samples[0], 0, axis=1) if groups == 1 else ttest_ind(*samples, axis=1)).pvalue
    assert abs(np.mean(p_values < 0.05) - 0.8) < 0.05


def test_open_claims_say_how_many_seeds_they_would_take(published):
    assert seeds_to_decide(Claim("Up.", "high", "above", "low")) == ""
    assert seeds_to_decide(Claim("Up.", "single", "above", "low")) == ""
    assert int(seeds_to_decide(Claim("Up.", "high", "above", 99.4))) in range(4, 12)
    assert seeds_to_decide(Claim("Up.", "also_high", "above", "high")) == "over 1,000"


def test_seeds_pair_where_all_random_numbers_are_the_same():
    before, after = runs(98.0, 98.5, 99.0, 99.2), runs(98.1, 98.62, 99.1, 99.31, schedule={"name": "StepLR"})
    expected = ttest_rel([98.1, 98.62, 99.1, 99.31], [98.0, 98.5, 99.0, 99.2]).confidence_interval(CONFIDENCE)
    found = compare_runs(after, before)
    np.testing.assert_allclose([found.low, found.high], expected, atol=1e-9)
    assert found.n == (4,)
    assert compare_runs(after[1:], before[:3]).n == (2,)  # seeds 1 and 2 are on both sides
    other = compare_runs(runs(98.1, 98.62, 99.1, 99.31, network="B"), before)
    assert (other.n, other.low < 0 < other.high) == ((4, 4), True)


def test_two_changes_are_compared_with_each_alone():
    sides = [
        runs(*percents, network=name)
        for name, percents in zip("BCDA", ((99.5, 99.56), (99.3, 99.31), (99.2, 99.24), (99.1, 99.12)), strict=True)
    ]
    found = compare_changes(*sides)
    assert (found.estimate, found.n) == (pytest.approx(99.53 - 99.305 - 99.22 + 99.11), (2, 2, 2, 2))
    other = {"schedule": {"name": "StepLR"}}
    paired = (
        runs(99.5, 99.56),
        runs(99.3, 99.31, **other),
        runs(99.2, 99.24, network="B"),
        runs(99.1, 99.12, network="B", **other),
    )
    found = compare_changes(*paired)
    expected = ttest_ind([0.2, 0.25], [0.1, 0.12], equal_var=False).confidence_interval(CONFIDENCE)
    np.testing.assert_allclose([found.low, found.high], expected, atol=1e-9)
    assert found.n == (2, 2)


def test_a_claim_of_two_changes(published):
    four = {"both": 99.6, "one": 99.3, "other": 99.2, "neither": 99.1}
    published |= {name: runs(mean - 0.01, mean, mean + 0.01, network=name) for name, mean in four.items()}
    claim = Claim("They act together.", "both", "above", ("one", "other", "neither"))
    assert (claim.finding, claim.compared) == ("shown", "test accuracy, both minus one, beyond other minus neither")
    assert claim.compare().estimate == pytest.approx(0.2)
    assert Claim("They act together.", "both", "above", ("one", "other", "nowhere")).finding == "not shown"
    with pytest.raises(ValueError, match="three names"):
        Claim("They act together.", "both", "above", ("one", "other"))


def test_runs_of_two_trainers_do_not_pair():
    compiled = runs(98.0, 98.5)
    for record in compiled:
        record.recipe["compiled"] = True
    assert compare_runs(compiled, runs(98.0, 98.5)).n == (2, 2)


def test_claims_are_numbered_and_judged(published):
    table = judge([Claim("Up.", "high", "above", "low"), Claim("Who knows.", "single", "above", "low")])
    assert table.index.tolist() == [1, 2]
    assert table["verdict"].tolist() == ["shown", "not shown"]
    assert table["n"].tolist() == ["3, 3", "1, 3"]
    assert table["points"].iloc[1] == "+0.45"
    sentence = "It is a long story, and it is told from its first to its very last word." * 3
    assert sentence in judge([Claim(sentence, "high", "above", "low")])._repr_html_()


@pytest.mark.parametrize(
    ("change", "message"), [({"measure": "luck"}, "'luck' must be one of test"), ({"relation": "like"}, "'like'")]
)
def test_unknown_words_are_refused(change, message):
    with pytest.raises(ValueError, match=f"So it is.*{message}"):
        Claim(**{"sentence": "So it is.", "of": "a", "relation": "above", "against": "b"} | change)
