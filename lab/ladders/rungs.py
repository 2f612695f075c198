"""Every notebook and rung as its file gives it: name, first heading, parameters, recipe, sources."""

import ast
import contextlib
import functools
import itertools
import linecache
import re
import types
import warnings
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import model
from lab.files import ROOT
from lab.ladders.cells import NAMES
from lab.ladders.exercises import exercise_of
from lab.ladders.goals import LADDERS
from lab.ladders.measures import Summary
from lab.run.results import load_records
from lab.run.schema import read_json
from lab.training.recipe import Recipe

NOTEBOOKS = ROOT / "notebooks"
NUMBERED = re.compile(r"([a-z]?[0-9]{2,})(_|$)")  # how the file names of the project begin; a reader's may be anything
HEADING = re.compile(r"^ {0,3}#{1,6}\s+(.*?)\s*#*\s*$", re.MULTILINE)
DEFINITIONS = (ast.Import, ast.ImportFrom, ast.ClassDef, ast.FunctionDef)


@dataclass(frozen=True)
class Notebook:
    """A notebook of the project, or one that a reader has added."""

    path: Path
    name: str | None = None  # its id, where that of the file is taken

    @property
    def id(self):
        """What the file name begins with, "a05"; for a notebook without a number, its whole name."""
        match = NUMBERED.match(self.path.stem)
        return self.name or (match[1] if match else self.path.stem)

    @property
    def is_numbered(self):
        return NUMBERED.match(self.path.stem) is not None

    @cached_property
    def content(self):
        return read_json(self.path, "notebook")

    @property
    def cells(self):
        return self.content["cells"]

    @property
    def title(self):
        """The first heading of any text cell, without its marks; the file's name if there is none."""
        texts = ("".join(cell["source"]) for cell in self.cells if cell["cell_type"] == "markdown")
        return next((match[1] for text in texts if (match := HEADING.search(text))), self.path.stem)

    @property
    def is_rung(self):
        return self.is_numbered and self.id[0] in LADDERS

    def has(self, tag):
        return any(tag in _tags(cell) for cell in self.cells)

    def tagged(self, tag):
        """Source of the one cell that carries a tag."""
        sources = ["".join(cell["source"]) for cell in self.cells if tag in _tags(cell)]
        if len(sources) != 1:
            raise ValueError(f"{self.path.name} has {len(sources)} cells tagged {tag!r}; it needs exactly one")
        return sources[0]

    def defaults(self):
        """Its parameters and their published values; empty if nothing can be set."""
        if not self.has("parameters"):
            return {}
        scope = self.run_cell("parameters", {})
        return {
            name: value
            for name, value in scope.items()
            if not name.startswith("_") and not isinstance(value, types.ModuleType)
        }

    def run_cell(self, tag, scope):
        """Run the cell that carries a tag by itself; return the scope with what it has set.

        Raises: ValueError naming the notebook and what went wrong.
        """
        return self.run_text(self.tagged(tag), scope, f"the cell tagged {tag!r}")

    def run_text(self, text, scope, what):
        """Run a text as a cell, see `run_cell`."""
        return self._run(lambda name: compile(text, name, "exec"), text, scope, what)

    def _run(self, build, text, scope, what):
        """Run what `build` makes of a cell for a file name, under which the cell's text can be found later."""
        name = f"<{self.path.name}, {what}>"
        linecache.cache[name] = len(text), None, text.splitlines(keepends=True), name
        try:
            exec(build(name), scope)
        except (Exception, SystemExit) as error:  # a reader's code may raise anything
            reason = f"{type(error).__name__}: {error}"
            raise ValueError(f"{self.path.name}: {what} cannot be run by itself: {reason}") from error
        return scope


def _tags(cell):
    return cell["metadata"].get("tags") or []


