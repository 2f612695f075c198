"""What a batch of many seeds has to run: every rung and exercise with its key, and the seeds that results/ lacks."""

import hashlib
import json

from lab.files import ROOT
from lab.run.code import digest_or_reason
from lab.run.results import folder_of, load_records, why_refused

MINUTES = {50_000: 60, 1_000_000: 240}  # wall-clock limit of one run below these parameters; larger ones get the last
LARGEST_MINUTES = 600


def plan(rungs, seeds, seeds_of_large, seeds_of_ablations=None):
    """List runs as data for a workflow manager.

    Args:
        rungs: Rungs to be run.
        seeds: seeds 0 to seeds - 1 for every rung below 50,000 parameters.
        seeds_of_large: the same for the others.
        seeds_of_ablations: the same for ablations and exercises, if they are to have fewer seeds than their rung.

    Returns: dictionary; `jobs` gives rung, notebook, names of recipes, minutes and the folder of records by key. A job
        without a notebook trains one recipe alone: that of an exercise, or of a rung without its ablations. `missing`
        lists pairs of key and seed without valid published records of all recipes of the job.
    """
    jobs, missing = {}, []
    for rung in rungs:
        size = rung.recipe.parameters
        minutes = next((limit for below, limit in MINUTES.items() if size < below), LARGEST_MINUTES)
        of_rung = seeds if size < min(MINUTES) else seeds_of_large
        of_ablations = of_rung if seeds_of_ablations is None else min(of_rung, seeds_of_ablations)
        of_page = of_ablations if len(rung.page_recipes) > 1 else of_rung
        notebook = rung.path.relative_to(ROOT).as_posix()
        parts = [(notebook, rung.page_recipes, range(of_page))]
        further = [name for name in rung.recipes if name not in rung.page_recipes]
        parts += [(None, {name: rung.recipes[name]}, range(of_ablations)) for name in further]
        if of_page < of_rung:
            parts.append((None, {rung.id: rung.recipe}, range(of_page, of_rung)))
        for notebook, recipes, wanted in parts:
            first, known_by = next(iter(recipes)), key(recipes)
            jobs[known_by] = {
                "rung": rung.id,
                "notebook": notebook,
                "recipes": list(recipes),
                "minutes": minutes * len(recipes),
                "folder": folder_of(first, recipes[first].as_dict()),
            }
            done = set.intersection(*(_published(*item) for item in recipes.items()))
            missing += [(known_by, seed) for seed in wanted if seed not in done]
    return {"jobs": jobs, "missing": missing}


def key(recipes):
    """Twelve hex digits over all that decides their numbers: recipes by name, and the code behind them."""
    decisive = [[name, recipe.as_dict(), digest_or_reason(recipe)] for name, recipe in recipes.items()]
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:12]


def _published(name, recipe):
    digest = digest_or_reason(recipe)
    return {record.seed for record in load_records(name) if why_refused(record, name, recipe.as_dict(), digest) is None}
