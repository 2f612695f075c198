"""The command line and the Makefile, up to the point where something would be executed."""

import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lab.__main__ import main
from lab.batch import executions as notebooks
from lab.batch.executions import Outcome
from lab.files import ROOT
from lab.run.results import RefusedRecord
from lab.training.data import MNIST_SHA256

FIELDS = "id ladder title notebook source ends_tutorial network arguments parameters receptive_field constraint recipe "
FIELDS += "seeds test_accuracy target_met consistent"
FACTS = json.loads((ROOT / "tests" / "facts.json").read_text(encoding="utf-8"))
WRONG = ["epochs 0", "epochs abc", "seed -1", "dataset cifar", "device tpu", "threads -1", "train_limit no", "sed 3"]


every = []  # pairs of id and seed, in the order of execution


@pytest.fixture
def executed(monkeypatch, tmp_path):
    """Ids and parameters of what would have been executed; a06 fails."""
    calls = {}
    every.clear()

    def run_one(notebook, run_dir, parameters):
        calls[notebook.id] = parameters
        every.append((notebook.id, parameters.get("seed")))
        error = "RuntimeError: <boom>" if notebook.id == "a06" else None
        return Outcome(notebook.id, 1.0, None if error else 0.9941, tmp_path / notebook.id / "seed0.ipynb", error)

    monkeypatch.setattr(notebooks, "run_one", run_one)
    monkeypatch.setenv("MNIST_ROOT", str(tmp_path))
    return calls


def run(tmp_path, *arguments):
    return main(["run", *arguments, "--run-dir", str(tmp_path / "runs"), "--jobs", "1"])


def test_steps_are_an_interface(capsys):
    main(["steps", "--json"])
    steps = json.loads(capsys.readouterr().out)
    assert all(list(step) == FIELDS.split() for step in steps)
    assert all((ROOT / step["notebook"]).is_file() for step in steps)
    for letter, first in {"a": 0, "b": 1, "c": 1, "d": 1}.items():
        rungs = [step["id"] for step in steps if step["ladder"] == letter]
        assert rungs == [f"{letter}{number:02}" for number in range(first, first + len(rungs))]


def test_steps_cover_every_step_of_the_originals_exactly(capsys):
    main(["steps", "--json"])
    steps = json.loads(capsys.readouterr().out)
    found = {source: (step["parameters"], step["receptive_field"]) for step in steps for source in step["source"]}
    facts = {source: (fact["parameters"], fact["rf_final"]) for fact in FACTS for source in fact["source"]}
    assert found == facts
    assert len(found) == sum(len(step["source"]) for step in steps) == 36


def test_steps_tell_what_was_reached(capsys):
    main(["steps", "--json"])
    steps = json.loads(capsys.readouterr().out)
    for step in steps:
        has_results = (ROOT / "results" / f"{step['id']}.json").exists()
        assert (step["test_accuracy"] is not None) == has_results == bool(step["seeds"])
        assert set(step["test_accuracy"] or {}) in (set(), {"mean", "std", "last5_mean", "min"})
        assert isinstance(step["target_met"], bool if has_results else type(None))


@pytest.mark.parametrize("command", ["run", "results", "publish"])
def test_unknown_rungs_are_named(command, capsys):
    with pytest.raises(SystemExit, match="a05x.*there are .*a00") as stopped:
        main([command, "a07", "a05x"])
    assert stopped.value.code != 0


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_parameters_start_nothing(wrong, executed, tmp_path):
    name, value = wrong.split()
    with pytest.raises(SystemExit, match=f"parameter {name}='?{value}'? ") as stopped:
        run(tmp_path, "a07", "--dataset", "sample", "-p", name, value)
    assert stopped.value.code != 0
    assert executed == {}
    assert not (tmp_path / "runs").exists()


def test_a_folder_for_results_is_chosen_in_one_place_only(executed, tmp_path):
    with pytest.raises(SystemExit, match="run_dir='elsewhere' is set by --run-dir"):
        run(tmp_path, "a07", "-p", "run_dir", "elsewhere")
    with pytest.raises(SystemExit, match="model.py.*A file stands where a folder should be. Choose another run_dir"):
        main(["run", "a07", "--dataset", "sample", "--run-dir", str(ROOT / "model.py")])
    assert executed == {}


