"""What is imported is required, and what is installed is pinned."""

import ast
import importlib.metadata
import re
import subprocess
import sys

import pytest
from packaging.requirements import Requirement

from lab.files import ROOT

OURS = {"lab", "model", "utils", "meter", "tests", *(path.stem for path in (ROOT / "tests").rglob("test_*.py"))}
PEER = ROOT / "lab" / "bench" / "jax_peer.py"
READERS = [ROOT / "model.py", ROOT / "utils.py", *(ROOT / "lab").rglob("*.py")]


def canonical(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def names_in(path):
    """Distributions that a requirements or constraints file names, those of the files that it includes among them."""
    names = set()
    for line in path.read_text().splitlines():
        if line.startswith("-r "):
            names |= names_in(path.parent / line[3:])
        elif found := re.match(r"[\w.-]+", line):
            names.add(canonical(found[0]))
    return names


def imported(paths):
    """Distributions that some modules import, each with one file that does."""
    providers, found = importlib.metadata.packages_distributions(), {}
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text())):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module] if isinstance(node, ast.ImportFrom) else []
            tops = {module.partition(".")[0] for module in modules} - OURS - sys.stdlib_module_names
            found |= {canonical(name): path.name for top in tops for name in set(providers.get(top, [top]))}
    return found


@pytest.mark.parametrize(
    ("paths", "requirements"),
    [
        ([path for path in READERS if not {"site", "batch", "bench"} & set(path.parts)], "requirements.txt"),
        ([path for path in [*READERS, *(ROOT / "tests").rglob("*.py")] if path != PEER], "requirements-dev.txt"),
        ([PEER], "lab/bench/requirements.txt"),
    ],
    ids=["readers", "batch runs and tests", "peers"],
)
def test_what_is_imported_is_required(paths, requirements):
    found, required = imported(paths), names_in(ROOT / requirements)
    assert {name: path for name, path in found.items() if name not in required} == {}


def test_all_that_the_requirements_bring_is_pinned():
    """What they need, what that needs and so on, as installed here; what else is installed does not count."""
    needed, waiting = set(), names_in(ROOT / "requirements-dev.txt")
    while waiting:
        needed |= waiting
        requirements = [Requirement(line) for name in waiting for line in importlib.metadata.requires(name) or []]
        waiting = {
            canonical(item.name) for item in requirements if not item.marker or item.marker.evaluate({"extra": ""})
        }
        waiting -= needed
    assert {"torch", "ipykernel", "fonttools"} <= needed
    assert needed - names_in(ROOT / "constraints.txt") == set()


NAMED = re.compile(r"\b(?:lab|tests|workflow|notebooks|results)/[\w./-]+\.(?:py|md|ipynb|json|h|cpp)\b")


def test_every_file_that_is_named_is_there():
    """In texts, comments and settings; a name in angle brackets, or of a rung to be made, is none."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    paths = [ROOT / name for name in listed.stdout.splitlines()] or [*ROOT.rglob("*.md"), *ROOT.rglob("*.py")]
    texts = {
        path: path.read_text(encoding="utf-8") for path in paths if path.suffix in (".md", ".py", ".ipynb", ".yaml", "")
    }
    named = {name: path for path, text in texts.items() for name in NAMED.findall(text) if "tests" not in path.parts}
    assert {name: path for name, path in named.items() if not (ROOT / name).exists()} == {}
