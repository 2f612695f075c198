"""Faults for real: processes killed, disks filled, folders that cannot be written. Nothing finished may be lost."""

import contextlib
import hashlib
import io
import itertools
import json
import math
import multiprocessing
import os
import pathlib
import pickle
import random
import shutil
import signal
import subprocess
import time
from dataclasses import replace

import pytest
import torch

import model
from lab import files
from lab.batch.executions import run_one
from lab.ladders.rungs import find_rungs
from lab.run.fit import fit
from lab.run.record import RunRecord
from lab.run.schema import DamagedFile
from lab.training.augment import RandomRotation
from lab.training.data import Digits, Split, load_digits
from lab.training.recipe import Recipe
from lab.training.schedules import OneCycleLR

RUNG, EPOCHS = "t00", 4
RECIPE = Recipe(
    network=model.NormedSkeleton,
    arguments={"dropout": 0.1},
    epochs=EPOCHS,
    batch_size=32,
    schedule=OneCycleLR(0.05),
    augmentation=(RandomRotation(6),),
)
LIMIT_SECONDS = 120


def few_digits():
    full = load_digits("sample")
    return Digits("sample", full.sha256, full.train.first(400), full.test.first(100))


def train(run_dir, seed=0):
    torch.set_num_threads(1)
    return fit(RECIPE, few_digits(), rung=RUNG, seed=seed, device="cpu", run_dir=run_dir)


def bits(run):
    """All that a run leaves behind but the seconds: the record, and a digest of the weights."""
    rows = [{key: value for key, value in row.items() if "seconds" not in key} for row in run.record.epochs]
    weights = hashlib.sha256()
    for value in run.network.state_dict().values():
        weights.update(value.contiguous().numpy().tobytes())
    return rows, run.record.clean_train_correct, run.record.key(), weights.hexdigest()


def assert_whole(folder):
    """Whatever stands under its final name can be read to its end."""
    for path in folder.rglob("[!.]*.json"):
        record = RunRecord.read(path)
        assert (len(record.epochs), record.clean_train_total) == (EPOCHS, 400)
    for path in folder.rglob("[!.]*.checkpoint"):
        epochs = torch.load(path, weights_only=True)["epochs"]
        assert [row["epoch"] for row in epochs] == [*range(1, len(epochs) + 1)]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    threads = torch.get_num_threads()
    yield bits(train(tmp_path_factory.mktemp("unbroken")))
    torch.set_num_threads(threads)


# ----------------------------------------------------------------------------------------- killed runs


def train_and_tell(run_dir, pipe):
    """In a process of its own: say when training begins and when it is over."""
    few_digits()
    pipe.send("begins")
    train(run_dir)
    pipe.send("over")


def train_until_write(run_dir, call, count):
    """In a process of its own: SIGKILL from within the `count`-th call of a system call that writing a file takes."""
    owner, name = {"fsync": (os, "fsync"), "replace": (pathlib.Path, "replace")}[call]
    calls = itertools.count(1)
    original = getattr(owner, name)

    def killing(*arguments):
        if next(calls) == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*arguments)

    setattr(owner, name, killing)
    train(run_dir)


def start(target, *arguments):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["model", "lab.run.fit"])
    process = context.Process(target=target, args=arguments)
    process.start()
    return process


@pytest.fixture(scope="module")
def duration(tmp_path_factory, unbroken):
    """Seconds from the first batch to the end, in a process like those that will be killed."""
    pipe, far_end = multiprocessing.Pipe()
    process = start(train_and_tell, tmp_path_factory.mktemp("timed"), far_end)
    assert pipe.poll(LIMIT_SECONDS)
    assert pipe.recv() == "begins"
    started = time.monotonic()
    assert pipe.poll(LIMIT_SECONDS)
    assert pipe.recv() == "over"
    process.join()
    return time.monotonic() - started


