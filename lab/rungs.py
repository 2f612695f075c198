"""Every rung as its notebook tells it: file name, first heading, recipe, sources."""

import ast
import importlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from lab.data import ROOT
from lab.ladders import LADDERS
from lab.recipe import Recipe
from lab.results import Summary, load_records
from lab.schema import read_json

NOTEBOOKS = ROOT / "notebooks"


@dataclass(frozen=True)
class Notebook:
    """A notebook of the project; `id` is what its file name begins with."""

    path: Path

    @property
    def id(self):
        return self.path.stem.split("_")[0]

    @cached_property
    def content(self):
        return read_json(self.path, "notebook")

    @property
    def cells(self):
        return self.content["cells"]

    @property
    def title(self):
        """The first heading, without its marks."""
        return "".join(self.cells[0]["source"]).splitlines()[0].lstrip("# ").strip()

    @property
    def is_rung(self):
        return self.id[0] in LADDERS and self.id[1:].isdigit()

    def has(self, tag):
        return any(tag in cell["metadata"].get("tags", []) for cell in self.cells)

    def tagged(self, tag):
        """Source of the one cell that carries a tag."""
        sources = ["".join(c["source"]) for c in self.cells if tag in c["metadata"].get("tags", [])]
        if len(sources) != 1:
            raise ValueError(f"{self.path.name} has {len(sources)} cells tagged {tag!r}; it needs exactly one")
        return sources[0]

    def defaults(self):
        """Its parameters and their published values; none if it has nothing to be set."""
        if not self.has("parameters"):
            return {}
        lines = ast.parse(self.tagged("parameters")).body
        return {line.target.id: ast.literal_eval(line.value) for line in lines}


@dataclass(frozen=True)
class Rung(Notebook):
    """One step of a ladder."""

    @property
    def ladder(self):
        return LADDERS[self.id[0]]

    @property
    def idea(self):
        """The title without the rung's number."""
        return self.title.partition("·")[2].strip()

    @property
    def source(self):
        """Ids of the steps of the original tutorials that it rebuilds."""
        return self.content["metadata"].get("source", [])

    @cached_property
    def recipes(self) -> dict[str, Recipe]:
        """Published recipes by name of their results: the rung itself first, then its ablations if it has any.

        They are what the cells tagged "recipe" and "ablations" make, run with the default parameters.
        """
        scope = self.defaults() | {name: importlib.import_module(name) for name in ("model", "utils")}
        exec(self.tagged("recipe"), scope)
        if self.has("ablations"):
            exec(self.tagged("ablations"), scope)
        return {self.id: scope["recipe"]} | scope.get("ablations", {})

    @cached_property
    def claims(self):
        """What its Analysis may cite, by number: the cell tagged "claims", run by itself."""
        scope = {"utils": importlib.import_module("utils")}
        exec(self.tagged("claims"), scope)
        return dict(enumerate(scope["claims"], start=1))

    @property
    def recipe(self):
        return self.recipes[self.id]

    @property
    def goal(self):
        return self.ladder.goal_of(self.id)

    @property
    def measure(self):
        """What its goal speaks of, as a key of `lab.claims.MEASURES`."""
        return "final test accuracy" if self.goal.at_the_end else "test accuracy"

    @property
    def summary(self):
        """Statistics over its published runs; None if there are none."""
        return self.summary_of(self.id)

    def summary_of(self, name):
        """The same for one of its recipes, of the accuracy that the goal of the rung speaks of."""
        records = load_records(name)
        return Summary.of(records, at_the_end=self.goal.at_the_end) if records else None

    def checks(self, summary):
        """Every part of its goal and whether it is met; `summary` is that of the published runs."""
        return self.goal.checks(self.recipe, summary)

    @property
    def previous(self):
        """The rung that it changes: the one before it on the same ladder; None if there is none."""
        if not self.ladder.is_road:
            return None
        rungs = [rung for rung in find_rungs() if rung.ladder == self.ladder]
        position = [rung.id for rung in rungs].index(self.id)
        return rungs[position - 1] if position else None


def find_notebooks(names=()):
    """Every notebook in reading order, or those whose ids are named.

    Raises: ValueError naming the ids that do not exist, or that two notebooks share.
    """
    paths = sorted(
        NOTEBOOKS.rglob("*.ipynb"), key=lambda path: (path.stem.startswith("9"), path.stem)
    )  # 98 and 99 are the end
    found = [Notebook(path) for path in paths if ".ipynb_checkpoints" not in path.parts]
    found = [Rung(notebook.path) if notebook.is_rung else notebook for notebook in found]
    by_id = {}
    for notebook in found:
        if by_id.setdefault(notebook.id, notebook) is not notebook:
            both = f"{by_id[notebook.id].path.name} and {notebook.path.name}"
            raise ValueError(f"two notebooks are called {notebook.id}: {both}. Rename or delete one")
    unknown = set(names) - set(by_id)
    if unknown:
        known = " ".join(notebook.id for notebook in found)
        raise ValueError(f"no notebook is called {', '.join(sorted(unknown))}; there are {known}")
    return [notebook for notebook in found if not names or notebook.id in names]


def find_rungs(names=()):
    """As `find_notebooks`, for rungs; ValueError if a notebook that is named is none."""
    found = find_notebooks(names)
    others = [notebook.id for notebook in found if not isinstance(notebook, Rung)]
    if names and others:
        raise ValueError(f"{', '.join(others)}: not a rung, so there is nothing to train")
    return [notebook for notebook in found if isinstance(notebook, Rung)]
