"""Statistics of runs against numpy, what may be published, and whether the published is of the present code."""

import json
import os
from dataclasses import asdict, replace
from fractions import Fraction

import numpy as np
import pytest

from lab.files import write_atomically
from lab.ladders.measures import Summary
from lab.ladders.rungs import find_rungs
from lab.run.code import recipe_digest
from lab.run.record import RunRecord
from lab.run.results import RESULTS, RefusedRecord, load_records, merge_records, why_refused
from lab.run.schema import DamagedFile
from lab.training.data import MNIST_DIGEST

RUNG, DIGEST = "a05", "d1f3"
RECIPE = {"network": "PooledHead", "held_out": 0, "epochs": 7}
HELD, ONE_SHORT = [9800, 9900, 9940, 9950, 9945, 9960, 9940], [9800, 9900, 9990, 9990, 9939, 9990, 9990]


def make_record(seed=0, test_correct=HELD, **changes):
    """A finished record of made-up counts."""
    rows = [
        {
            "epoch": epoch,
            "learning_rate": 0.1,
            "train_correct": 58_000 + epoch,
            "train_total": 60_000,
            "train_loss": 0.1 / epoch,
        }
        | {"test_correct": correct, "test_total": 10_000, "test_loss": 0.03}
        | {"train_seconds": 10.0 / epoch, "test_seconds": 0.5}
        for epoch, correct in enumerate(test_correct, start=1)
    ]
    identity = {"rung": RUNG, "seed": seed, "dataset": "mnist", "dataset_sha256": MNIST_DIGEST, "parameters": 6124}
    making = {"recipe": RECIPE, "code_digest": DIGEST, "device": "cpu", "threads": 1, "versions": {"torch": "2"}}
    counts = {"train_total": 60_000, "clean_train_correct": 59_400, "clean_train_total": 60_000}
    return RunRecord(**identity | making | counts | {"epochs": rows} | changes)


def save(record, run_dir, name=None):
    write_atomically(run_dir / RUNG / (name or f"seed{record.seed}.json"), record.to_json())


@pytest.fixture
def merge(tmp_path):
    """Merge the records under tmp_path into tmp_path/results."""
    return lambda digest=DIGEST: merge_records(RUNG, RECIPE, digest, tmp_path, tmp_path / "results")[0]


def test_statistics_of_one_run():
    record, accuracies = make_record(), np.array(HELD) / 10_000
    np.testing.assert_allclose([*map(float, record.test_accuracies)], accuracies)
    assert float(record.last5) == pytest.approx(accuracies[-5:].mean(), abs=1e-15)
    assert (record.best, record.final) == (Fraction("0.996"), Fraction("0.994"))
    assert record.clean_train == Fraction("0.99")
    assert record.train_seconds == np.median(10.0 / np.arange(1, 8))
    assert record.steady
    assert not make_record(test_correct=ONE_SHORT).steady
    assert make_record(test_correct=[9950, 9950]).last5 == Fraction("0.995")


def test_statistics_over_seeds():
    counts = np.random.default_rng(0).integers(9_900, 9_960, (6, 12))
    clean = [59_000, 59_100, 59_900, 60_000, 58_000, 59_500]
    records = [
        make_record(seed, row.tolist(), clean_train_correct=correct)
        for seed, (row, correct) in enumerate(zip(counts, clean, strict=True))
    ]
    summary, accuracies = Summary.of(records), counts / 10_000
    last5 = accuracies[:, -5:].mean(axis=1)
    assert (summary.rung, summary.n) == (RUNG, 6)
    found = [summary.mean, summary.std, summary.worst, summary.best_epoch, summary.final, summary.clean_train]
    expected = [last5.mean(), last5.std(ddof=1), last5.min(), accuracies.max(), accuracies[:, -1].mean()]
    np.testing.assert_allclose([*map(float, found)], [*expected, np.mean(clean) / 60_000], rtol=1e-12)
    at_the_end, last = Summary.of(records, at_the_end=True), accuracies[:, -1]
    found = [at_the_end.mean, at_the_end.std, at_the_end.worst, *at_the_end.headlines, at_the_end.last5]
    np.testing.assert_allclose(
        [*map(float, found)], [last.mean(), last.std(ddof=1), last.min(), *last, last5.mean()], rtol=1e-12
    )


