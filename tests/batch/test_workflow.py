"""Batches through Snakemake, on this machine and through Slurm: what is there is kept, what was killed is run again."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import psutil
import pytest

from lab.files import ROOT
from lab.ladders.plan import key
from lab.ladders.rungs import find_rungs

LIMIT_SECONDS = 300
CANDIDATES = [os.environ.get("SNAKEMAKE"), ROOT / ".venv-batch" / "bin" / "snakemake", shutil.which("snakemake")]
SNAKEMAKE = next((str(path) for path in CANDIDATES if path and os.access(path, os.X_OK)), None)
RUNG = "a06"

pytestmark = [
    pytest.mark.skipif(not SNAKEMAKE, reason="Snakemake is not installed: make test installs it"),
    pytest.mark.xdist_group("snakemake"),
]


def has_slurm():
    return shutil.which("sinfo") and subprocess.run(["sinfo"], capture_output=True, timeout=60).returncode == 0


def command(folder, records, *arguments, images=256):
    small = f"-p epochs 1 -p train_limit {images}"
    settings = [
        f"python={sys.executable}",
        "dataset=sample",
        f"parameters={small}",
        f"rungs={RUNG}",
        f"folder={folder}",
    ]
    return [
        SNAKEMAKE,
        "-s",
        "workflow/Snakefile",
        *arguments,
        "--nolock",
        "--config",
        *settings,
        "--",
        *map(str, records),
    ]


def run(folder, records, *arguments, images=256):
    done = subprocess.run(
        command(folder, records, *arguments, images=images),
        cwd=ROOT,
        capture_output=True,
        encoding="utf-8",
        timeout=LIMIT_SECONDS,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stderr


@pytest.fixture
def records(tmp_path):
    """Where the records of seeds 0 and 1 are to land."""
    (rung,) = find_rungs([RUNG])
    return [tmp_path / key(rung.page_recipes) / RUNG / f"seed{seed}.json" for seed in (0, 1)]


@pytest.mark.notebook
def test_only_what_is_missing_is_run(tmp_path, records):
    run(tmp_path, records, "--cores", "2")
    assert [json.loads(path.read_text(encoding="utf-8"))["seed"] for path in records] == [0, 1]
    assert all(path.with_suffix(".ipynb").exists() for path in records)
    before = [path.stat().st_mtime_ns for path in records]
    assert "Nothing to be done" in run(tmp_path, records, "--cores", "2")
    records[1].unlink()
    run(tmp_path, records, "--cores", "2")
    after = [path.stat().st_mtime_ns for path in records]
    assert (after[0] == before[0], after[1] == before[1]) == (True, False)


@pytest.mark.notebook
def test_what_no_notebook_trains_is_trained_without_one(tmp_path):
    (rung,) = find_rungs([RUNG])
    name = f"{RUNG}_try"
    path = tmp_path / key({name: rung.recipes[name]}) / name / "seed3.json"
    run(tmp_path, [path], "--cores", "1")
    record = json.loads(path.read_text(encoding="utf-8"))
    assert (record["rung"], record["seed"], record["train_total"]) == (name, 3, 256)
    assert record["recipe"] == rung.recipes[name].as_dict() | {"epochs": 1}
    assert not list(tmp_path.rglob("*.ipynb"))


@pytest.mark.notebook
def test_a_killed_batch_goes_on(tmp_path, records):
    """SIGKILL for Snakemake and all that it has started, as soon as a kernel is at work."""
    process = subprocess.Popen(
        command(tmp_path, records, "--cores", "1", images=0), cwd=ROOT, stderr=subprocess.PIPE, start_new_session=True
    )
    deadline = time.monotonic() + LIMIT_SECONDS
    while not list(tmp_path.rglob("*.checkpoint")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    family = [process, *psutil.Process(process.pid).children(recursive=True)]
    for member in family:
        try:
            os.kill(member.pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    process.communicate()
    assert not all(path.exists() for path in records)
    run(tmp_path, records, "--cores", "2", "--rerun-incomplete", images=0)
    assert [json.loads(path.read_text(encoding="utf-8"))["seed"] for path in records] == [0, 1]


@pytest.mark.notebook
@pytest.mark.skipif(not shutil.which("rsync"), reason="Snakemake's storage plugin for folders calls rsync")
def test_records_go_to_storage(tmp_path, records):
    """As with a bucket: Snakemake fetches inputs from the store and sends outputs there, whatever the plugin."""
    store = ["--default-storage-provider", "fs", "--default-storage-prefix", str(tmp_path)]
    folder, names = "runs/stored", [path.relative_to(tmp_path) for path in records]
    run(folder, [f"{folder}/{name}" for name in names], "--cores", "2", *store)
    assert [json.loads((tmp_path / folder / name).read_text(encoding="utf-8"))["seed"] for name in names] == [0, 1]
    assert not (ROOT / folder).exists()


@pytest.mark.notebook
@pytest.mark.slurm
@pytest.mark.skipif(not has_slurm(), reason="no Slurm is running here: sudo workflow/slurm/single_node.sh")
def test_jobs_go_through_slurm(tmp_path, records):
    shown = run(tmp_path, records, "--profile", "workflow/slurm")
    assert shown.count("has been submitted with SLURM jobid") == 2
    assert [json.loads(path.read_text(encoding="utf-8"))["seed"] for path in records] == [0, 1]