@pytest.mark.parametrize(
    "command", ["run --jobs 0", "search t --jobs no", "search t --seeds 0", "plan --seeds -1", "run --seeds 0"]
)
def test_impossible_counts_are_named(command, capsys):
    with pytest.raises(SystemExit):
        main(command.split())
    *_, option, value = command.split()
    assert f"argument {option}: '{value}' must be a whole number of at least" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("", "there are no candidates"),
        ("\n5\n", "stdin, line 2 is not a candidate: must be object"),
        ('{"layers": "c4 G"}\n{x', "stdin, line 2 is not a candidate: .*column 2"),
        ('{"layers": "c4 G", "rate": "0.1"}', "candidate: rate='0.1' must be a number"),
    ],
)
def test_candidates_that_are_none_are_named(monkeypatch, lines, message):
    monkeypatch.setattr(sys, "stdin", io.StringIO(lines))
    with pytest.raises(SystemExit, match=message):
        main(["search", "t"])


def test_a_record_that_is_refused_keeps_no_other_from_being_merged(monkeypatch, tmp_path, capsys):
    def merge(name, *_):
        if name == "a03":
            raise RefusedRecord("a03/seed9.json cannot be published: it has not finished")
        return [], {3: "the code has changed"}

    monkeypatch.setattr("lab.run.results.merge_records", merge)
    assert main(["results", "a03", "d06"]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "a03  as it was: a03/seed9.json cannot be published: it has not finished",
        *(
            line
            for name in ("a03_try", "d06", "d06_constant")
            for line in (f"{name}  seeds none", f"{name}  seed 3 is left out: the code has changed")
        ),
    ]


def test_a_probe_that_fails_ends_in_words(monkeypatch):
    monkeypatch.setattr("lab.ladders.carry.carry", lambda *_: (_ for _ in ()).throw(RuntimeError("a07 failed in /old")))
    with pytest.raises(SystemExit, match="error: a07 failed in /old"):
        main(["carry", "HEAD", "a07"])


def test_rungs_without_results_are_named(monkeypatch, capsys):
    monkeypatch.setattr("lab.pages.render.render_all", list)
    monkeypatch.setattr("lab.run.results.load_records", lambda name: [] if name == "a05" else [1])
    main(["render"])
    assert capsys.readouterr().out == "no results yet, so no figures either: a05\n"


