"""Trying many small networks on training images alone: `python -m lab search TOPIC < candidates.jsonl`.

10,000 training images stand in for the test set, which is not read: the last ones, or every block of as many in turn.
Every run is a line of runs/search/<topic>.jsonl: what was tried, the seed, correct answers by epoch. A stopped search
resumes where it was: what the present code has tried is not tried again, nor what is published in
results/search/<topic>.jsonl. One search at a time writes to a file.
"""

import contextlib
import hashlib
import io
import json
import multiprocessing
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from lab.files import ROOT, write_atomically
from lab.native import trainer as native
from lab.rules import check, word
from lab.run.agreement import why_not
from lab.run.code import digest_or_reason
from lab.run.fit import fit
from lab.run.schema import SCHEMAS, parse_json, schema_of
from lab.run.trainable import require_trainable
from lab.search.candidates import build_recipe
from lab.training.data import Digits, Split, load_digits
from lab.training.loop import TrainingDiverged, begin, run_epoch
from lab.training.recipe import splits_of

SEARCH = ROOT / "results" / "search"  # published
OWN = ROOT / "runs" / "search"
HELD_OUT = 10_000


@dataclass(frozen=True)
class Trial:
    """One line of a search: settings that differ from the defaults, a seed, and its results.

    `correct` counts the held-out images answered right after each epoch, `loss` is their mean in nats; None for a run
    that broke off. `block` says which training images were held out, see `hold_out`.
    """

    settings: dict
    seed: int
    parameters: int
    correct: list[int] | None
    loss: list[float] | None
    seconds: float
    code_digest: str
    block: int = field(default=0, metadata={"optional": True})

    @property
    def name(self):
        return name_of(self.settings)

    @property
    def key(self):
        return self.name, self.seed, self.block

    @property
    def final(self):
        return self.correct[-1] / HELD_OUT

    @property
    def last5(self):
        last = self.correct[-5:]
        return sum(last) / len(last) / HELD_OUT


SCHEMAS["trial"] = schema_of(Trial)


def hold_out(digits, block=0, size=HELD_OUT):
    """The same data with a block of the training images in place of the test set, which is left out.

    Block 0 is the last `size` training images, block 1 those before them.

    Raises: ValueError if there are not as many, or none would be left to train on.
    """
    train, end = digits.train, len(digits.train) - block * size
    if end < size or len(train) == size:
        raise ValueError(
            f"hold_out: {len(train):,} training images have no block={block} of {size:,} and others to train on"
        )
    rest = Split(*(torch.cat([part[: end - size], part[end:]]) for part in (train.images, train.labels)))
    return Digits(digits.name, digits.sha256, rest, train.first(end).last(size))


def search(topic, candidates, *, seeds=1, blocks=1, jobs=2, folder=OWN, data=None, size=HELD_OUT):
    """Run every candidate with seeds 0 to seeds - 1, all of them with seed 0 first; yield a Trial as each is done.

    Args:
        topic: names the file of trials; what is published under the same name counts as tried.
        candidates: dictionaries, see `lab.search.candidates`.
        blocks: how many blocks of the training images are held out in turn: seed k holds out block k % blocks.
        jobs: runs side by side, on one thread each.
        data: Digits whose test set is not read; the full MNIST by default.
        size: of a block, in images.

    Raises: ValueError naming what is wrong with the topic, a candidate or the blocks, before anything runs.
    """
    done = {trial.key for trial in trials_that_count(topic, folder)}
    if not candidates:
        raise ValueError('search: there are no candidates, one JSON object a line: {"layers": "c8 M c12 G"}')
    candidates = list({name_of(settings): settings for settings in candidates}.values())
    recipes = [build_recipe(settings) for settings in candidates]
    wanted = [(settings, seed, seed % blocks) for seed in range(seeds) for settings in candidates]
    wanted = [
        (settings, seed, block) for settings, seed, block in wanted if (name_of(settings), seed, block) not in done
    ]
    if not wanted:
        return
    data = data or load_digits("mnist")
    splits = [hold_out(data, block, size) for block in range(blocks)]
    for settings, recipe in zip(candidates, recipes, strict=True):
        try:
            require_trainable(recipe, splits[0])
        except ValueError as error:
            raise ValueError(f"candidate {name_of(settings)}: {error}") from error
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), _prepare_worker) as pool:
        folder_of_runs = OWN / "trained" / topic
        runs = [
            pool.submit(_run, settings, seed, block, splits[block], folder_of_runs) for settings, seed, block in wanted
        ]
        for run in as_completed(runs):
            _append(Path(folder) / f"{topic}.jsonl", run.result())
            yield run.result()


