"""What a batch of many seeds has to run: every rung and exercise with its key, and the seeds that results/ lacks."""

import hashlib
import json

from lab.files import ROOT
from lab.run.code import digest_or_reason
from lab.run.results import folder_of, load_records, why_refused

MINUTES = {50_000: 60, 1_000_000: 240}  # wall-clock limit of one run below these parameters; larger ones get the last
LARGEST_MINUTES = 600


def plan(rungs, seeds, seeds_of_large):
    """List runs as data for a workflow manager.

    Args:
        rungs: Rungs to be run.
        seeds: seeds 0 to seeds - 1 for every rung below 50,000 parameters.
        seeds_of_large: the same for the others.

    Returns: dictionary; `rungs` gives notebook, key, minutes and the folder of records by id; recipes that no notebook
        trains, those of exercises, are there under their own names, without a notebook. `missing` lists pairs of name
        and seed without a valid published record of all that a notebook trains.
    """
    described, missing = {}, []
    for rung in rungs:
        size = rung.recipe.parameters
        minutes = next((limit for below, limit in MINUTES.items() if size < below), LARGEST_MINUTES)
        wanted = range(seeds if size < min(MINUTES) else seeds_of_large)
        alone = {name: {name: recipe} for name, recipe in rung.recipes.items() if name not in rung.page_recipes}
        for name, recipes in {rung.id: rung.page_recipes, **alone}.items():
            described[name] = {
                "notebook": None if name in alone else rung.path.relative_to(ROOT).as_posix(),
                "key": key(recipes),
                "minutes": minutes * len(recipes),
                "folder": folder_of(name, recipes[name].as_dict()),
            }
            done = set.intersection(*(_published(*item) for item in recipes.items()))
            missing += [(name, seed) for seed in wanted if seed not in done]
    return {"rungs": described, "missing": missing}


def key(recipes):
    """Twelve hex digits over all that decides their numbers: recipes by name, and the code behind them."""
    decisive = [[name, recipe.as_dict(), digest_or_reason(recipe)] for name, recipe in recipes.items()]
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:12]


def _published(name, recipe):
    digest = digest_or_reason(recipe)
    return {record.seed for record in load_records(name) if why_refused(record, name, recipe.as_dict(), digest) is None}
