"""How fast training is: what `make bench` measured, and kept in results/bench.json."""

import json
import statistics

from lab.run.results import RESULTS

KEPT = RESULTS / "bench.json"


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