def test_one_seed_has_no_spread():
    summary = Summary.of([make_record()])
    assert (summary.n, summary.std, summary.mean) == (1, None, summary.worst)


@pytest.mark.parametrize(
    ("seeds", "consistent"),
    [
        ([HELD] * 5, True),
        ([HELD] * 4 + [ONE_SHORT], True),
        ([HELD] * 3 + [ONE_SHORT] * 2, False),
        ([HELD] * 4 + [[9800] * 7], False),  # enough seeds hold, the mean does not
        ([[9940] * 7], True),  # 60 errors are 99.40 %
        ([[9939] * 7], False),
    ],
)
def test_consistent(seeds, consistent):
    assert Summary.of([make_record(seed, counts) for seed, counts in enumerate(seeds)]).consistent is consistent


def test_record_survives_json(tmp_path):
    record, path = make_record(), tmp_path / "seed0.json"
    path.write_text(record.to_json())
    assert RunRecord.read(path) == record
    assert json.loads(record.to_json()) | {"errors": None} == asdict(record)
    assert len(record.to_json().splitlines()) > len(HELD)  # a line per epoch at least
    unfinished = make_record(test_correct=[], clean_train_correct=None, clean_train_total=None)
    path.write_text(unfinished.to_json())
    assert RunRecord.read(path) == unfinished


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ('"seed": 0', '"seed": "0"', "seed must be integer"),
        ('"test_correct": 9945', '"test_correct": -1', r"epochs\[4\].test_correct must be bigger"),
        ('"train_loss": 0.05', '"train_loss": NaN', "NaN is not a number that a finished epoch can have"),
        ('"parameters": 6124,', "", "must contain .*'parameters'"),
        ('"device"', '"os.system": "rm", "device"', "must not contain .*'os.system'"),
        ('"epochs": [', '"epochs": ', "Expecting|delimiter"),
        ("}]}\n", "", "delimiter"),
        ('"rung"', "\udcff", "codec can't decode byte 0xff"),
    ],
)
def test_damaged_files_are_named_with_the_field(tmp_path, old, new, named):
    text = make_record().to_json()
    assert text.count(old) == 1
    path = tmp_path / f"{RUNG}.json"
    path.write_text(text.replace(old, new), errors="surrogateescape")
    with pytest.raises(DamagedFile, match=f"{path} is not a run record: .*({named}).*Restore"):
        RunRecord.read(path)
    content = f'{{"rung": "{RUNG}", "recipe": {{}}, "runs": [{text.replace(old, new)}]}}'
    path.write_text(content, errors="surrogateescape")
    with pytest.raises(DamagedFile, match=f"{path} is not a file of results: .*({named}).*Restore"):
        load_records(RUNG, tmp_path)


def test_key_names_the_run_and_not_its_outcome():
    assert make_record().key() == make_record(test_correct=ONE_SHORT, clean_train_correct=1).key()
    others = [make_record(seed=1), make_record(code_digest="x"), make_record(threads=2), make_record(dataset="x")]
    assert len({record.key() for record in [make_record(), *others]}) == 5


def test_merge_orders_seeds_and_replaces_one(merge, tmp_path):
    for seed in (10, 2, 0):
        save(make_record(seed), tmp_path)
    assert [record.seed for record in merge()] == [0, 2, 10]
    for path in (tmp_path / RUNG).iterdir():
        path.unlink()
    save(make_record(2, ONE_SHORT), tmp_path)
    merged = merge()
    assert merged == [make_record(0), make_record(2, ONE_SHORT), make_record(10)]
    assert load_records(RUNG, tmp_path / "results") == merged


def test_merged_file(merge, tmp_path):
    save(make_record(), tmp_path)
    save(make_record(1), tmp_path)
    merge()
    content = json.loads((tmp_path / "results" / f"{RUNG}.json").read_text())
    runs = [json.loads(make_record(seed).to_json()) for seed in (0, 1)]
    assert content == {"rung": RUNG, "recipe": RECIPE, "runs": runs}


