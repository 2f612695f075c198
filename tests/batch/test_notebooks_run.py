"""Notebooks really run, in every way that the README offers, and what did not run is never taken for it."""

import json
import os
import signal
import subprocess
import sys
import time

import nbformat
import psutil
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from lab.batch import executions as notebooks
from lab.batch.execute import NotRun, check_executed, execute
from lab.batch.executions import check_record, run_one
from lab.files import ROOT, write_atomically
from lab.ladders.rungs import Notebook, Rung, find_notebooks, find_rungs
from lab.run.record import RunRecord
from lab.training.recipe import without_held_out

KERNEL = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
LIMIT_SECONDS = 300
FINAL = find_rungs(["a07"])[0]

executes = pytest.mark.notebook


def write_notebook(path, *sources, counts=None):
    """A notebook of code cells, not executed unless `counts` says so."""
    cells = [new_code_cell(source) for source in sources]
    for cell, count in zip(cells, counts or [], strict=False):
        cell.execution_count = count
    nbformat.write(new_notebook(cells=cells, metadata=KERNEL), path)
    return path


def tail(done):
    return done.stdout[-2000:] + done.stderr[-2000:]


def papermill(source, output, *arguments, folder=ROOT):
    command = [sys.executable, "-m", "papermill", str(source), str(output), "--no-progress-bar", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, encoding="utf-8", timeout=LIMIT_SECONDS)


# ------------------------------------------------------------------------------------ what has to work


