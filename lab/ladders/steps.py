"""The rungs as data for other tools, which rely on the fields, see `python -m lab steps --json`."""

from lab.ladders.goals import CONSISTENT
from lab.ladders.rungs import find_rungs
from lab.run.results import load_records
from lab.tracing.receptive_field import known_receptive_field


def describe_rungs():
    """One dictionary per rung, in reading order; accuracies are fractions, None until there are results."""
    return [describe_rung(rung) for rung in find_rungs()]


def describe_rung(rung):
    recipe = rung.recipe
    records = load_records(rung.id)
    summary = rung.summary
    return {
        "id": rung.id,
        "ladder": rung.ladder.letter,
        "title": rung.title,
        "notebook": str(rung.path.relative_to(rung.path.parents[2])),
        "source": rung.source,
        "ends_tutorial": rung.ends_tutorial,
        "network": recipe.network.__name__,
        "arguments": recipe.as_dict()["arguments"],
        "parameters": recipe.parameters,
        "receptive_field": known_receptive_field(recipe.specimen()),
        "constraint": str(rung.goal),
        "recipe": recipe.as_dict(),
        "seeds": [record.seed for record in records],
        "test_accuracy": summary
        and {
            "mean": float(summary.final),
            "std": summary.std,
            "last5_mean": float(summary.last5),
            "min": float(summary.worst),
        },
        "target_met": summary and all(met for name, met in rung.checks(summary).items() if name != CONSISTENT),
        "consistent": summary and summary.consistent,
    }
