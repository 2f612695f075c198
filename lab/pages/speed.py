"""How fast training is: what `make bench` measured, and kept in results/bench.json and results/seconds.json."""

import json
import statistics

import pandas

from lab.run.results import RESULTS

KEPT, KEPT_RUNS = RESULTS / "bench.json", RESULTS / "seconds.json"


def compare_speeds(rates):
    """Median images per second, how many times the first, and how many times below the last, which is the limit.

    Args:
        rates: by name, images per second of every round.
    """
    medians = {name: statistics.median(values) for name, values in rates.items()}
    first, *_, limit = medians.values()
    return {name: (rate, rate / first, limit / rate) for name, rate in medians.items()}


def bench_block(notebook):
    """The kept measurement as a table, with the machine it was made on."""
    if not KEPT.exists():
        return "Not measured yet: `make bench KEEP=1`."
    kept = json.loads(KEPT.read_text(encoding="utf-8"))
    lines = ["| | images/s | times the first | below the limit |", "|--|--|--|--|"]
    for name, (rate, times, below) in compare_speeds(kept["rates"]).items():
        lines.append(f"| {name} | {rate:,.0f} | {times:.1f} | {below:.2f} |")
    return "\n".join([*lines, "", f"{kept['machine']}; median of {kept['rounds']} rounds of {kept['seconds']:.0f} s."])


def seconds_of(measured):
    """By name, the quickest seconds with the compiled trainer and with torch, from what `lab.bench` measured."""
    return {name: (min(by["compiled"]), min(by["torch"])) for name, by in measured.items()}


def seconds_table(*names):
    """How long whole runs took on one core of a machine that did nothing else, as results/seconds.json keeps it.

    Args:
        names: of recipes that were measured.

    Returns: DataFrame, a row per recipe: seconds with the compiled trainer and with torch, and their ratio.
    Raises: ValueError naming a recipe that was not measured.
    """
    measured = json.loads(KEPT_RUNS.read_text(encoding="utf-8"))["seconds"]
    if missing := [name for name in names if name not in measured]:
        raise ValueError(f"seconds_table: {missing[0]} was not measured: make bench RUNGS=... KEEP=1")
    found = seconds_of({name: measured[name] for name in names})
    rows = {
        name: {"seconds, compiled": f"{ours:.2f}", "seconds, torch": f"{theirs:.1f}", "ratio": f"{theirs / ours:.1f}"}
        for name, (ours, theirs) in found.items()
    }
    return pandas.DataFrame.from_dict(rows, orient="index")