@pytest.mark.parametrize("moment", range(20))
def test_killed_at_a_random_moment(unbroken, duration, tmp_path, moment):
    pipe, far_end = multiprocessing.Pipe()
    process = start(train_and_tell, tmp_path, far_end)
    assert pipe.poll(LIMIT_SECONDS)
    time.sleep(random.Random(moment).uniform(0, duration))
    process.kill()
    process.join()
    assert_whole(tmp_path)
    assert bits(train(tmp_path)) == unbroken


@pytest.mark.parametrize(
    "count",
    [1, 2, EPOCHS + 1, EPOCHS + 2],
    ids=["probe of the folder", "first checkpoint", "last checkpoint", "record"],
)
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_killed_while_writing(unbroken, tmp_path, call, count):
    process = start(train_until_write, tmp_path, call, count)
    process.join(LIMIT_SECONDS)
    assert process.exitcode == -signal.SIGKILL
    assert_whole(tmp_path)
    assert not list(tmp_path.rglob("[!.]*.json"))
    (half,) = tmp_path.rglob(".*")  # what was being written, under another name
    os.utime(half, (0, 0))
    assert bits(train(tmp_path)) == unbroken
    assert not half.exists()  # swept up, being old: a younger one may belong to a process that is alive


# --------------------------------------------------------------------------- full and read-only folders


@pytest.fixture
def disk(tmp_path):
    """A file system of 600 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"mounting a small disk needs rights that are missing here: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


def fill(disk):
    """Leave no free block."""
    ballast = disk / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb") as file:
        while True:
            file.write(bytes(4096))
            file.flush()
    assert shutil.disk_usage(disk).free == 0
    return ballast


def test_full_disk(unbroken, disk):
    first = train(disk, seed=1)
    kept = {path: path.read_bytes() for path in disk.rglob("*") if path.is_file()}
    ballast = fill(disk)
    with pytest.raises(OSError, match=f"cannot write .* bytes to {disk}.*No space left on device.*Free some space"):
        train(disk)
    assert {path: path.read_bytes() for path in kept} == kept
    assert sorted(path for path in disk.rglob("*") if path.is_file()) == sorted([*kept, ballast])
    ballast.unlink()
    assert bits(train(disk)) == unbroken
    assert bits(train(disk, seed=1)) == bits(first)


def test_disk_full_in_the_middle(unbroken, disk, monkeypatch):
    """Full when the third checkpoint is due: the first two epochs are not trained again."""
    ballast, calls, write = disk / "ballast", itertools.count(1), files.write_atomically

    def write_or_fill(path, content):
        if next(calls) == 3:
            fill(disk)
        write(path, content)

    with monkeypatch.context() as patch:
        patch.setattr("lab.run.checkpoints.write_atomically", write_or_fill)
        with pytest.raises(OSError, match="No space left on device"):
            train(disk)
    (checkpoint,) = disk.rglob("*.checkpoint")
    assert len(torch.load(checkpoint, weights_only=True)["epochs"]) == 2
    ballast.unlink()
    assert bits(train(disk)) == unbroken


def test_read_only_folder(unbroken, disk):
    first = bits(train(disk, seed=1))
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    with pytest.raises(
        OSError, match=f"cannot write .* bytes to {disk}.*Read-only file system.*Choose another run_dir"
    ):
        train(disk)
    subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
    assert bits(train(disk)) == unbroken
    assert bits(train(disk, seed=1)) == first
    assert json.loads((disk / RUNG / "seed1.json").read_text())["seed"] == 1


@pytest.mark.notebook
def test_a_notebook_that_cannot_be_written_has_failed(disk):
    """papermill writes its output after every cell: onto a folder, a read-only disk, a disk that is full."""
    rung = find_rungs(["a07"])[0]
    small = {"dataset": "sample", "epochs": 1, "train_limit": 64}
    (disk / "folder" / "a07" / "seed0.ipynb").mkdir(parents=True)
    assert "Is a directory" in run_one(rung, disk / "folder", small, limit_seconds=LIMIT_SECONDS).error
    ballast = fill(disk)
    outcome = run_one(rung, disk / "full", small, limit_seconds=LIMIT_SECONDS)
    assert "No space left on device" in outcome.error
    ballast.unlink()
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    assert "Read-only file system" in run_one(rung, disk / "other", small, limit_seconds=LIMIT_SECONDS).error


# ------------------------------------------------------------------------------------ untrusted files


class Payload:
    """What runs when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return pathlib.Path.touch, (self.path,)


