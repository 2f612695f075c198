"""A batch of notebooks: executed side by side, their records found, their pages made or published."""

import contextlib
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
from nbformat.reader import NotJSONError

from lab.batch.execute import LIMIT_SECONDS, RUNNING, NotRun, end_session, execute
from lab.batch.html_pages import render_page
from lab.batch.outcomes import Outcome, format_outcome
from lab.batch.time_left import time_left, work_of
from lab.files import ROOT, write_atomically
from lab.ladders.rungs import Rung
from lab.run.record import RunRecord
from lab.run.schema import DamagedFile
from lab.training.data import mnist_folder

QUICK_EPOCHS = {1_000_000: 1, 100_000: 2, 10_000: 8}  # on the sample, for networks above this many parameters
FAILED = ".failed"  # suffix of a file that says in words why an execution failed
CANONICAL_KEYS = (
    "metadata.papermill metadata.widgets metadata.language_info cell.metadata.papermill cell.metadata.execution"
)


def run_all(notebooks, run_dir, parameters, jobs, *, seeds=None):
    """Execute notebooks side by side, one line per start and end; return their outcomes, largest network first.

    Args:
        run_dir, parameters: as for `run_one`.
        jobs: executions at a time.
        seeds: of every notebook that has a seed; None leaves it to the parameters.
    """

    def run(notebook, chosen, note, work):
        seed = f" seed {chosen['seed']}" if "seed" in chosen else ""
        print(f"{notebook.id}{seed}  started{note}", flush=True)
        outcome = run_one(notebook, run_dir, chosen)
        ended.append(work)
        print(format_outcome(outcome), time_left(works, ended, jobs, time.monotonic() - began), sep="\n", flush=True)
        return outcome

    wanted = [
        (notebook, *quick_parameters(notebook, parameters | chosen))
        for notebook in sorted(notebooks, key=lambda notebook: -_cost(notebook))
        for chosen in _choices(notebook, seeds)
    ]
    works, ended, began = [work_of(notebook, chosen) for notebook, chosen, _ in wanted], [], time.monotonic()
    with ThreadPoolExecutor(jobs) as pool:
        runs = [pool.submit(run, *each, work) for each, work in zip(wanted, works, strict=True)]
        try:
            return [each.result() for each in runs]
        except BaseException:  # interrupted: leave no process that keeps writing
            pool.shutdown(wait=False, cancel_futures=True)
            while not all(each.done() for each in runs):
                for process in list(RUNNING):
                    end_session(process)
                time.sleep(0.1)
            raise


def _choices(notebook, seeds):
    """The parameters by which the executions of one notebook differ; what trains nothing is executed once."""
    trains = isinstance(notebook, Rung) and seeds is not None
    return [{"seed": seed} for seed in range(seeds)] if trains else [{}]


def _cost(notebook):
    """Parameters of its network; 0 if it trains none or they are not known before it runs."""
    try:
        return notebook.recipe.parameters if isinstance(notebook, Rung) else 0
    except Exception:  # a reader's network may raise anything, and will say so when its notebook runs
        return 0


def quick_parameters(notebook, parameters):
    """On the sample, cut the epochs of the larger networks, and say so."""
    epochs = next((epochs for above, epochs in QUICK_EPOCHS.items() if _cost(notebook) > above), None)
    if epochs and parameters.get("dataset") == "sample" and "epochs" not in parameters:
        return parameters | {"epochs": epochs}, f" (quick: epochs={epochs})"
    return parameters, ""


