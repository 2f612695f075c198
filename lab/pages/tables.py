"""All rungs side by side: one table, the best of them, and what the originals said beside what was measured."""

import html
import statistics

import pandas as pd

from lab.ladders.effects import compare_runs, format_difference
from lab.ladders.measures import MEASURES, Summary, accuracy_with_spread, summary_row
from lab.ladders.originals import original_claims, source_steps
from lab.ladders.rungs import find_recipe, find_rung, find_rungs
from lab.ladders.verdicts import Family, judge
from lab.numbers import rounded, signed
from lab.pages.probes import multiply_accumulates
from lab.run.record import LAST
from lab.run.results import load_records
from lab.tracing.folding import stored_parameters
from lab.tracing.receptive_field import known_receptive_field

TUTORIAL_ENDS = " (where the tutorial ends)"


def ladder_table(letter, *, up_to=None):
    """One row per rung of a ladder, from the published results.

    Returns: DataFrame of text, indexed by rung. `change` is the difference to the rung before with its
        95 % Welch interval over seeds, in percentage points.
    """
    rows = {}
    for rung in find_rungs():
        if rung.ladder.letter != letter or (up_to and rung.id > up_to):
            continue
        row = {
            "idea": rung.idea,
            "parameters": f"{rung.recipe.parameters:,}",
            "receptive field": known_receptive_field(rung.recipe.specimen()),
        }
        if summary := rung.summary:
            row |= summary_row(summary)
            before = load_records(rung.previous.id) if rung.previous else []
            row["change, points"] = format_change(load_records(rung.id), before)
        rows[rung.id] = row
    return pd.DataFrame.from_dict(rows, orient="index").fillna("–")


def count_of(recipe):
    """Parameters that a recipe trains, and those left to store where folded normalisations make them fewer."""
    stored = stored_parameters(recipe.specimen())
    folded = f" ({stored:,} stored)" if stored and stored < recipe.parameters else ""
    return f"{recipe.parameters:,}{folded}"


def compare(*sides):
    """One row per rung, ablation or own run; `against` is the difference to the first of them.

    Args:
        sides: names of published results, such as "a03" or "b10_inert"; Runs; or lists of Runs of one recipe.

    Returns: DataFrame of text. Where data or images differ, accuracies cannot be compared, and no difference is given.
    """
    named = [find_rung(side.partition("_")[0]) for side in sides if isinstance(side, str)]
    measure = named[0].measure if named else "test accuracy"
    rows, first = {}, None
    for side in sides:
        name, records, parameters = _side(side)
        if name in rows:
            name = name.replace("yours", f"yours ({len(rows) + 1})")
        rows[name] = {"parameters": f"{parameters:,}"}
        if records:
            rows[name] |= summary_row(Summary.of(records, at_the_end=measure == "final test accuracy"))
        if first is None:
            first = name, records
        elif records and first[1]:
            same_data = {(record.dataset_sha256, record.data) for record in [*records, *first[1]]}
            change = format_change(records, first[1], measure) if len(same_data) == 1 else "other data"
            rows[name][f"against {first[0]}, points"] = change
    return pd.DataFrame.from_dict(rows, orient="index").fillna("–")


def _side(side):
    """Name, records and parameters of one side of a comparison."""
    if isinstance(side, str):
        return side, load_records(side), find_recipe(side).parameters
    runs = side if isinstance(side, list | tuple) else [side]
    if not runs or not all(hasattr(run, "record") for run in runs):
        raise ValueError(f"compare: {side!r} must be a name of results, a Run of fit, or a list of Runs")
    records = [run.record for run in runs]
    return name_of_own(records), records, records[0].parameters


def name_of_own(records):
    seeds = f"seed{'s' if len(records) > 1 else ''} {', '.join(str(record.seed) for record in records)}"
    return f"yours, {seeds}, {records[0].conditions}"


def format_change(records, before, measure="test accuracy"):
    """Difference of two rungs in percentage points: "+0.12 [+0.05, +0.19]", or without an interval if n is 1."""
    if not before:
        return "–"
    return format_difference(compare_runs(records, before, measure))


def overview():
    """One row per rung of every ladder, numbers as numbers; NaN where a rung has no published run yet.

    Returns: DataFrame indexed by rung. Accuracies in percent, of the test set unless they say otherwise; `last five` is
        the last epoch where the goal of the rung says so; `gap` is clean training accuracy minus test accuracy, both
        over the last five epochs, in points; `constraint` of the rung: met, missed, or – without runs.
    """
    return pd.DataFrame.from_dict({rung.id: _row(rung) for rung in find_rungs()}, orient="index")


def _row(rung):
    network = rung.recipe.specimen()
    row = {
        "idea": rung.idea + TUTORIAL_ENDS * rung.ends_tutorial,
        "parameters": rung.recipe.parameters,
        "receptive field": known_receptive_field(network),
        "multiply-accumulates": multiply_accumulates(network),
    }
    summary = rung.summary
    if summary is None:
        return row | {"n": 0, "constraint": "–"}
    return row | {
        "last five": float(100 * summary.mean),
        "spread": None if summary.std is None else 100 * summary.std,
        "n": summary.n,
        "best": float(100 * summary.best_epoch),
        "clean train": float(100 * summary.clean_train),
        "gap": float(summary.gap),
        "constraint": "met" if all(rung.checks(summary).values()) else "missed",
    }


