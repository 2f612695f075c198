"""The compiled trainer as Python sees it, spoken to through ctypes."""

import ctypes

import numpy as np
import torch

from lab.data import MEAN, STD
from lab.native.build import load_library
from lab.native.describe import SIDE, describe, norms
from lab.recipe import average_decay

LANES = 16  # images that one vector holds, see kernels.h


class Compiled:
    """A network of lab/notation.py with its momentum and its average, ready for an epoch.

    Args:
        trainee: a Trainee; what it knows is copied, and `store` copies it back.
        batch_size: a multiple of 16.
    """

    def __init__(self, trainee, batch_size):
        self.trainee, self.library = trainee, load_library()
        units, head = describe(trainee.network)
        arrays = self._arrays()
        sizes = [ctypes.c_int64(len(arrays[position])) for position in (0, 2)]
        address = self.library.create(_at(units), len(units), ctypes.c_int64(head), batch_size, *sizes)
        self.handle = ctypes.c_void_p(address)
        self._copy(arrays, to_trainer=True)

    def __del__(self):
        if hasattr(self, "handle"):
            self.library.destroy(self.handle)

    def train(self, split, order, distortions, rates, recipe):
        """Train one epoch.

        Args:
            order: int64 (N,), which images, in batches of the size given.
            distortions: float32 (N, 5): degrees, shift along x and y in pixels, scale, shear in degrees.
            rates: float32, one a batch.
            recipe: optimiser and average come from here, and how images are resampled.

        Returns: (correct answers, loss in nats), as training saw the images.
        """
        correct = ctypes.c_int64()
        bilinear = recipe.augmentation[0].interpolation == "bilinear"
        order, distortions, takes = order.numpy(), distortions.numpy(), self._takes(len(rates), recipe.average)
        images, labels = split.images.contiguous(), split.labels.contiguous()
        arrays = _at(order), ctypes.c_int64(len(order)), _at(distortions), int(bilinear), _at(rates), _at(takes)
        knobs = ctypes.c_float(recipe.momentum), ctypes.c_float(recipe.weight_decay), int(recipe.optimizer == "Muon")
        loss = self.library.train(self.handle, _data(images, labels), *arrays, *knobs, ctypes.byref(correct))
        return correct.value, loss / len(order)

    def evaluate(self, split):
        """Measure the averaged network, or the network itself if no average is kept; (correct answers, loss)."""
        correct = ctypes.c_int64()
        count = ctypes.c_int64(len(split))
        images, labels = split.images.contiguous(), split.labels.contiguous()
        loss = self.library.evaluate(self.handle, _data(images, labels), count, ctypes.byref(correct))
        return correct.value, loss / len(split)

    def gradient(self):
        """Gradient of the last batch, float32, weight by weight in torch's order."""
        gradient = np.empty_like(self._arrays()[0])
        self.library.copy_gradient(self.handle, _at(gradient))
        return gradient

    def store(self, batches):
        """Copy everything back into the trainee, which has come so many batches further."""
        arrays = self._arrays()
        self._copy(arrays, to_trainer=False)
        weights, velocity, statistics, average_weights, average_statistics = arrays
        network, average, optimizer = self.trainee.network, self.trainee.average, self.trainee.optimizer
        _fill(network.parameters(), weights)
        _fill(_statistics(network), statistics)
        for parameter in network.parameters():
            optimizer.state[parameter].setdefault("momentum_buffer", torch.zeros_like(parameter))
        _fill([optimizer.state[parameter]["momentum_buffer"] for parameter in network.parameters()], velocity)
        if average:
            _fill(average.module.parameters(), average_weights)
            _fill(_statistics(average.module), average_statistics)
            average.n_averaged += batches
        for norm in norms(network) + (norms(average.module) if average else []):
            norm.num_batches_tracked += batches

    def _takes(self, batches, decay):
        """How much of the new weights the average takes in after each batch; all of it where none is kept."""
        before = int(self.trainee.average.n_averaged) if decay else 0
        takes = [1 - average_decay(decay, count) if count else 1 for count in range(before, before + batches)]
        return np.array(takes, dtype=np.float32)

    def _arrays(self):
        network, state = self.trainee.network, self.trainee.optimizer.state
        outcome = self.trainee.outcome
        velocity = [state[p].get("momentum_buffer", torch.zeros_like(p)) for p in network.parameters()]
        own = network.parameters(), velocity, _statistics(network)
        return [_flat(tensors) for tensors in (*own, outcome.parameters(), _statistics(outcome))]

    def _copy(self, arrays, *, to_trainer):
        places = (ctypes.c_void_p * len(arrays))(*(array.ctypes.data for array in arrays))
        self.library.copy_state(self.handle, places, int(to_trainer))


def draw(trainee, recipe, order):
    """Distortions of the images of an epoch, float32 (N, 5): the numbers that training with torch would draw."""
    (transform,) = recipe.augmentation
    drawn = []
    for batch in order.split(recipe.batch_size):
        with trainee.augmentation:
            degrees, shift, scale, shear = transform.draw(len(batch), SIDE)
        drawn.append(torch.cat([degrees[:, None], shift, scale[:, None], shear[:, None]], dim=1))
    return torch.cat(drawn)


class _Data(ctypes.Structure):
    _fields_ = [
        ("images", ctypes.c_void_p),
        ("labels", ctypes.c_void_p),
        ("black", ctypes.c_float),
        ("white", ctypes.c_float),
    ]


def _data(images, labels):
    """Where images and labels lie, one after the other; both have to outlive what reads them."""
    return _Data(images.data_ptr(), labels.data_ptr(), -MEAN / STD, (1 - MEAN) / STD)


def _at(array):
    return array.ctypes.data_as(ctypes.c_void_p)


def _statistics(network):
    return [buffer for norm in norms(network) for buffer in (norm.running_mean, norm.running_var)]


def _flat(tensors):
    return np.concatenate([tensor.detach().numpy().ravel() for tensor in tensors]).astype(np.float32)


def _fill(tensors, values):
    values = torch.from_numpy(values)
    with torch.no_grad():
        for tensor in tensors:
            part, values = values[: tensor.numel()], values[tensor.numel() :]
            tensor.copy_(part.view(tensor.shape))