@dataclass(frozen=True)
class Rung(Notebook):
    """One step of a ladder."""

    @property
    def ladder(self):
        return LADDERS[self.id[0]]

    @property
    def idea(self):
        """The title without the rung's number."""
        return self.title.partition("·")[2].strip() or self.title

    @property
    def source(self):
        """Ids of the steps of the original tutorials that it rebuilds."""
        return self.content["metadata"].get("source", [])

    @cached_property
    def recipes(self) -> dict[str, Recipe]:
        """Published recipes by name of their results: what `described` has, and an exercise that nothing there answers.

        Its page trains `page_recipes`; only a batch trains the others.
        """
        name = self.exercise.answered_by[0] if self.exercise else self.id
        return self.described if name in self.described else self.described | {name: self.exercise.recipe}

    @cached_property
    def exercise(self):
        """What its page asks to be tried; None if it asks nothing. Raises as `exercise_of`."""
        return exercise_of(self)

    @property
    def described(self):
        """Recipes by name: the rung itself first, then its ablations if it has any."""
        return self.page_recipes | self._cells_run.get("further", {})

    @cached_property
    def page_recipes(self) -> dict[str, Recipe]:
        """Those that its page trains."""
        return {self.id: self._cells_run["recipe"]} | self._cells_run.get("ablations", {})

    @cached_property
    def _cells_run(self):
        """What the cells tagged "recipe" and "ablations" set, run with the default parameters.

        They are run with what the cells above each define: a network may be a class in a cell of its own.
        """
        scope = self.defaults() | {"__name__": "__main__"}  # as in the notebook
        scope |= {"model": model, "utils": NAMES}
        cells = iter(enumerate(self.cells))
        for tag in ("recipe", "ablations") if self.has("ablations") else ("recipe",):
            self._define(scope, itertools.takewhile(lambda numbered, tag=tag: tag not in _tags(numbered[1]), cells))
            self.run_cell(tag, scope)
        if not isinstance(scope.get("recipe"), Recipe):
            raise ValueError(f"{self.path.name}: the cell tagged 'recipe' sets no recipe = utils.Recipe(...)")
        names = [*scope.get("ablations", {}), *scope.get("further", {})]
        if foreign := [name for name in names if not name.startswith(f"{self.id}_")]:
            raise ValueError(f"{self.path.name}: ablation {foreign[0]!r} must be called {self.id}_ and what it changes")
        return scope

    def _define(self, scope, cells):
        """Run imports, functions and classes of some numbered cells; of plain Python only."""
        for position, cell in cells:
            text = "".join(cell["source"])
            if cell["cell_type"] == "code" and "setup" not in _tags(cell):
                with contextlib.suppress(SyntaxError):  # such as %matplotlib inline
                    body = [node for node in ast.parse(text).body if isinstance(node, DEFINITIONS)]
                    module = ast.Module(body, type_ignores=[])
                    build = functools.partial(compile, module, mode="exec")
                    self._run(build, text, scope, f"cell {position}, as far as it defines something,")

    @cached_property
    def claims(self):
        """What its Analysis may cite, by number: the cell tagged "claims", run by itself."""
        scope = self.run_cell("claims", {"utils": NAMES})
        return dict(enumerate(scope["claims"], start=1))

    @property
    def recipe(self):
        return self.page_recipes[self.id]

    @property
    def goal(self):
        return self.ladder.goal_of(self.id)

    @property
    def measure(self):
        """What its goal is about, as a key of `lab.ladders.measures.MEASURES`."""
        return "final test accuracy" if self.goal.at_the_end else "test accuracy"

    @property
    def summary(self):
        """Statistics over its published runs; None if there are none."""
        return self.summary_of(self.id)

    def summary_of(self, name):
        """The same for one of its recipes, for the accuracy that the rung's goal is about."""
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
        before = [rung for rung in find_rungs() if rung.ladder == self.ladder and rung.id < self.id]
        return before[-1] if before else None

    @property
    def ends_tutorial(self):
        """Whether it is the last rung of its road that rebuilds a tutorial; later ones are ours."""
        rungs = [rung for rung in find_rungs() if rung.ladder == self.ladder and rung.source]
        return self.ladder.is_road and bool(rungs) and self.id == rungs[-1].id


