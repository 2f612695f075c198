"""Two trainers, one result: what torch and the compiled trainer give for the same recipes and seeds."""

import statistics

import pandas as pd
from scipy import stats
from statsmodels.stats.multitest import multipletests

from lab.ladders.effects import difference_from, format_difference, format_estimate
from lab.ladders.measures import MEASURES
from lab.ladders.rungs import find_rungs
from lab.numbers import rounded
from lab.run.results import RESULTS, TORCH, load_records


def compare_trainers(folder=TORCH):
    """Every recipe that both trainers have trained, with the same seeds: both begin with the same weights and see the
    same images in the same order, equally distorted, so seeds pair; dropout alone draws from another stream.

    Args:
        folder: of torch's results.

    Returns: DataFrame by name of the recipe: `torch` and `compiled` are mean test accuracies in percent as its rung
        measures them, `difference` in points, `low` and `high` ends of its 95 % interval, `p` of Student's paired
        test, `seeds`, and median seconds of training as they were recorded, on whatever machine, of each trainer.
    """
    rows = {}
    for rung in find_rungs():
        for name in rung.recipes:
            theirs, ours = ({run.seed: run for run in load_records(name, place)} for place in (folder, RESULTS))
            seeds = sorted(theirs.keys() & ours.keys())
            if theirs and len(seeds) > 1:
                rows[name] = _row(*([runs[seed] for seed in seeds] for runs in (theirs, ours)), rung.measure)
    return pd.DataFrame.from_dict(rows, orient="index")


def _row(theirs, ours, measure):
    before, after = (list(map(float, MEASURES[measure].of(runs))) for runs in (theirs, ours))
    differences = [one - other for one, other in zip(after, before, strict=True)]
    found = difference_from(differences)
    return {
        "torch": statistics.mean(before),
        "compiled": statistics.mean(after),
        "difference": found.estimate,
        "low": found.low,
        "high": found.high,
        "p": found.p_value(),
        "seeds": len(differences),
        "torch, s": _seconds(theirs),
        "compiled, s": _seconds(ours),
    }


def _seconds(runs):
    return statistics.median(sum(row["train_seconds"] for row in run.epochs) for run in runs)


def judge_trainers(table):
    """One verdict over all rows of `compare_trainers`: whether the differences are those of chance.

    Without any difference between the trainers the p values are spread evenly from 0 to 1. Fisher's method combines
    them; the test of Kolmogorov and Smirnov compares their spread; Holm's method begins with the smallest, times the
    number of rows. The mean difference over all rows has Student's interval, a row counting once.

    Returns: DataFrame of text. Source: Fisher 1925; Holm 1979.
    """
    values = table["p"]
    combined, even = stats.combine_pvalues(values).pvalue, stats.kstest(values, "uniform").pvalue
    smallest = multipletests(values, method="holm")[1].min()
    rows = {
        "p of all rows together (Fisher)": f"{combined:.2f}",
        "p of an even spread of p values (Kolmogorov-Smirnov)": f"{even:.2f}",
        f"smallest p, {values.idxmin()}, for {len(values)} rows (Holm)": f"{smallest:.2f}",
        "mean difference over all rows, points": format_difference(difference_from(list(table["difference"]))),
    }
    return pd.DataFrame({"": rows})


def show_trainers(table):
    """The table as text for a page, without the numbers that only the joint test needs."""
    shown = table[["torch", "compiled"]].map(rounded)
    found = table[["difference", "low", "high"]].itertuples(index=False)
    shown["difference, points"] = [format_estimate(*ends) for ends in found]
    shown["p"] = table["p"].map("{:.2f}".format)
    for column in ("seeds", "torch, s", "compiled, s"):
        shown[column] = table[column].map("{:,.0f}".format)
    return shown.rename(columns={"torch": "torch, %", "compiled": "compiled, %"})
