"""A second trainer for the search, compiled: the same recipes and random numbers, several times faster on a CPU core.

`lab.training` is what results are made with. Small networks leave torch little to do per call, and half of a step is
overhead; this trainer, in C++ beside this file, has none. With the same seed both start from the same weights and see
the same images in the same order, distorted in the same way; they add up in another order, so their numbers agree as
those of two devices do. Tests compare gradients, steps and averages with torch.
"""

import ctypes
import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import nn

from lab.augment import RandomAffine
from lab.data import MEAN, STD
from lab.notation import Notation
from lab.recipe import PER_BATCH, OneCycleLR
from lab.training import TrainingDiverged, begin

FOLDER = Path(__file__).parent
FLAGS = ["-O3", "-march=native", "-ffast-math", "-fno-finite-math-only", "-std=c++17", "-shared", "-fPIC"]
SIDE = 28
LANES = 16  # images that one vector holds, see kernels.h
FULL, SEPARABLE, POINTWISE = range(3)  # and what follows: see network.h
NONE, MAX, AVERAGE, GLOBAL = range(4)


def why_not(recipe, data):
    """What keeps this trainer from a recipe on some data, in words; None if nothing does."""
    transform = recipe.augmentation[0] if recipe.augmentation else None
    limits = {
        "there is no C++ compiler": shutil.which(_compiler()) is None,
        "it is no network of lab/notation.py": recipe.network is not Notation,
        "it is not trained by SGD with Nesterov's momentum": recipe.optimizer != "SGD" or not recipe.nesterov,
        "its rate does not change with every batch": not isinstance(recipe.schedule, PER_BATCH),
        "its momentum is cycled": isinstance(recipe.schedule, OneCycleLR),
        "it is distorted by something else than one RandomAffine, with black corners": len(recipe.augmentation) != 1
        or not isinstance(transform, RandomAffine)
        or transform.fill,
        "images do not come in sixteens": any(
            count % LANES for count in (recipe.batch_size, len(data.train), len(data.test))
        ),
        "it is not plain float32 cross-entropy": recipe.loss != "cross_entropy" or recipe.precision != "float32",
        "it holds out images of its own": recipe.held_out,
    }
    found = next((reason for reason, holds in limits.items() if holds), None)
    return found or _unknown_layer(recipe.specimen())


def train(recipe, data, seed):
    """Train one network as `lab.fitting.fit` would.

    Args:
        recipe, data: such that `why_not` has no objection.

    Returns: list of (correct answers, loss in nats) on the test images, an epoch each, of the averaged network if the
        recipe keeps an average. Raises: TrainingDiverged.
    """
    with torch.random.fork_rng(devices=[]):
        trainee = begin(recipe, seed, torch.device("cpu"), len(data.train))
        trainer = Trainer(trainee.network, recipe.batch_size)
        rows = []
        for _ in range(recipe.epochs):
            order = torch.randperm(len(data.train))
            loss, _ = trainer.train(
                data.train, order, _draw(trainee, recipe, order), _rates(trainee, recipe, order), recipe
            )
            row = trainer.evaluate(data.test)
            if not np.isfinite([loss, row[1]]).all():
                raise TrainingDiverged(f"the loss became {loss} in epoch {len(rows) + 1}")
            rows.append(row)
    return rows


@functools.cache
def source_digest():
    """Digest of this trainer: it changes when a number that it finds could."""
    content = b"".join(path.read_bytes() for path in sorted(FOLDER.iterdir()) if path.suffix in (".py", ".h", ".cpp"))
    return hashlib.sha256(content).hexdigest()


def _draw(trainee, recipe, order):
    """Distortions of an epoch, float32 (N, 5): the numbers that training with torch would draw."""
    (transform,) = recipe.augmentation
    drawn = []
    for batch in order.split(recipe.batch_size):
        with trainee.augmentation:
            degrees, shift, scale, shear = transform.draw(len(batch), SIDE)
        drawn.append(torch.cat([degrees[:, None], shift, scale[:, None], shear[:, None]], dim=1))
    return torch.cat(drawn)


def _rates(trainee, recipe, order):
    """Learning rates of an epoch's batches, by the schedule itself."""
    rates = []
    for _ in order.split(recipe.batch_size):
        rates.append(trainee.optimizer.param_groups[0]["lr"])
        trainee.optimizer.step()  # without gradients it does nothing, but the schedule wants to see it
        trainee.schedule.step()
    return np.array(rates, dtype=np.float32)


