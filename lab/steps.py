"""The rungs as data for other tools; the fields are relied upon, see `python -m lab steps --json`."""

from lab.ladders import CONSISTENT
from lab.receptive_field import known_receptive_field
from lab.results import load_records
from lab.rungs import find_rungs


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
        and {"mean": summary.final, "std": summary.std, "last5_mean": summary.last5, "min": summary.worst},
        "target_met": summary and all(met for name, met in rung.checks(summary).items() if name != CONSISTENT),
        "consistent": summary and summary.consistent,
    }
