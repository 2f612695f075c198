"""Kept weights: what is saved comes back, and what is committed reproduces its record."""

import json
import struct

import pytest
import torch

import model
import utils
from lab.ladders import weights
from lab.ladders.weights import WEIGHTS, load_weights, read_about, save_weights
from lab.run.schema import DamagedFile
from lab.training.data import mnist_folder
from lab.training.loop import evaluate, prepare

KEPT = sorted(path.stem for path in WEIGHTS.glob("*.safetensors"))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    recipe = utils.Recipe(network=model.NormedSkeleton, epochs=1, batch_size=64, average=0.9)
    digits = utils.load_digits("sample", train_limit=512)
    return utils.fit(recipe, digits, rung="a03", run_dir=str(tmp_path_factory.mktemp("runs")), device="cpu")


@pytest.fixture
def path(run, tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "load_records", lambda rung: [run.record])
    return save_weights(run, tmp_path)


def test_weights_come_back_to_the_bit(run, path):
    images = prepare(run.digits.test.images[:50], ())
    network = load_weights("a03", path.parent)
    assert not network.training
    with torch.no_grad():
        assert torch.equal(network(images), run.network(images))


def test_the_file_says_what_it_holds_to_any_reader(run, path):
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])  # the format: length of the header, header in JSON, numbers
    about = json.loads(content[8 : 8 + length])["__metadata__"]
    assert about["rung"] == "a03"
    assert about["test_correct"] == str(run.record.epochs[-1]["test_correct"])
    assert len(content) - length < 30_000


def test_a_run_that_is_not_published_is_refused(run, tmp_path):
    with pytest.raises(ValueError, match="a03, seed 0: this run is not the one in results/a03.json"):
        save_weights(run, tmp_path)


@pytest.mark.parametrize("damage", [lambda old: old[:-9], lambda old: b"", lambda old: b"PK\x03\x04" + old])
def test_damaged_weights_are_named(path, damage):
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DamagedFile, match="a03.safetensors does not hold the weights of a03"):
        load_weights("a03", path.parent)


def test_weights_of_another_network_are_named(path):
    path.rename(path.with_stem("a05"))
    with pytest.raises(DamagedFile, match="does not hold the weights of a05: Error.* loading state_dict"):
        load_weights("a05", path.parent)


def test_missing_weights_are_told(path):
    with pytest.raises(
        FileNotFoundError, match="weights are kept of a03. To make it: make run RUNGS=a05 .* weights a05"
    ):
        load_weights("a05", path.parent)


@pytest.mark.parametrize("rung", KEPT)
def test_kept_weights_say_what_they_get_wrong(rung):
    about = read_about(WEIGHTS / f"{rung}.safetensors")
    record = next(record for record in utils.load_records(rung) if record.seed == weights.SEED)
    assert 10_000 - len(about["mistakes"]) == int(about["test_correct"]) == record.epochs[-1]["test_correct"]
    assert record.errors in (None, [index for index, _, _ in about["mistakes"]])
    assert all(label != answer for _, label, answer in about["mistakes"])


@pytest.mark.skipif(not mnist_folder(), reason="the full MNIST is not here")
@pytest.mark.parametrize("rung", KEPT)
def test_kept_weights_reproduce_their_record(rung):
    found = next(found for found in weights.find_rungs([rung]))
    stats = evaluate(load_weights(rung), utils.load_digits("mnist").test, found.recipe)
    record = next(record for record in utils.load_records(rung) if record.seed == weights.SEED)
    assert stats.correct == record.epochs[-1]["test_correct"]
