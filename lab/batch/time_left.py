"""How long a batch of notebooks will still take."""

import json
import time

from lab.ladders.rungs import Rung, find_rungs
from lab.pages.probes import multiply_accumulates


def time_left(works, ended, jobs, seconds):
    """How far a batch has come, guessed from the work that is done: "3 of 40 done, about 25 min left".

    Args:
        works: of all that run in the batch, in any unit.
        ended: of those that have ended, at least one.
        jobs: how many run at a time; what runs now counts as half done.
        seconds: since the batch began.
    """
    waiting = len(works) - len(ended)
    if not waiting:
        return f"{len(ended)} of {len(works)} done in {_words(seconds)}"
    left = sum(works) - sum(ended)
    running = left / waiting * min(jobs - 1, waiting) / 2
    return f"{len(ended)} of {len(works)} done, {_words(seconds * (left - running) / (sum(ended) + running))} left"


def _words(seconds):
    hours, minutes = divmod(round(seconds / 60), 60)
    if not hours:
        return f"about {minutes} min" if minutes else "less than a minute"
    return f"about {hours} h {minutes:02d} min"


def work_of(notebook, parameters, names=()):
    """Multiply-accumulates of its training, ablations included, per image; a small number where nothing is trained.

    With names, those of some of its recipes, whether its page trains them or not.
    """
    try:
        recipes = notebook.page_recipes.values() if isinstance(notebook, Rung) else ()
        recipes = [notebook.recipes[name] for name in names] or recipes
        epochs = [parameters.get("epochs", recipe.epochs) for recipe in recipes]
        products = [multiply_accumulates(recipe.specimen()) for recipe in recipes]
        return 1e5 + sum(one * other for one, other in zip(epochs, products, strict=True))
    except Exception:  # a reader's network may raise anything, and will say so when its notebook runs
        return 1e5


def time_left_in(folder, jobs):
    """The same for a batch of workflow/Snakefile, from the plan that it wrote there when it began."""
    path = folder / "plan.json"
    plan, began = json.loads(path.read_text(encoding="utf-8")), path.stat().st_mtime
    jobs_by_key = {key: plan["jobs"][key] for key, _ in plan["missing"]}
    rungs = {rung.id: rung for rung in find_rungs({job["rung"] for job in jobs_by_key.values()})}
    work = {key: work_of(rungs[job["rung"]], {}, job["recipes"]) for key, job in jobs_by_key.items()}
    works, ended = [], []
    for key, seed in plan["missing"]:
        record = folder / key / jobs_by_key[key]["folder"] / f"seed{seed}.json"
        written = record.stat().st_mtime if record.exists() else None
        if written is None or written >= began:  # what an earlier call has done is not run again
            works.append(work[key])
        if written is not None and written >= began:
            ended.append(work[key])
    return time_left(works, ended, jobs, time.time() - began) if ended else f"none of {len(works)} done yet"