class Trainer:
    """The compiled network with its optimiser and average.

    Args:
        network: of lab/notation.py; its weights are copied.
        batch_size: a multiple of 16.
    """

    def __init__(self, network, batch_size):
        self.library = _library()
        self.weights = _flat(network.parameters())
        norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
        self.statistics = _flat(buffer for norm in norms for buffer in (norm.running_mean, norm.running_var))
        units, head = _describe(network)
        sizes = [ctypes.c_int64(len(values)) for values in (self.weights, self.statistics)]
        address = self.library.create(
            _at(units),
            len(units),
            ctypes.c_int64(head),
            batch_size,
            _at(self.weights),
            sizes[0],
            _at(self.statistics),
            sizes[1],
        )
        self.handle = ctypes.c_void_p(address)

    def __del__(self):
        if hasattr(self, "handle"):
            self.library.destroy(self.handle)

    def train(self, split, order, distortions, rates, recipe):
        """Train one epoch; returns (loss in nats, correct answers).

        Args:
            order: int64 (N,), which images, in batches of the size given.
            distortions: float32 (N, 5): degrees, shift along x and y in pixels, scale, shear in degrees.
            rates: float32, one a batch.
            recipe: momentum, weight decay and average come from here, and how images are resampled.
        """
        correct, distortions = ctypes.c_int64(), distortions.numpy()
        bilinear = recipe.augmentation[0].interpolation == "bilinear"
        knobs = [ctypes.c_float(value) for value in (recipe.momentum, recipe.weight_decay, recipe.average)]
        arrays = _at(order.numpy()), ctypes.c_int64(len(order)), _at(distortions), int(bilinear), _at(rates)
        loss = self.library.train(self.handle, _data(split), *arrays, *knobs, ctypes.byref(correct))
        return loss / len(order), correct.value

    def evaluate(self, split):
        """Measure the averaged network; returns (correct answers, loss in nats)."""
        correct = ctypes.c_int64()
        loss = self.library.evaluate(self.handle, _data(split), ctypes.c_int64(len(split)), ctypes.byref(correct))
        return correct.value, loss / len(split)

    def read(self):
        """Gradient of the last batch, weights and statistics of the averaged network, in torch's order."""
        gradient, weights, statistics = (np.empty_like(a) for a in (self.weights, self.weights, self.statistics))
        self.library.read(self.handle, _at(gradient), _at(weights), _at(statistics))
        return gradient, weights, statistics


class _Data(ctypes.Structure):
    _fields_ = [
        ("images", ctypes.c_void_p),
        ("labels", ctypes.c_void_p),
        ("black", ctypes.c_float),
        ("white", ctypes.c_float),
    ]


def _data(split):
    black, white = (-MEAN / STD, (1 - MEAN) / STD)
    return _Data(split.images.contiguous().data_ptr(), split.labels.contiguous().data_ptr(), black, white)


def _at(array):
    return array.ctypes.data_as(ctypes.c_void_p)


def _flat(tensors):
    return np.concatenate([tensor.detach().numpy().ravel() for tensor in tensors]).astype(np.float32)


def _compiler():
    return os.environ.get("CXX", "g++")


@functools.cache
def _library():
    """Compile for this very processor, once a process: five seconds, and nothing old can be found."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "trainer.so"
        done = subprocess.run(
            [_compiler(), *FLAGS, FOLDER / "trainer.cpp", "-o", target], capture_output=True, text=True
        )
        if done.returncode:
            raise RuntimeError(f"{_compiler()} could not compile {FOLDER / 'trainer.cpp'}: {done.stderr[:2000]}")
        library = ctypes.CDLL(str(target))
    library.create.restype = ctypes.c_void_p
    library.train.restype = library.evaluate.restype = ctypes.c_double
    return library


def _unknown_layer(network):
    try:
        _describe(network)
    except NotImplementedError as error:
        return str(error)
    return None


def _describe(network):
    """Units as int64 (units, 10), see `Description` in network.h, and the offset of the last matrix."""
    offsets, weights = {}, 0
    for parameter in network.parameters():
        offsets[id(parameter)] = weights
        weights += parameter.numel()
    units, statistics, head = [], 0, 0
    for layer in network:
        if isinstance(layer, nn.MaxPool2d | nn.AvgPool2d | nn.AdaptiveAvgPool2d):
            if not units or units[-1]["post"] != NONE:
                raise NotImplementedError("a pooling does not follow a convolution")
            units[-1]["post"] = {nn.MaxPool2d: MAX, nn.AvgPool2d: AVERAGE, nn.AdaptiveAvgPool2d: GLOBAL}[type(layer)]
        elif isinstance(layer, nn.Conv2d):
            head = offsets[id(layer.weight)]
        elif not isinstance(layer, nn.Flatten):
            units.append(_describe_unit(layer, offsets) | {"statistics": statistics})
            statistics += 2 * units[-1]["outputs"]
    return np.array([list(unit.values()) for unit in units], dtype=np.int64), head


def _describe_unit(layer, offsets):
    if not isinstance(layer, nn.Sequential) or [type(part) for part in layer][1:] != [nn.BatchNorm2d, nn.ReLU]:
        raise NotImplementedError(f"it has more than convolution, batch normalisation and ReLU in {layer}")
    convolution, norm, _ = layer
    first, last = (convolution[0], convolution[1]) if isinstance(convolution, nn.Sequential) else (convolution,) * 2
    plain = FULL if first.kernel_size == (3, 3) else POINTWISE
    return {
        "kind": plain if first is last else SEPARABLE,
        "inputs": first.in_channels,
        "outputs": last.out_channels,
        "padding": first.padding[0],
        "post": NONE,
        "weight": offsets[id(first.weight)],
        "pointwise": offsets[id(last.weight)],
        "scale": offsets[id(norm.weight)],
        "shift": offsets[id(norm.bias)],
    }