def test_what_older_code_has_left_is_named_and_left_out(merge, tmp_path):
    for seed in (0, 1):
        save(make_record(seed), tmp_path)
    merge()
    (tmp_path / RUNG / "seed0.json").unlink()
    save(make_record(1, code_digest="new"), tmp_path)
    records, left_out = merge_records(RUNG, RECIPE, "new", tmp_path, tmp_path / "results")
    assert [record.seed for record in records] == [1]
    assert left_out == {0: "the code that decides its numbers has changed since"}


def test_errors_are_kept_in_a_file_of_their_own(merge, tmp_path):
    """Sixty images are wrong after the last epoch; runs of earlier code did not say which."""
    errors = [*range(0, 600, 10)]
    save(make_record(0, errors=errors), tmp_path)
    save(make_record(1), tmp_path)
    assert [record.errors for record in merge()] == [errors, None]
    assert "errors" not in (tmp_path / "results" / f"{RUNG}.json").read_text()
    assert json.loads((tmp_path / "results" / "errors" / f"{RUNG}.json").read_text()) == {"0": errors}
    assert [record.errors for record in load_records(RUNG, tmp_path / "results")] == [errors, None]
    assert [record.errors for record in merge()] == [errors, None]


def test_nothing_to_merge(merge, tmp_path):
    assert merge() == []
    assert not (tmp_path / "results").exists()
    with pytest.raises(FileNotFoundError, match=f"no folder {tmp_path}/nowhere with run records"):
        merge_records(RUNG, RECIPE, DIGEST, tmp_path / "nowhere", tmp_path / "results")


@pytest.mark.parametrize(
    ("records", "reason"),
    [
        ([make_record(0), make_record(0)], "seed 0: it is there twice"),
        ([make_record(0), make_record(1, rung="a06")], "seed 1: it is of rung a06, not a05"),
        ([make_record(dataset="sample")], "seed 0: it was made on sample, not on mnist"),
        ([make_record(dataset_sha256="0" * 64)], "seed 0: its data were not those of MNIST"),
        ([make_record(test_correct=HELD[:5])], "seed 0: its epochs are not those of its recipe"),
        ([make_record(test_correct=[20_000] * len(HELD))], "seed 0: its counts are impossible"),
        ([make_record(clean_train_correct=None)], "seed 0: it has not finished"),
    ],
)
def test_results_that_cannot_be_are_not_read(tmp_path, records, reason):
    """Whoever reads results gets this: the README's figures cannot come from a file that was changed by hand."""
    runs = ",".join(record.to_json() for record in records)
    (tmp_path / f"{RUNG}.json").write_text(f'{{"rung": "{RUNG}", "recipe": {{}}, "runs": [{runs}]}}')
    with pytest.raises(DamagedFile, match=f"{RUNG}.json, {reason}. Restore"):
        load_records(RUNG, tmp_path)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"dataset": "sample"}, "made on sample, not on mnist"),
        ({"train_total": 4_000}, "trained on 4,000 images, not on 60,000"),
        ({"recipe": RECIPE | {"network": "TwoLayerHead"}}, "recipe is not the one in the notebook"),
        ({"code_digest": "0ld"}, "code that decides its numbers has changed"),
        ({"clean_train_correct": None}, "has not finished"),
        ({"rung": "a04"}, "of rung a04, not a05"),
        ({"epochs": make_record().epochs[:-1]}, "epochs are not those of its recipe"),
        ({"epochs": make_record(test_correct=[10_001] * len(HELD)).epochs}, "counts are impossible"),
        ({"clean_train_correct": 60_001}, "counts are impossible"),
        ({"errors": [0, 1, 2]}, "errors are not those that its last epoch counts"),
        ({"errors": [7] * 60}, "errors are not those that its last epoch counts"),
        ({"clean_train_total": 59_999}, "counts are impossible"),
        ({"dataset_sha256": "0" * 64}, "data were not those of MNIST"),
        ({"seed": 4}, "says that its seed is 4"),
    ],
)
def test_merge_refuses(merge, tmp_path, changes, reason):
    save(make_record(0), tmp_path)
    merge()
    before = (tmp_path / "results" / f"{RUNG}.json").read_bytes()
    save(replace(make_record(3), **changes), tmp_path, "seed3.json")
    with pytest.raises(RefusedRecord, match=f"seed3.json cannot be published: .*{reason}"):
        merge()
    assert (tmp_path / "results" / f"{RUNG}.json").read_bytes() == before