@executes
@pytest.mark.parametrize("notebook", find_notebooks(), ids=lambda notebook: notebook.id)
def test_notebook_runs_in_small(notebook, tmp_path):
    is_large = isinstance(notebook, Rung) and notebook.recipe.parameters > 100_000  # minutes saved
    images = 128 if is_large else 512
    parameters = {"dataset": "sample", "epochs": 1, "train_limit": images}
    outcome = run_one(notebook, tmp_path, parameters, limit_seconds=LIMIT_SECONDS)
    assert outcome.error is None
    cells = [cell for cell in nbformat.read(outcome.path, as_version=4).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == [*range(1, len(cells) + 1)]
    assert [output for cell in cells for output in cell.outputs if output.get("name") == "stderr"] == []
    assert notebook.title.split("·")[-1].strip() in outcome.path.with_suffix(".html").read_text(encoding="utf-8")
    for name, recipe in notebook.page_recipes.items() if isinstance(notebook, Rung) else ():
        record = RunRecord.read(tmp_path / name / "seed0.json")
        kept = without_held_out(images, recipe.held_out)
        assert (record.rung, record.dataset, record.train_total) == (name, "sample", kept)
        of_its_own = recipe.epochs != notebook.recipe.epochs  # an ablation may be about the number of epochs
        assert len(record.epochs) == record.recipe["epochs"] == (recipe.epochs if of_its_own else 1)
        assert (record.epochs[0]["test_total"], record.clean_train_total) == (1_000, kept)
        assert name != notebook.id or outcome.accuracy == record.final


@executes
def test_papermill_by_hand_from_the_root(tmp_path):
    path = FINAL.path.relative_to(ROOT)
    numbers = ["-p", "seed", "3", "-p", "epochs", "1", "-p", "train_limit", "256"]
    done = papermill(path, tmp_path / "out.ipynb", *numbers, "-r", "dataset", "sample", "-r", "run_dir", str(tmp_path))
    assert done.returncode == 0, tail(done)
    record = json.loads((tmp_path / "a07" / "seed3.json").read_text(encoding="utf-8"))
    assert (record["seed"], record["train_total"], len(record["epochs"])) == (3, 256, 1)


@executes
def test_nbconvert_in_the_folder_of_the_notebook(tmp_path):
    folder = tmp_path / "notebooks" / "a_ladder"
    folder.mkdir(parents=True)
    for name in ("model.py", "utils.py", "lab"):
        (tmp_path / name).symlink_to(ROOT / name)
    sources = [FINAL.tagged(tag) for tag in ("setup", "parameters", "recipe")]
    write_notebook(folder / "small.ipynb", *sources, "print(utils.__file__, recipe.network.__name__)")
    command = [sys.executable, "-m", "nbconvert", "--to", "notebook", "--execute", "--output", "out", "small.ipynb"]
    done = subprocess.run(command, cwd=folder, capture_output=True, encoding="utf-8", timeout=LIMIT_SECONDS)
    assert done.returncode == 0, tail(done)
    last = nbformat.read(folder / "out.ipynb", as_version=4).cells[-1]
    assert last.outputs[0].text.split() == [str(tmp_path / "utils.py"), FINAL.recipe.network.__name__]


@executes
def test_misspelt_parameter_stops_the_notebook_itself(tmp_path):
    done = papermill(FINAL.path, tmp_path / "out.ipynb", "-p", "sed", "3", "-r", "run_dir", str(tmp_path))
    assert done.returncode != 0
    assert "parameter sed=3 does not exist" in done.stderr
    assert not (tmp_path / "a07").exists()


# -------------------------------------------------------------------------------- what must not pass


@executes
@pytest.mark.parametrize(
    ("ending", "message"),
    [
        ("import sys; sys.exit(0)", "SystemExit: 0"),
        ("import os; os.kill(os.getpid(), 9)", "[Kk]ernel died"),
        ("raise RuntimeError('boom')", "RuntimeError: boom"),
    ],
    ids=["exit", "killed", "raises"],
)
def test_what_ended_early_has_not_run(ending, message, tmp_path):
    source, output = write_notebook(tmp_path / "in.ipynb", "1 + 1", ending, "2 + 2"), tmp_path / "out.ipynb"
    with pytest.raises(NotRun, match=message):
        execute(source, output, {}, LIMIT_SECONDS)
    with pytest.raises(NotRun):
        check_executed(output)


@executes
def test_what_runs_too_long_is_stopped_and_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path))  # so that the kernel's command line names it
    source = write_notebook(tmp_path / "in.ipynb", "import time; time.sleep(600)")
    with pytest.raises(NotRun, match="in.ipynb was stopped after 10 s"):
        execute(source, tmp_path / "out.ipynb", {}, limit_seconds=10)
    deadline = time.monotonic() + 30
    while (left := processes_that_name(tmp_path)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert left == []


def processes_that_name(path):
    others = (process for process in psutil.process_iter(["cmdline"]) if process.pid != os.getpid())
    return [line for process in others if str(path) in (line := " ".join(process.info["cmdline"] or []))]


@executes
def test_a_failure_is_an_outcome_with_a_page(tmp_path):
    source = write_notebook(tmp_path / "x00_fails.ipynb", "seed: int = 0", "raise RuntimeError('boom')")
    content = json.loads(source.read_text(encoding="utf-8"))
    content["cells"][0]["metadata"]["tags"] = ["parameters"]
    source.write_text(json.dumps(content), encoding="utf-8")
    outcome = run_one(Notebook(source), tmp_path, {"seed": 4, "dataset": "sample"}, limit_seconds=LIMIT_SECONDS)
    assert (outcome.id, outcome.accuracy, outcome.error) == ("x00", None, "RuntimeError: boom")
    assert outcome.path == tmp_path / "x00" / "seed4.ipynb"
    assert "boom" in outcome.path.with_suffix(".html").read_text(encoding="utf-8")


@pytest.mark.parametrize("text", ["", "{", "{}", '{"worksheets": [], "metadata": {}, "nbformat": 3}'])
def test_a_file_that_is_no_notebook_is_an_outcome_that_names_it(tmp_path, text):
    path = tmp_path / "Meine Übung.ipynb"
    path.write_text(text, encoding="utf-8")
    outcome = run_one(Notebook(path), tmp_path / "runs", {"seed": 2})
    assert outcome.error.startswith(f"{path} is not a notebook: ")


@executes
def test_a_notebook_saved_with_another_kernel_runs_with_this_one(tmp_path):
    source = write_notebook(
        tmp_path / "Übung 1 – it's 🙂.ipynb", "import sys; assert sys.executable == " + repr(sys.executable)
    )
    source.write_text(source.read_text(encoding="utf-8").replace('"python3"', '"conda-env-x-py"'), encoding="utf-8")
    outcome = run_one(Notebook(source), tmp_path / "läuft hier", {}, limit_seconds=LIMIT_SECONDS)
    assert outcome.error is None
    assert outcome.path.with_suffix(".html").is_file()


def processes_of(folder):
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if str(folder) in " ".join(process.info["cmdline"] or [])
    ]


