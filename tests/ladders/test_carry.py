"""Results carried over to changed code: what keeps every bit passes, what changes one is named."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest

from lab.files import ROOT
from lab.run import results, same_bits
from lab.run.results import TORCH, load_records, why_refused
from lab.run.same_bits import equal_digests
from lab.run.schema import DamagedFile

RUNG = "a01"
LIMIT_SECONDS = 300
HARMLESS = ("was_training = network.training", "was_training = bool(network.training)")
DECISIVE = ("MEAN, STD = 0.1307, 0.3081", "MEAN, STD = 0.1307, 0.3082")


@pytest.fixture
def known(tmp_path, monkeypatch):
    """A file in which code "a" became "b" became "c" for one rung."""
    path = tmp_path / "same_bits.json"
    for old, new in ("ab", "bc"):
        same_bits.note(path, {"rung": RUNG, "old": old, "new": new})
    monkeypatch.setattr(results, "equal_digests", lambda rung, digest: equal_digests(rung, digest, path))
    return path


def test_equality_is_passed_on_but_never_back(known):
    assert equal_digests(RUNG, "c", known) == {"a", "b", "c"}
    assert equal_digests(RUNG, "b", known) == {"a", "b"}
    assert equal_digests("a03", "c", known) == {"c"}
    assert equal_digests(RUNG, "c", known.with_name("none.json")) == {"c"}


@pytest.mark.parametrize(("text", "field"), [("[{", "Expecting"), ("null", "must be array"), ("[{}]", "must contain")])
def test_a_damaged_list_is_named(tmp_path, text, field):
    path = tmp_path / "same_bits.json"
    path.write_text(text)
    with pytest.raises(DamagedFile, match=f"{path} is not a list of equal code: .*{field}"):
        equal_digests(RUNG, "c", path)


def test_records_of_equal_code_stand(known):
    record = replace(load_records(RUNG)[0], code_digest="a")
    assert why_refused(record, RUNG, record.recipe, "c") is None
    assert "has changed" in why_refused(replace(record, code_digest="c"), RUNG, record.recipe, "b")


@pytest.fixture
def project(tmp_path):
    """A repository with a copy of this code, all of it committed."""
    folder = tmp_path / "project"
    ignored = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints")
    for name in ("lab", "notebooks"):
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    for name in ("model.py", "utils.py", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    for line in ("init --quiet", "add .", "-c user.name=t -c user.email=t@t commit --quiet -m as-it-was"):
        subprocess.run(["git", *line.split()], cwd=folder, check=True)
    return folder


def run_carry(project, commit="HEAD"):
    return subprocess.run(
        [sys.executable, "-m", "lab", "carry", commit, RUNG],
        cwd=project,
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
    )


def edit(project, name, change):
    text = (project / name).read_text()
    assert text.count(change[0]) == 1
    (project / name).write_text(text.replace(*change))


@pytest.mark.notebook
def test_a_change_without_effect_is_carried_and_one_with_effect_is_not(project):
    edit(project, "lab/training/loop.py", HARMLESS)
    (project / "results" / "torch").mkdir(parents=True)
    shutil.copy(TORCH / f"{RUNG}.json", project / "results" / "torch")
    done = run_carry(project)
    compared = "".join(f"{name}  same bits\n" for name in (RUNG, f"{RUNG}_try", f"{RUNG}, torch"))
    assert (done.returncode, done.stdout) == (0, compared), done.stderr
    path = project / "results" / "same_bits.json"
    entries = json.loads(path.read_text())
    assert len({entry[which] for entry in entries for which in ("old", "new")}) == 4  # two trainers, old and new
    for entry in entries:
        assert equal_digests(RUNG, entry["new"], path) == {entry["old"], entry["new"]}

    edit(project, "lab/training/data.py", DECISIVE)
    done = run_carry(project)
    assert done.returncode == 1
    assert "of epoch 1 was" in done.stdout
    assert json.loads(path.read_text()) == entries
    assert subprocess.run(["git", "worktree", "list"], cwd=project, capture_output=True).stdout.count(b"\n") == 1


def test_an_unknown_commit_is_named(project):
    done = run_carry(project, "n0where")
    assert done.returncode == 1
    assert "commit 'n0where' cannot be checked out" in done.stderr
