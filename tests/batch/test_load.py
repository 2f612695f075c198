"""Many notebooks at once: all end, none disturbs another, and memory stays where it was.

LOAD_RUNS=200 is the full load, some 20 minutes on two cores; without it a dozen run.
"""

import itertools
import os
from concurrent.futures import ThreadPoolExecutor

import nbformat
import psutil
import pytest

from lab.batch.executions import run_one
from lab.ladders.rungs import find_rungs
from lab.run.record import RunRecord

RUNS = int(os.environ.get("LOAD_RUNS", 12))
AT_ONCE = 4
RUNGS = find_rungs(["a03", "a06", "c05"])
SMALL = {"dataset": "sample", "epochs": 1, "train_limit": 192}
GROWTH_BYTES = 50e6


@pytest.mark.notebook
def test_many_runs_at_once_all_end(tmp_path):
    jobs = list(itertools.islice(((seed, rung) for seed in itertools.count() for rung in RUNGS), RUNS))
    memory, kernels = [], kernels_alive()

    def run(job):
        seed, rung = job
        outcome = run_one(rung, tmp_path, SMALL | {"seed": seed}, limit_seconds=600)
        memory.append(psutil.Process().memory_info().rss)
        return outcome

    with ThreadPoolExecutor(AT_ONCE) as pool:
        outcomes = list(pool.map(run, jobs))
    assert [outcome.error for outcome in outcomes if outcome.error] == []
    assert max(memory[AT_ONCE:]) - memory[AT_ONCE] < GROWTH_BYTES
    assert kernels_alive() <= kernels
    assert not list(tmp_path.rglob(".*"))  # no temporary file is left
    for seed, rung in jobs:
        record = RunRecord.read(tmp_path / rung.id / f"seed{seed}.json")
        assert (record.rung, record.seed, len(record.epochs)) == (rung.id, seed, 1)
        cells = nbformat.read(tmp_path / rung.id / f"seed{seed}.ipynb", as_version=4).cells
        counts = [cell.execution_count for cell in cells if cell.cell_type == "code"]
        assert counts == [*range(1, len(counts) + 1)]


def kernels_alive():
    """Processes of Jupyter kernels below this one."""
    below = psutil.Process().children(recursive=True)
    return {process.pid for process in below if "ipykernel_launcher" in " ".join(process.cmdline())}