KINDS = {  # of damage, and what is said of it
    "pickle": "",
    "payload": "",
    "empty": "cut short",
    "half": "cut short",
    "text": "something else altogether",
    "bit": "has changed since it was written",
    "no network": "network",
    "epochs astray": "epochs are not in order",
    "epochs too many": "more than the 4 of the recipe",
    "epochs of no number": "not a finite number",
    "epochs without test": "must contain .*'test_correct'",
    "other name": "written as seed1-",
}


CHANGES = {
    "no network": lambda state: state.pop("network"),
    "epochs astray": lambda state: state["epochs"].reverse(),
    "epochs too many": lambda state: state["epochs"].append(state["epochs"][-1] | {"epoch": EPOCHS + 1}),
    "epochs of no number": lambda state: state["epochs"][0].update(train_loss=math.nan),
    "epochs without test": lambda state: state["epochs"][0].pop("test_correct"),
    "other name": lambda state: state.update(name="seed1-0123456789ab.checkpoint"),
}


def damaged(kind, whole, trace):
    """The bytes of a checkpoint that is none."""
    buffer = io.BytesIO()
    if kind == "pickle":
        return pickle.dumps({"epochs": Payload(trace)}, protocol=2)
    if kind == "payload":
        torch.save({"epochs": Payload(trace)}, buffer)
        return buffer.getvalue()
    if kind in CHANGES:
        state = torch.load(io.BytesIO(whole), weights_only=True)
        CHANGES[kind](state)
        torch.save(state, buffer)
        return buffer.getvalue()
    middle = len(whole) // 2
    flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
    return {"empty": b"", "half": whole[:middle], "text": b"<html>please log in</html>", "bit": flipped}[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_a_checkpoint_that_is_none_is_refused_and_never_run(tmp_path, kind):
    train(tmp_path)
    (checkpoint,) = tmp_path.rglob("*.checkpoint")
    trace, content = tmp_path / "trace", damaged(kind, checkpoint.read_bytes(), tmp_path / "trace")
    if kind in ("pickle", "payload"):
        torch.load(io.BytesIO(content), weights_only=False) if kind == "payload" else pickle.loads(content)
        assert trace.exists()  # it would do its harm
        trace.unlink()
    checkpoint.write_bytes(content)
    with pytest.raises(DamagedFile, match=f"{checkpoint} is not a checkpoint of this run: .*{KINDS[kind]}.*Delete it"):
        train(tmp_path)
    assert not trace.exists()
    assert checkpoint.read_bytes() == content  # nothing of the user's is deleted


def test_other_images_under_the_same_name_are_not_taken_for_the_same_data(tmp_path):
    """The last labels only: the first batches come out alike."""
    few = few_digits()
    labels = torch.cat([few.train.labels[:-9], few.train.labels[-9:].flip(0)])
    swapped = replace(few, train=Split(few.train.images, labels))
    first = fit(RECIPE, few, rung=RUNG, device="cpu", run_dir=tmp_path)
    second = fit(RECIPE, swapped, rung=RUNG, device="cpu", run_dir=tmp_path)
    assert not second.read_back
    assert bits(second) == bits(fit(RECIPE, swapped, rung=RUNG, device="cpu", run_dir=tmp_path / "afresh"))
    assert bits(first) == bits(fit(RECIPE, few, rung=RUNG, device="cpu", run_dir=tmp_path))  # still there


def test_a_folder_in_place_of_a_checkpoint(tmp_path):
    train(tmp_path)
    (checkpoint,) = tmp_path.rglob("*.checkpoint")
    checkpoint.unlink()
    checkpoint.mkdir()
    with pytest.raises(DamagedFile, match=f"{checkpoint} is not a checkpoint of this run: .*Is a directory.*Delete it"):
        train(tmp_path)