def find_notebooks(names=()):
    """Every notebook in reading order, readers' own just before 97 to 99, or those whose ids are named.

    Raises: ValueError naming the ids that do not exist, or that two notebooks share.
    """
    paths = [path for path in NOTEBOOKS.rglob("*.ipynb") if path.is_file() and not _is_hidden(path)]
    found = sorted(map(Notebook, paths), key=_reading_order)
    found = [Rung(notebook.path) if notebook.is_rung else notebook for notebook in found]
    by_id = {}
    for position, notebook in enumerate(found):
        if notebook.id in by_id and not notebook.is_numbered:  # every folder may have its Untitled.ipynb
            path = notebook.path.relative_to(NOTEBOOKS).with_suffix("")
            notebook = found[position] = Notebook(notebook.path, "-".join(path.parts))
        if by_id.setdefault(notebook.id, notebook) is not notebook:
            both = " and ".join(each.path.relative_to(NOTEBOOKS).as_posix() for each in (by_id[notebook.id], notebook))
            raise ValueError(f"two notebooks are called {notebook.id}: {both}. Rename or delete one")
    unknown = set(names) - set(by_id)
    if unknown:
        known = " ".join(notebook.id for notebook in found)
        raise ValueError(f"no notebook is called {', '.join(sorted(unknown))}; there are {known}")
    return [notebook for notebook in found if not names or notebook.id in names]


def _is_hidden(path):
    """What Jupyter, macOS and editors keep for themselves."""
    return any(part.startswith(".") for part in path.relative_to(NOTEBOOKS).parts)


def _reading_order(notebook):
    """The map, the ladders, what readers have added, then 97 to 99."""
    is_end = notebook.is_numbered and notebook.id.startswith("9")
    return is_end, not notebook.is_numbered, notebook.path.stem


def find_rungs(names=()):
    """As `find_notebooks`, for rungs; ValueError if a named notebook is not a rung.

    Unless it is named, a rung without a trainable recipe is left out with a warning that names it: an unfinished
    notebook does not keep the others from being run, planned or shown.
    """
    found = find_notebooks(names)
    others = [notebook.id for notebook in found if not isinstance(notebook, Rung)]
    if names and others:
        raise ValueError(f"{', '.join(others)}: not a rung, so there is nothing to train")
    rungs = [notebook for notebook in found if isinstance(notebook, Rung)]
    return rungs if names else [rung for rung in rungs if is_usable(rung)]


def is_usable(notebook):
    """Whether a notebook is not a rung, or is one whose recipes can be made; a warning says what is wrong."""
    state = notebook.path.stat()
    return not notebook.is_rung or _can_be_made(notebook.path, (state.st_ino, state.st_mtime_ns, state.st_size))


@functools.cache
def _can_be_made(path, version):
    """Checked, with the warning, once for every version of the file."""
    try:
        return all(recipe.parameters for recipe in Rung(path).recipes.values())
    except Exception as error:  # a reader's network may raise anything
        reason = str(error) if path.name in str(error) else f"{path.name}: {type(error).__name__}: {error}"
        warnings.warn(f"left out: {reason}", stacklevel=4)
        return False


def find_rung(rung_id):
    """The one rung of this name; raises as `find_rungs`."""
    return find_rungs([rung_id])[0]


def find_recipe(name):
    """The recipe of a rung or of one of its ablations, as its notebook has it: "a02" or "a02_he".

    Raises: ValueError naming those there are.
    """
    recipes = find_rung(name.partition("_")[0]).recipes
    if name not in recipes:
        raise ValueError(f"there is no recipe {name}: {', '.join(recipes)}")
    return recipes[name]
