"""The setup cell on a faked Colab, elsewhere without the project, and inside it."""

import json
import os
import re
import shutil
import subprocess
import sys

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from lab.batch.execute import NotRun, execute
from lab.files import ROOT
from lab.pages.project import project, setup_cell

PARTS = ("model.py", "utils.py", "pyproject.toml", "lab", "results", "notebooks")
GIT = ("git", "-c", "user.name=Test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false")
RUN = """
import json, os, sys, types
source, folders, on_colab = json.load(sys.stdin)
if on_colab:
    sys.modules["google"] = types.ModuleType("google")
    sys.modules["google.colab"] = types.ModuleType("google.colab")
for folder in folders:
    os.chdir(folder)
    scope = {}
    exec(source, scope)
root = str(scope["root"])
print(json.dumps({"utils": scope["utils"].__file__, "model": scope["model"].__file__, "cwd": os.getcwd(),
                  "times": sys.path.count(root), "first": sys.path[0] == root}))
"""


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of the project, committed and tagged; changes in it are seen by git."""
    folder = tmp_path_factory.mktemp("published") / project()["folder"]
    folder.mkdir()
    for part in PARTS:
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__", ".*"))
        else:
            shutil.copy(ROOT / part, folder)
    commands = (
        "init --quiet",
        "add .",
        "commit --quiet --no-verify -m all",
        "commit --quiet --no-verify --allow-empty -m more",
        f"tag {project()['version']}",
    )
    for command in commands:
        subprocess.run([*GIT, *command.split()], cwd=folder, check=True)
    return folder


@pytest.fixture
def run(checkout, tmp_path):
    """Run the setup cell once per folder in one fresh process, with the repository's address leading to `checkout`."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("GIT_", "PYTHONPATH"))}
    environment |= {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": f"url.{checkout.as_uri()}.insteadOf"}
    environment |= {"GIT_CONFIG_VALUE_0": project()["repository"], "PYTHONDONTWRITEBYTECODE": "1"}

    def run(*folders, on_colab=False, source=None, **changes):
        request = json.dumps([source or setup_cell(), [str(folder) for folder in folders], on_colab])
        command = [sys.executable, "-c", RUN]
        return subprocess.run(
            command,
            input=request,
            env=environment | changes,
            cwd=tmp_path,
            capture_output=True,
            encoding="utf-8",
            timeout=120,
        )

    return run


def answer(done):
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout) | {"said": done.stderr}


def test_colab_clones_once(run, tmp_path):
    clone = tmp_path / project()["folder"]
    for folders in [(tmp_path, tmp_path), (tmp_path,)]:  # twice in one process, then in a new one
        found = answer(run(*folders, on_colab=True))
        assert found["utils"] == str(clone / "utils.py")
        assert found["said"] == ""
        assert found["model"] == str(clone / "model.py")
        assert (found["times"], found["first"]) == (1, True)
        (clone / "mine.txt").write_text("kept", encoding="utf-8")  # a second clone would fail or remove it
    assert [path.name for path in tmp_path.iterdir()] == [clone.name]
    assert [path.parent for path in clone.rglob("model.py")] == [clone]
    commits = subprocess.run(["git", "rev-list", "--count", "HEAD"], cwd=clone, capture_output=True, encoding="utf-8")
    assert commits.stdout == "1\n"


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ("tag", "Remote branch .* not found"),
        ("repository", "does not appear to be|does not exist"),
        ("git", "not found"),
    ],
)
def test_what_cannot_be_fetched_ends_in_one_line_that_says_what_to_do(run, checkout, tmp_path, wrong, reason):
    moved = checkout.with_name("moved")
    source = setup_cell()
    if wrong == "tag":
        source = source.replace(project()["version"], "v9.9")
    elif wrong == "repository":
        checkout.rename(moved)
    done = run(tmp_path, on_colab=True, source=source, **({"PATH": str(tmp_path)} if wrong == "git" else {}))
    if moved.exists():
        moved.rename(checkout)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert re.search(rf"^v[0-9.]+ of {project()['repository']}: .*({reason}).* Check network, address and tag; ", line)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.notebook
def test_a_notebook_that_could_not_fetch_the_project_has_not_run(tmp_path, monkeypatch):
    fake = 'import sys, types\nsys.modules["google.colab"] = types.ModuleType("google.colab")'
    cells = [new_code_cell(fake), new_code_cell(setup_cell()), new_code_cell("1")]
    nbformat.write(new_notebook(cells=cells), tmp_path / "in.ipynb")
    monkeypatch.setenv("GIT_ALLOW_PROTOCOL", "file")  # as without a network
    with pytest.raises(NotRun, match="SystemExit: .* Check network, address and tag"):
        execute(tmp_path / "in.ipynb", tmp_path / "out.ipynb", {}, 120)


def test_elsewhere_nothing_is_cloned(run, tmp_path):
    done = run(tmp_path)
    assert done.returncode == 1
    assert "FileNotFoundError" in done.stderr
    assert f"git clone {project()['repository']}" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_inside_the_project_nothing_changes(run, checkout):
    found = answer(run(checkout, checkout / "notebooks" / "a_eight_thousand", checkout))
    assert found["utils"] == str(checkout / "utils.py")
    assert (found["times"], found["cwd"]) == (1, str(checkout))
    status = subprocess.run(["git", "status", "--porcelain"], cwd=checkout, capture_output=True, encoding="utf-8")
    assert (status.returncode, status.stdout) == (0, "")
