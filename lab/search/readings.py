"""Every reading of the test set for the questions of ladder E: results/readings.json, in the order of time."""

from fractions import Fraction

from lab.files import ROOT
from lab.ladders.goals import MOST_SEEDS
from lab.ladders.measures import STEADY_SHARE, Summary, accuracy_with_spread
from lab.ladders.rungs import find_rung
from lab.ladders.verdicts import UncutTable
from lab.numbers import limit
from lab.run.results import RESULTS, load_records
from lab.run.schema import SCHEMAS, object_schema, read_json
from lab.search.page import mean_with_spread
from lab.search.trials import SEARCH, load_trials

READINGS = ROOT / "results" / "readings.json"
SECOND_OPINION = SEARCH / "second_opinion.jsonl"
TARGETS = {"mean_at_least": {"type": ["number", "null"]}, "most_seeds_at_least": {"type": ["number", "null"]}}
TEXTS = {name: {"type": "string"} for name in ("question", "name", "folder", "tested")}
SCHEMAS["list of readings"] = {"type": "array", "items": object_schema(TEXTS | TARGETS, additionalProperties=False)}


def readings_of(question):
    """All frozen recipes of a question that have read the test set, with their targets as they were when tested.

    Args:
        question: a rung of ladder E, "e02".

    Returns: table of text: when it was tested first, the recipe, the target, what came of it over all seeds, whether
        that meets the target, and the same recipe on held-out images, after training on the others. Recipes that no
        page has any more are kept in results/earlier; they have no such second opinion.
    """
    rung, rows = find_rung(question), []
    for reading in read_json(READINGS, "list of readings"):
        if reading["question"] == question:
            records = load_records(reading["name"], RESULTS / reading["folder"])
            row = _row(reading, records, Summary.of(records, at_the_end=rung.goal.at_the_end))
            rows.append(row | {"held-out images, %": _second_opinion(reading, rung.goal.at_the_end)})
    return UncutTable(rows)


def _second_opinion(reading, at_the_end):
    """Accuracy over seeds on the last 10,000 training images, which these runs held out: "99.52 ± 0.03 (n=10)"."""
    trials = [] if reading["folder"] else load_trials(SECOND_OPINION)
    found = [trial for trial in trials if trial.settings == {"rung": reading["name"]}]
    return mean_with_spread(found, "last epoch, %" if at_the_end else "last five, %") if found else "–"


def _row(reading, records, summary):
    recipe = records[0].recipe
    bounds = {key: Fraction(str(reading[key])) / 100 for key in TARGETS if reading[key] is not None}
    checks, words = [], []
    if bound := bounds.get("mean_at_least"):
        words.append(f"a mean of at least {limit(bound)}")
        checks.append(summary.mean >= bound)
    if bound := bounds.get("most_seeds_at_least"):
        words.append(f"{limit(bound)} {MOST_SEEDS}")
        checks.append(sum(one >= bound for one in summary.headlines) >= STEADY_SHARE * summary.n)
    return {
        "tested": reading["tested"],
        "name": reading["name"] + (", first round" if reading["folder"] else ""),
        "network": recipe["network"],
        "parameters": f"{records[0].parameters:,}",
        "optimiser": recipe["optimizer"],
        "epochs": recipe["epochs"],
        "target": ", ".join(words) or "none",
        "test accuracy, %": accuracy_with_spread(summary),
        "target met": ("yes" if all(checks) else "no") if checks else "–",
    }