def run_one(notebook, run_dir, parameters, *, limit_seconds=LIMIT_SECONDS):
    """Execute one notebook with papermill in a process of its own, check it, and render it to HTML.

    Args:
        run_dir: executed notebook, page, record, and the reason for a failure go to `<run_dir>/<id>/seed<k>.*`.
        parameters: values that differ from the notebook's defaults.

    Returns: Outcome; failures are in it, not raised.
    """
    started, error, record = time.monotonic(), None, None
    output = Path(run_dir) / notebook.id / f"seed{parameters.get('seed', 0)}.ipynb"
    try:
        defaults = notebook.defaults()
        missing = sorted(set(parameters) - set(defaults))
        if missing and any("utils.fit(" in "".join(cell["source"]) for cell in notebook.cells):
            names = ", ".join(missing)
            raise NotRun(f"{notebook.path.name} trains, but no cell tagged 'parameters' sets {names}: nothing was run")
        parameters = parameters | {"run_dir": str(Path(run_dir).resolve())}
        parameters = {name: value for name, value in parameters.items() if name in defaults}
        seed = parameters.get("seed", defaults.get("seed", 0))
        output = output.with_name(f"seed{seed}.ipynb")
        output.parent.mkdir(parents=True, exist_ok=True)
        before = find_records(run_dir, notebook.id, seed)
        execute(notebook.path, output, parameters, limit_seconds)
        if isinstance(notebook, Rung):
            written = find_records(run_dir, notebook.id, seed).items() - before.items()
            record = choose_record(notebook.id, sorted(path for path, _ in written), parameters)
    except (NotRun, OSError, ValueError) as failure:
        error = str(failure)
    try:
        if output.is_file():
            render_page(output)
    except (OSError, NotJSONError) as failure:
        error = error or str(failure)
    _keep_reason(output.with_suffix(FAILED), error)
    accuracy = record and record.final
    return Outcome(notebook.id, time.monotonic() - started, accuracy, output, error, record)


def _keep_reason(path, error):
    """Keep the reason beside the notebook, for the index; a full disk has been reported already."""
    with contextlib.suppress(OSError):
        if error:
            write_atomically(path, error)
        else:
            path.unlink(missing_ok=True)


def find_records(run_dir, rung_id, seed):
    """Where a rung may have left the record of a seed, and the version of that file: no clock is read.

    That is `<run_dir>/<rung>`, or "<rung>-own" for recipes other than the published one.

    Returns: dictionary by path; a rewritten file has another inode, time or size.
    """
    folders = (
        folder for folder in Path(run_dir).glob("*") if re.fullmatch(rf"{re.escape(rung_id)}(-.*)?", folder.name)
    )
    paths = (folder / f"seed{seed}.json" for folder in folders)
    states = {path: path.stat() for path in paths if path.is_file()}
    return {path: (state.st_ino, state.st_mtime_ns, state.st_size) for path, state in states.items()}


def choose_record(rung_id, written, parameters):
    """The record of an execution among those that appeared meanwhile; NotRun if none of them is."""
    if not written:
        raise NotRun(f"{rung_id} wrote no run record: does its recipe say rung = {rung_id!r}, and does it call fit?")
    problems = []
    for path in written:
        try:
            return check_record(path, parameters)
        except NotRun as problem:
            problems.append(problem)
    raise problems[0]


def check_record(path, parameters):
    """The run record in a file; NotRun unless it is of a finished run with the requested parameters.

    Another run may still be writing to the same place.
    """
    try:
        record = RunRecord.read(path)
    except DamagedFile as error:
        raise NotRun(str(error)) from error
    if record.clean_train_correct is None or len(record.epochs) != record.recipe["epochs"]:
        raise NotRun(f"{path} is the record of an unfinished run")
    written = {"seed": record.seed, "epochs": record.recipe["epochs"], "dataset": record.dataset}
    for name in written.keys() & parameters.keys():
        if written[name] != parameters[name]:
            raise NotRun(f"{path} is of {name}={written[name]}, not {parameters[name]}: another run wrote it")
    return record


def publish(notebook):
    """Execute a notebook as published, without parameters and on one thread, and keep its outputs in place.

    Raises: NotRun, and FileNotFoundError without the full MNIST; the notebook then stays as it was.
    """
    if not mnist_folder():
        raise FileNotFoundError(
            "pages are published from the full MNIST only: put its four files under data/MNIST/raw, or set MNIST_ROOT "
            "to the folder that holds MNIST/raw"
        )
    output = ROOT / "runs" / notebook.id / "published.ipynb"
    output.parent.mkdir(parents=True, exist_ok=True)
    execute(notebook.path, output, {})
    make_canonical(output)
    write_atomically(notebook.path, output.read_bytes())


def make_canonical(path):
    """Remove from a notebook all that differs between runs and no reader needs; keep its outputs."""
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = _join_streams(cell.outputs)
    nbformat.write(notebook, path)
    command = [
        sys.executable,
        "-m",
        "nbstripout",
        "--keep-output",
        "--keep-count",
        "--keep-id",
        "--extra-keys",
        CANONICAL_KEYS,
    ]
    subprocess.run([*command, str(path)], check=True)


def _join_streams(outputs):
    joined = []
    for output in outputs:
        if joined and output.output_type == "stream" == joined[-1].output_type and output.name == joined[-1].name:
            joined[-1].text += output.text
        else:
            joined.append(output)
    return joined