@pytest.mark.parametrize(("held_out", "kept"), [(10_000, 50_000), (0.1, 54_000)])
def test_held_out_images_are_not_counted_as_missing(held_out, kept):
    recipe = RECIPE | {"held_out": held_out}
    record = make_record(recipe=recipe)
    assert f"not on {kept:,}" in why_refused(record, RUNG, recipe, DIGEST)
    rows = [row | {"train_total": kept, "train_correct": kept - 9} for row in record.epochs]
    counts = {"train_total": kept, "clean_train_total": kept, "clean_train_correct": kept - 9}
    assert why_refused(replace(record, epochs=rows, **counts), RUNG, recipe, DIGEST) is None


def test_write_atomically(tmp_path):
    path = tmp_path / "new" / "file"
    write_atomically(path, "Größe")
    write_atomically(path, b"bytes")
    assert path.read_bytes() == b"bytes"
    assert path.stat().st_mode & 0o777 == 0o644
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_failed_write_keeps_the_old_content(tmp_path, monkeypatch, failing):
    def fail(*_):
        raise OSError(28, "No space left on device")

    path = tmp_path / "record.json"
    write_atomically(path, "old")
    monkeypatch.setattr(os, failing, fail)
    with pytest.raises(OSError, match=r"3 bytes to .*record.json: No space left.*run_dir") as caught:
        write_atomically(path, "new")
    assert caught.value.errno == 28
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


# ---------------------------------------------------------------------------- the published results


RECIPES = {name: recipe for rung in find_rungs() for name, recipe in rung.recipes.items()}


@pytest.mark.parametrize("name", RECIPES)
def test_published_records_are_of_the_present_code(name):
    recipe, records = RECIPES[name], load_records(name)
    network = recipe.build_network()
    for record in records:
        reason = why_refused(record, name, recipe.as_dict(), recipe_digest(recipe))
        assert reason is None, f"results/{name}.json, seed {record.seed}: {reason}. Run {name[:3]} again"
        assert record.parameters == sum(weight.numel() for weight in network.parameters())
        assert (record.clean_train_total, record.threads) == (record.train_total, 1)
        assert [row["epoch"] for row in record.epochs] == [*range(1, recipe.epochs + 1)]
        assert {row["test_total"] for row in record.epochs} == {10_000}
    assert [record.seed for record in records] == sorted({record.seed for record in records})
    assert len({record.dataset_sha256 for record in records}) <= 1


@pytest.mark.parametrize("path", sorted((RESULTS / "torch").glob("*.json")), ids=lambda path: path.stem)
def test_runs_of_torch_are_those_of_the_same_recipe(path):
    recipe = replace(RECIPES[path.stem], compiled=False)
    records = load_records(path.stem, path.parent)
    assert RECIPES[path.stem].compiled
    assert records
    for record in records:
        assert why_refused(record, path.stem, recipe.as_dict(), recipe_digest(recipe)) is None, path.name


@pytest.mark.parametrize("path", sorted((RESULTS / "errors").glob("*.json")), ids=lambda path: path.stem)
def test_the_images_that_a_run_gets_wrong_are_as_many_as_it_counted(path):
    records = load_records(path.stem)
    assert [*json.loads(path.read_text())] == [str(record.seed) for record in records]
    for record in records:
        assert record.errors == sorted({*record.errors} & {*range(10_000)})
        assert len(record.errors) == 10_000 - record.epochs[-1]["test_correct"]


def test_every_results_file_belongs_to_a_rung():
    names = {path.stem for path in RESULTS.glob("*.json")} - {"originals", "same_bits", "bench", "seconds", "readings"}
    assert names <= set(RECIPES)
    for name in names:
        content = json.loads((RESULTS / f"{name}.json").read_text())
        assert content["rung"] == name
        assert all(run["recipe"] == content["recipe"] for run in content["runs"])