def tutorial_ends():
    """Names of the rungs with which the tutorials end, one per road."""
    return [rung.id for rung in find_rungs() if rung.ends_tutorial]


def last_rungs():
    """Names of the last rungs of all roads."""
    roads = {rung.ladder.letter: rung.id for rung in find_rungs() if rung.ladder.is_road}
    return list(roads.values())


def pareto_front(table):
    """Rungs that no other one beats: none has fewer parameters and at least their accuracy. Smallest first."""
    measured = table.dropna(subset="last five").sort_values(["parameters", "last five"], ascending=[True, False])
    return measured[measured["last five"] > measured["last five"].cummax().shift(fill_value=0)]


def originals_table():
    """One row per step of the original tutorials: what it said and logged beside what its rung has measured here.

    Returns: DataFrame indexed by step, percent as text. `said` is the best test accuracy in the tutorial's text;
        `logged best` and `logged last five` are of its own log, where it shows one.
    """
    rung_of = {name: rung for rung in find_rungs() for name in rung.source}
    rows = {}
    for name, step in source_steps().items():
        rung, log = rung_of[name], step.get("test_by_epoch")
        records = load_records(rung.id)
        summary = Summary.of(records) if records else None
        last5 = statistics.fmean(log[-LAST:]) if log else None
        rows[name] = {
            "rung": rung.id,
            "said": _percent(step.get("claimed_test")),
            "logged best": _percent(max(log) if log else None),
            "logged last five": _percent(last5),
            "measured last five": "–" if summary is None else accuracy_with_spread(summary),
            "difference": "–" if None in (summary, last5) else signed(float(100 * summary.mean) - last5),
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def selection_table():
    """The gain from reporting the best epoch, chosen on the test set, instead of the mean of the last five.

    Returns: DataFrame with a row for our runs and one for the logs of the originals; gains in points.
    """
    rungs = [rung for rung in find_rungs() if not rung.goal.at_the_end]
    measure = MEASURES["best minus mean"]
    ours = [gain for rung in rungs for gain in measure.of(load_records(rung.id))]
    logs = [step["test_by_epoch"] for step in source_steps().values() if "test_by_epoch" in step]
    logs = {tuple(log) for log in logs}  # two tutorials show the same run
    theirs = [max(log) - statistics.fmean(log[-LAST:]) for log in logs]
    rows = {"measured here": ours, "the originals' logs": theirs}
    return pd.DataFrame(
        {
            name: {
                "runs": len(gains),
                "mean gain": measure.write(statistics.fmean(gains)),
                "largest": measure.write(max(gains)),
            }
            for name, gains in rows.items()
        }
    ).T


def audit():
    """Every effect that the original tutorials claim, decided by the published runs: one row per claim.

    Returns: table of `judge`, with the step that claims it. A claim without runs is "not shown".
    """
    claims = original_claims()
    family = Family.of_all_pages()
    table = judge([claim for _, claim in claims], family)
    table.insert(0, "step", [name for name, _ in claims])
    table.insert(1, "rung", [claim.of for _, claim in claims])
    table["by Holm"] = [
        "" if claim.finding == "not shown" else "stands" if family.survives(claim, "Holm") else "falls"
        for _, claim in claims
    ]
    return table


def _percent(value):
    return "–" if value is None else rounded(value)


class SortableTable:
    """A table that a click on a heading sorts, where scripts run: in Jupyter, Colab and HTML pages, not on GitHub.

    Args:
        formats: by column, a function that writes one of its numbers.
    """

    SCRIPT = (
        "const row=this.parentNode,body=row.closest('table').tBodies[0],at=[...row.children].indexOf(this),"
        "up=this.dataset.up=this.dataset.up==='1'?'0':'1',"
        "key=line=>{const text=line.children[at].innerText,number=parseFloat(text.replace(/,/g,''));"
        "return isNaN(number)?text:number};"
        "[...body.rows].sort((a,b)=>{const x=key(a),y=key(b);"
        "return(x>y?1:x<y?-1:0)*(up==='1'?1:-1)}).forEach(line=>body.append(line))"
    )

    def __init__(self, table, formats):
        self.table = table.copy()
        for column, write in formats.items():
            self.table[column] = [write(value) if pd.notna(value) else "–" for value in table[column]]

    def __repr__(self):
        return self.table.to_string()

    def _repr_html_(self):
        text = self.table.reset_index(names="rung").to_html(index=False, border=0)
        return text.replace("<th>", f'<th style="cursor:pointer" onclick="{html.escape(self.SCRIPT)}">')


def show_overview(table):
    """The table of `overview` with suitable numbers of decimals; a click on a heading sorts by it."""
    formats = dict.fromkeys(("parameters", "multiply-accumulates"), "{:,}".format)
    formats |= dict.fromkeys(("last five", "spread", "best", "clean train"), rounded)
    return SortableTable(table, formats | {"gap": MEASURES["gap"].write})
