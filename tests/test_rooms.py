"""The house of lab/: no room imports from one above it, and each says what lives there."""

import ast

import pytest

from lab.files import ROOT

LAB = ROOT / "lab"
# from the ground up; a room may import from itself and from those before it
ROOMS = ["", "tracing", "training", "native", "run", "ladders", "pages", "site", "batch", "search", "bench"]
DOORS = ("__main__.py",)  # of lab/ itself; it may import from every room
BESIDE = {("search", "batch")}  # two rooms on one floor


def room_of(path):
    return path.relative_to(LAB).parts[0] if path.parent != LAB else ""


def imports_of(path):
    """Modules of the project that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def rooms_behind(path):
    parts = [name.split(".") for name in imports_of(path)]
    return {part[1] if part[1] in ROOMS else "" for part in parts if part[0] == "lab" and len(part) > 1}


MODULES = [path for path in sorted(LAB.rglob("*.py")) if path.name not in DOORS]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(LAB).as_posix())
def test_no_import_runs_upwards(path):
    here = room_of(path)
    assert here in ROOMS, f"{here} is no room of {ROOMS}"
    above = {room for room in rooms_behind(path) if ROOMS.index(room) > ROOMS.index(here)}
    beside = {room for room in rooms_behind(path) if (here, room) in BESIDE}
    assert not above | beside, f"{path.name} imports from {above | beside}"
    assert "utils" not in imports_of(path)


def test_the_networks_import_torch_alone():
    assert {name.split(".")[0] for name in imports_of(ROOT / "model.py")} <= {"torch", "functools"}


@pytest.mark.parametrize("room", ROOMS[1:])
def test_a_room_says_what_lives_there_and_has_tests_of_its_own(room):
    tree = ast.parse((LAB / room / "__init__.py").read_text(encoding="utf-8"))
    assert ast.get_docstring(tree)
    assert len(tree.body) == 1
    assert f"`lab/{room}/`" in (LAB / "README.md").read_text(encoding="utf-8")
    assert list((ROOT / "tests" / room).glob("test_*.py"))
