"""All rungs side by side: one table, the best of them, and what the originals said beside what was measured."""

import html
import statistics

import pandas as pd
from torch.utils.flop_counter import FlopCounterMode

from lab.acting import blank_images, undisturbed
from lab.claims import Claim, judge
from lab.data import ROOT
from lab.receptive_field import known_receptive_field
from lab.results import LAST, Summary, load_records
from lab.rungs import find_rungs
from lab.schema import read_json
from lab.show import accuracy_with_spread

TUTORIAL_ENDS = " (where the tutorial ends)"
ORIGINALS = ROOT / "results" / "originals.json"


def source_steps():
    """What every step of the originals logged and said, by name."""
    return read_json(ORIGINALS, "list of source steps")


def overview():
    """One row per rung of every ladder, numbers as numbers; NaN where a rung has no published run yet.

    Returns: DataFrame indexed by rung. Accuracies in percent, of the test set unless they say otherwise; `last five` is
        the last epoch where the goal of the rung says so; `gap` is
        clean training accuracy minus final test accuracy, in points; `seconds` per training epoch on one thread, the
        quickest seed's median; `constraint` of the rung: met, missed, or – without runs.
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
    records, summary = load_records(rung.id), rung.summary
    if summary is None:
        return row | {"n": 0, "constraint": "–"}
    return row | {
        "seconds": min(record.train_seconds for record in records),
        "last five": 100 * summary.mean,
        "spread": None if summary.std is None else 100 * summary.std,
        "n": summary.n,
        "best": 100 * summary.best_epoch,
        "clean train": 100 * summary.clean_train,
        "gap": 100 * (summary.clean_train - summary.final),
        "constraint": "met" if all(rung.checks(summary).values()) else "missed",
    }


def multiply_accumulates(network):
    """Products that the convolutions and linear layers of a network add up for one 28x28 image.

    Torch's flop counter counts a multiplication and an addition for each, so its count is halved. It counts two
    images, in eval mode; the network stays as it was.
    """
    with undisturbed(network):
        images = blank_images(network)
        with FlopCounterMode(display=False) as counter:
            network(images)
    return counter.get_total_flops() // 2 // len(images)


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
            "difference": "–" if None in (summary, last5) else f"{100 * summary.mean - last5:+.2f}",
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def selection_table():
    """What it is worth to report the best epoch, chosen on the test set, instead of the mean of the last five.

    Returns: DataFrame with a row for our runs and one for the logs of the originals; gains in points.
    """
    rungs = [rung for rung in find_rungs() if not rung.goal.at_the_end]
    ours = [100 * (record.best - record.last5) for rung in rungs for record in load_records(rung.id)]
    logs = [step["test_by_epoch"] for step in source_steps().values() if "test_by_epoch" in step]
    logs = {tuple(log) for log in logs}  # two tutorials show the same run
    theirs = [max(log) - statistics.fmean(log[-LAST:]) for log in logs]
    rows = {"measured here": ours, "the originals' logs": theirs}
    return pd.DataFrame(
        {
            name: {"runs": len(gains), "mean gain": round(statistics.fmean(gains), 2), "largest": round(max(gains), 2)}
            for name, gains in rows.items()
        }
    ).T.astype({"runs": int})


def audit():
    """Every effect that the original tutorials claim, decided by the published runs: one row per claim.

    Returns: table of `judge`, with the step that claims it. A claim that nothing was run for is "not shown".
    """
    steps = source_steps()
    claims = [(name, Claim(**claim)) for name, step in steps.items() for claim in step.get("claims", [])]
    table = judge([claim for _, claim in claims])
    table.insert(0, "step", [name for name, _ in claims])
    table.insert(1, "rung", [claim.of for _, claim in claims])
    return table


def _percent(value):
    return "–" if value is None else f"{value:.2f}"


class SortableTable:
    """A table that a click on a heading sorts, where scripts run: in Jupyter, Colab and HTML pages, not on GitHub."""

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
        for column, layout in formats.items():
            self.table[column] = [layout.format(value) if pd.notna(value) else "–" for value in table[column]]

    def __repr__(self):
        return self.table.to_string()

    def _repr_html_(self):
        text = self.table.reset_index(names="rung").to_html(index=False, border=0)
        return text.replace("<th>", f'<th style="cursor:pointer" onclick="{html.escape(self.SCRIPT)}">')


def show_overview(table):
    """The table of `overview` with fit numbers of decimals; a click on a heading sorts by it."""
    counts = dict.fromkeys(("parameters", "multiply-accumulates"), "{:,}")
    accuracies = dict.fromkeys(("last five", "spread", "best", "clean train"), "{:.2f}")
    return SortableTable(table, counts | accuracies | {"gap": "{:+.2f}", "seconds": "{:.0f}"})