def test_wrong_parameters_through_the_shell(tmp_path):
    command = [sys.executable, "-m", "lab", "run", "a07", "-p", "epochs", "0", "--run-dir", str(tmp_path / "runs")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8", timeout=120)
    assert done.returncode == 1
    assert done.stderr == "error: parameter epochs=0 must be a whole number from 1 to 10,000\n"
    assert not (tmp_path / "runs").exists()


def test_parameters_reach_the_notebooks(executed, tmp_path):
    assert run(tmp_path, "a05", "a07", "--dataset", "sample", "-p", "epochs", "2", "-p", "device", "cpu") == 0
    expected = {"epochs": 2, "device": "cpu", "dataset": "sample"}
    assert executed == {"a05": expected, "a07": expected}


@pytest.mark.parametrize(("seeds", "expected"), [(1, [0]), (3, [0, 1, 2])])
def test_several_seeds_of_what_trains_and_the_rest_once(seeds, expected, executed, tmp_path):
    assert run(tmp_path, "a05", "00", "--dataset", "sample", "--seeds", str(seeds)) == 0
    assert every == [*(("a05", seed) for seed in expected), ("00", None)]
    run(tmp_path, "a05", "--dataset", "sample")
    assert every[-1] == ("a05", None)


def test_several_seeds_and_one_of_them_exclude_each_other(executed, tmp_path):
    with pytest.raises(SystemExit, match="--seeds 3 and -p seed 1 exclude each other"):
        run(tmp_path, "a05", "--seeds", "3", "-p", "seed", "1")
    assert executed == {}


@pytest.mark.skipif(not shutil.which("make"), reason="make is not installed")
@pytest.mark.parametrize(("arguments", "seeds"), [((), None), (("SEEDS=3",), 3)])
def test_make_takes_seeds(arguments, seeds):
    shown = subprocess.run(["make", "-n", "run", "all", *arguments], cwd=ROOT, capture_output=True, check=True).stdout
    assert (f"--seeds {seeds}" in shown.decode()) == (seeds is not None)
    assert f"seeds={seeds or 5} " in shown.decode()


def test_exit_status_tells_of_one_failure(executed, tmp_path, capsys):
    assert run(tmp_path, "a05", "a06", "a07", "--dataset", "sample") == 1
    assert set(executed) == {"a05", "a06", "a07"}  # the failure stopped nothing else
    shown = capsys.readouterr().out
    assert re.search(r"^a06 .*FAILED  RuntimeError: <boom>$", shown, re.MULTILINE)
    assert len(re.findall(r"^a0[57] .* ok$", shown, re.MULTILINE)) == 2
    assert (tmp_path / "runs" / "index.html").is_file()


def test_only_large_networks_are_cut_short_on_the_sample(executed, tmp_path):
    run(tmp_path, "a00", "b02", "b10", "a07", "--dataset", "sample")
    cut = {name: {"dataset": "sample", "epochs": epochs} for name, epochs in {"a00": 1, "b02": 2, "b10": 8}.items()}
    assert executed == cut | {"a07": {"dataset": "sample"}}
    run(tmp_path, "a00", "--dataset", "sample", "-p", "epochs", "9")
    assert executed["a00"]["epochs"] == 9


@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize("missing", [None, *MNIST_SHA256])
def test_auto_takes_mnist_if_all_files_are_there(missing, ending, executed, tmp_path, capsys):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name in set(MNIST_SHA256) - {missing}:
        (raw / f"{name}{ending}").touch()
    run(tmp_path, "a07")
    assert executed["a07"]["dataset"] == ("sample" if missing else "mnist")
    assert ("cannot be compared" in capsys.readouterr().out) == bool(missing)
    assert Path(os.environ["MNIST_ROOT"]) == tmp_path


@pytest.mark.skipif(not shutil.which("make"), reason="make is not installed")
def test_make_help_lists_every_target():
    targets = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)[1].split()
    shown = subprocess.run(
        ["make", "--no-print-directory", "help"], cwd=ROOT, capture_output=True, encoding="utf-8", check=True
    ).stdout
    assert [line.split()[0] for line in shown.splitlines()] == targets
    assert all(len(line.split()) > 2 for line in shown.splitlines())


def test_nothing_is_published_from_the_sample(monkeypatch, tmp_path):
    monkeypatch.setenv("MNIST_ROOT", str(tmp_path))
    before = (ROOT / "notebooks" / "00_start_here.ipynb").read_bytes()
    with pytest.raises(SystemExit, match="full MNIST only.*MNIST_ROOT"):
        main(["publish", "00"])
    assert (ROOT / "notebooks" / "00_start_here.ipynb").read_bytes() == before


def test_a_recipe_is_trained_by_the_name_of_its_results(tmp_path):
    small = ["-p", "dataset", "sample", "-p", "epochs", "1", "-p", "train_limit", "128", "-p", "seed", "5"]
    main(["train", "a05_dropout", "--run-dir", str(tmp_path), *small])
    record = json.loads((tmp_path / "a05_dropout" / "seed5.json").read_text(encoding="utf-8"))
    assert (record["rung"], record["seed"], record["train_total"]) == ("a05_dropout", 5, 128)
    assert record["recipe"]["arguments"] == {"dropout": 0.1}
    with pytest.raises(SystemExit, match="error: there is no recipe a05_x: a05, a05_dropout"):
        main(["train", "a05_x"])
    with pytest.raises(SystemExit, match="error: parameter sead=5 does not exist"):
        main(["train", "a05", "-p", "sead", "5"])