def find_trials(topic, folder=OWN):
    """All trials of a topic: those that are published, then those in the reader's own folder; each once.

    Raises: ValueError if a topic cannot name a file, or a file holds anything but trials.
    """
    check("search:", {"topic": topic}, {"topic": word()})
    published, own = (load_trials(Path(place) / f"{topic}.jsonl") for place in (SEARCH, folder))
    newest = {trial.key: trial for trial in own}  # tried again, where the code had changed
    return list({**{trial.key: trial for trial in published}, **newest}.values())


def trials_that_count(topic, folder=OWN):
    """Those of `find_trials` that are published, or were made by the present code; raises as it does."""
    found, published = find_trials(topic, folder), load_trials(SEARCH / f"{topic}.jsonl")
    return [trial for trial in found if trial in published or _is_of_present_code(trial)]


def _is_of_present_code(trial):
    try:
        recipe = build_recipe(trial.settings)
    except ValueError:
        return False  # earlier code had a setting that is gone
    return trial.code_digest in {digest_or_reason(replace(recipe, compiled=compiled)) for compiled in (True, False)}


def load_trials(path):
    """The trials of a file in the order in which they ended; none if there is no such file yet."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [Trial(**trial) for trial in read_json_lines(path, lines, "trial")]


def read_json_lines(source, lines, kind):
    """What stands on some lines, empty ones skipped; ValueError naming source and line of what is not of a kind."""
    for position, line in enumerate(lines, start=1):
        if line.strip():
            try:
                yield parse_json(line, kind)
            except ValueError as error:
                raise ValueError(f"{source}, line {position} is not a {kind}: {error}") from error


def name_of(settings):
    return json.dumps(settings, sort_keys=True)


def _prepare_worker():
    torch.set_num_threads(1)


def _run(settings, seed, block, data, run_dir):
    recipe = build_recipe(settings)
    rung = hashlib.sha256(f"{name_of(settings)} {block}".encode()).hexdigest()[:12]
    reason = why_not(recipe, data, seed)
    if reason:
        print(f"with torch, not with the compiled trainer: {reason}  {name_of(settings)}", file=sys.stderr, flush=True)
    started = time.perf_counter()
    try:
        if reason is None:
            rows = [(row["test_correct"], row["test_loss"]) for row in _train(recipe, data, seed)]
        else:
            with contextlib.redirect_stdout(io.StringIO()):
                record = fit(recipe, data, rung=rung, seed=seed, device="cpu", run_dir=run_dir).record
            rows = [(row["test_correct"], row["test_loss"]) for row in record.epochs]
        correct, loss = [count for count, _ in rows], [round(loss, 5) for _, loss in rows]
    except TrainingDiverged:
        correct = loss = None
    seconds = round(time.perf_counter() - started, 1)
    digest = digest_or_reason(replace(recipe, compiled=reason is None))
    return Trial(settings, seed, recipe.parameters, correct, loss, seconds, digest, block)


def _train(recipe, data, seed):
    """The epochs of a compiled run that keeps nothing, not even a checkpoint."""
    train, held_out, test = splits_of(recipe, data)
    with torch.random.fork_rng(devices=[]):
        trainee = begin(recipe, seed, torch.device("cpu"), len(train))
        return [run_epoch(trainee, recipe, train, held_out, test, native.COMPILED) for _ in range(recipe.epochs)]


def _append(path, trial):
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line] if path.exists() else []
    write_atomically(path, "\n".join([*lines, json.dumps(vars(trial)), ""]))
