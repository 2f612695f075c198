"""Executing one notebook headlessly, and making sure that it really ran."""

import contextlib
import os
import signal
import subprocess
import sys

import nbformat
from nbformat.reader import NotJSONError

LIMIT_SECONDS = 6 * 3600  # wall clock for one notebook; the largest network needs two hours of one core
RUNNING = set()  # processes of papermill


class NotRun(RuntimeError):
    """A notebook did not run to its end, whatever its exit code says."""


def execute(source, output, parameters, limit_seconds=LIMIT_SECONDS):
    """Run papermill on `source` in its own folder; raise NotRun unless every cell really ran."""
    output.unlink(missing_ok=True)
    command = [sys.executable, "-m", "papermill", str(source), str(output), "--cwd", str(source.parent)]
    command += ["--no-progress-bar", "--log-level", "ERROR", "--kernel", "python3"]  # this one, whatever it names
    for name, value in parameters.items():
        command += ["-r" if isinstance(value, str) else "-p", name, str(value)]
    environment = {"OMP_NUM_THREADS": "1"} | os.environ | {"PYTHONUTF8": "1", "PYTHONIOENCODING": "utf-8"}
    process = subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
    )
    RUNNING.add(process)
    try:
        _, messages = process.communicate(timeout=limit_seconds)
    except subprocess.TimeoutExpired:
        raise NotRun(f"{source.name} was stopped after {limit_seconds} s") from None
    finally:
        end_session(process)
        RUNNING.discard(process)
    if process.returncode:
        last = messages.strip().splitlines()[-1:] or [f"papermill ended with exit status {process.returncode}"]
        raise NotRun(_first_error(output) or f"{source.name}: {last[0]}")
    check_executed(output)


def end_session(process):
    """End papermill and the kernel it started, if either still runs."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _first_error(path):
    try:
        cells = nbformat.read(path, as_version=4).cells
    except (OSError, NotJSONError):  # never written, or incomplete: the disk was full
        return None
    for cell in cells:
        for output in cell.get("outputs", []):
            if output.output_type == "error":
                return f"{output.ename}: {output.evalue}"
    return None


def check_executed(path):
    """Raise NotRun unless every code cell has an execution count and no output is an error.

    papermill's own status fields claim completion after a dead kernel, a time-out or `sys.exit(0)`.
    """
    try:
        cells = nbformat.read(path, as_version=4).cells
    except NotJSONError as error:
        raise NotRun(f"{path} is not a whole notebook") from error
    for position, cell in enumerate(cells):
        if cell.cell_type != "code" or not cell.source.strip():
            continue
        if cell.execution_count is None:
            raise NotRun(f"{path.name}: code cell {position} was never executed")
        if any(output.output_type == "error" for output in cell.outputs):
            raise NotRun(_first_error(path))