@executes
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_batch_that_is_told_to_end_leaves_nothing_running_and_goes_on_later(tmp_path, name):
    command = [sys.executable, "-m", "lab", "run", "a07", "a06", "--dataset", "sample", "--jobs", "1"]
    command += ["--run-dir", str(tmp_path), "-p", "epochs", "60", "-p", "train_limit", "256"]
    batch = subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # what runs in the background may ignore it
    )
    deadline = time.monotonic() + LIMIT_SECONDS
    while not list(tmp_path.rglob("*.checkpoint")) and time.monotonic() < deadline:
        time.sleep(0.05)
    batch.send_signal(signal.Signals[name])
    _, messages = batch.communicate(timeout=30)
    assert (batch.returncode, messages) == (
        1,
        "interrupted: what has finished is kept, and the same command goes on from there\n",
    )
    assert processes_of(tmp_path) == []
    (checkpoint,) = tmp_path.rglob("*.checkpoint")
    assert not list(tmp_path.rglob("seed*.json"))
    assert checkpoint.parent.name == "a07"


def test_executed_means_every_cell(tmp_path):
    path = tmp_path / "notebook.ipynb"
    check_executed(write_notebook(path, "1", " \n", "2", counts=[1, None, 2]))  # an empty cell has nothing to run
    with pytest.raises(NotRun, match="notebook.ipynb: code cell 1 was never executed"):
        check_executed(write_notebook(path, "1", "2", "3", counts=[1, None, 2]))
    path.write_text(path.read_text(encoding="utf-8")[:-9], encoding="utf-8")
    with pytest.raises(NotRun, match="notebook.ipynb is not a whole notebook"):
        check_executed(path)


def make_record(**changes):
    values = {"rung": "a07", "seed": 0, "dataset": "sample", "dataset_sha256": "", "train_total": 2, "parameters": 1}
    values |= {
        "recipe": {"network": "A", "epochs": 1, "held_out": 0},
        "code_digest": "",
        "device": "cpu",
        "threads": 1,
        "versions": {},
    }
    row = {"epoch": 1, "learning_rate": 0.1, "train_correct": 1, "train_total": 2, "test_correct": 3, "test_total": 4}
    row |= {"train_loss": 0.2, "test_loss": 0.3}
    values |= {"epochs": [row], "clean_train_correct": 2, "clean_train_total": 2}
    return RunRecord(**values | changes)


def test_only_a_finished_record_of_what_was_asked_for_counts(tmp_path):
    path = tmp_path / "seed0.json"
    path.write_text(make_record().to_json(), encoding="utf-8")
    assert check_record(path, {}) == make_record()
    assert check_record(path, {"seed": 0, "epochs": 1, "dataset": "sample", "threads": 3}).seed == 0
    for name, value in {"seed": 1, "epochs": 2, "dataset": "mnist"}.items():
        with pytest.raises(NotRun, match=f"is of {name}=.*, not {value}: another run wrote it"):
            check_record(path, {name: value})
    for content in (make_record(clean_train_correct=None), make_record(epochs=[])):
        path.write_text(content.to_json(), encoding="utf-8")
        with pytest.raises(NotRun, match="unfinished"):
            check_record(path, {})
    for text in ("", "{}", "{"):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(NotRun, match="not a run record"):
            check_record(path, {})


HOURS = 3600


@pytest.mark.parametrize("clock", [-5 * HOURS, 0, 5 * HOURS], ids=["slow", "right", "fast"])
@pytest.mark.parametrize("folder", ["a07", "a07-own"])
@pytest.mark.parametrize("before", [None, "same", "older"])
def test_the_record_of_an_execution_is_the_one_that_appeared_meanwhile(tmp_path, monkeypatch, clock, folder, before):
    """Whatever the clock of the machine says against that of the file system."""
    real, path = time.time, tmp_path / folder / "seed0.json"
    monkeypatch.setattr(time, "time", lambda: real() + clock)
    bystander = tmp_path / "a07_small" / "seed0.json"
    for other in (tmp_path / "a07" / "seed1.json", bystander):
        write_atomically(other, make_record(seed=1).to_json())
    if before:
        write_atomically(path, make_record().to_json())
        if before == "older":
            os.utime(path, (0, 0))

    def execute(*_):
        write_atomically(bystander, make_record().to_json())  # of an ablation
        if written:
            write_atomically(path, make_record().to_json())

    monkeypatch.setattr(notebooks, "execute", execute)
    written = True
    assert run_one(FINAL, tmp_path, {}).record == make_record()
    written = False
    outcome = run_one(FINAL, tmp_path, {})
    assert (outcome.record, outcome.accuracy) == (None, None)
    assert outcome.error.startswith("a07 wrote no run record")
