"""The compiled trainer as Python sees it, called through ctypes."""

import ctypes

import numpy as np
import torch

from lab.native.build import load_library
from lab.native.describe import SIDE, describe, dropped_of, norms
from lab.training.augment import RandomAffine, RandomRotation, distort
from lab.training.averaging import average_decay
from lab.training.data import MEAN, STD
from lab.training.schedules import step_after_batch

LANES = 16  # images that one vector holds, see kernels.h
PACE = np.dtype([("rate", "f4"), ("momentum", "f4"), ("take", "f4"), ("key", "u8")], align=True)  # see trainer.cpp


class Compiled:
    """A network with its momentum and its average, ready for an epoch.

    Args:
        trainee: a Trainee; its state is copied, and `store` copies it back.
        batch_size: a multiple of 16.
    """

    def __init__(self, trainee, batch_size):
        self.trainee, self.library = trainee, load_library()
        self.units, head = describe(trainee.network)
        units = np.array([list(unit.values()) for unit in self.units], dtype=np.int64)
        arrays, head = self._arrays(), np.array(head, dtype=np.int64)
        sizes = [ctypes.c_int64(len(arrays[position])) for position in (0, 2)]
        address = self.library.create(_at(units), len(units), _at(head), batch_size, *sizes)
        self.handle = ctypes.c_void_p(address)
        self._copy(arrays, to_trainer=True)

    def __del__(self):
        if hasattr(self, "handle"):
            self.library.destroy(self.handle)

    def train(self, split, order, drawn, paces, recipe, so_far=(0, 0.0)):
        """Train on some batches, up to the first whose loss is not finite.

        Args:
            order: int64 (N,), which images, in batches of the size given.
            drawn: what `draw` draws for these images.
            paces: what `set_paces` gives for these batches.
            recipe: gives the optimiser and how images are resampled.
            so_far: what was returned for earlier batches.

        Returns: (correct answers, sum of losses in nats), as training saw the images.
        """
        correct, loss = ctypes.c_int64(so_far[0]), ctypes.c_double(so_far[1])
        order, drawn, transform = order.numpy(), drawn.numpy(), known_transform(recipe)
        images, labels = split.images.contiguous(), split.labels.contiguous()
        pixels = None if transform else _at(drawn)
        bilinear, fill = (transform.interpolation == "bilinear", transform.fill) if transform else (False, 0)
        distorted = _Distorted(_at(drawn) if transform else None, pixels, bilinear, fill)
        knobs = recipe.weight_decay, recipe.nesterov, recipe.optimizer == "Muon"
        arrays = _at(order), ctypes.c_int64(len(order)), distorted, _at(paces), _Rules(*knobs)
        self.library.train(self.handle, _data(images, labels), *arrays, ctypes.byref(loss), ctypes.byref(correct))
        return correct.value, loss.value

    def evaluate(self, split):
        """Measure the averaged network, or the network itself if no average is kept; (correct answers, loss)."""
        correct, loss = ctypes.c_int64(), ctypes.c_double()
        count = ctypes.c_int64(len(split))
        images, labels = split.images.contiguous(), split.labels.contiguous()
        self.library.evaluate(self.handle, _data(images, labels), count, ctypes.byref(loss), ctypes.byref(correct))
        return correct.value, loss.value / len(split)

    def gradient(self):
        """Gradient of the last batch, float32, weight by weight in torch's order."""
        gradient = np.empty_like(self._arrays()[0])
        self.library.copy_gradient(self.handle, _at(gradient))
        return gradient

    def masks(self, count):
        """What each dropout multiplied the last batch by, float32 (count, channels, height, width)."""
        masks = []
        for number, unit in enumerate(self.units):
            if unit["dropped"]:
                masks.append(np.empty((count, unit["outputs"], unit["side"], unit["side"]), dtype=np.float32))
                self.library.copy_mask(self.handle, number, count, _at(masks[-1]))
        return [torch.from_numpy(mask) for mask in masks]

    def store(self, batches):
        """Copy everything back into the trainee, which has trained on that many more batches."""
        arrays = self._arrays()
        self._copy(arrays, to_trainer=False)
        weights, velocity, statistics, average_weights, average_statistics = arrays
        network, average, optimizer = self.trainee.network, self.trainee.average, self.trainee.optimizer
        _fill(network.parameters(), weights)
        _fill(_statistics(network), statistics)
        if optimizer.param_groups[0]["momentum"]:  # without it torch.optim.SGD keeps no velocity
            for parameter in network.parameters():
                optimizer.state[parameter].setdefault("momentum_buffer", torch.zeros_like(parameter))
            _fill([optimizer.state[parameter]["momentum_buffer"] for parameter in network.parameters()], velocity)
        if average:
            _fill(average.module.parameters(), average_weights)
            _fill(_statistics(average.module), average_statistics)
            average.n_averaged += batches
        for norm in norms(network) + (norms(average.module) if average else []):
            norm.num_batches_tracked += batches

    def _arrays(self):
        network, state = self.trainee.network, self.trainee.optimizer.state
        outcome = self.trainee.outcome
        velocity = [state.get(p, {}).get("momentum_buffer", torch.zeros_like(p)) for p in network.parameters()]
        own = network.parameters(), velocity, _statistics(network)
        return [_flat(tensors) for tensors in (*own, outcome.parameters(), _statistics(outcome))]

    def _copy(self, arrays, *, to_trainer):
        places = (ctypes.c_void_p * len(arrays))(*(array.ctypes.data for array in arrays))
        self.library.copy_state(self.handle, places, int(to_trainer))


def known_transform(recipe):
    """The only transform of a recipe if the trainer can apply it itself, else None."""
    transform = recipe.augmentation[0] if len(recipe.augmentation) == 1 else None
    known = type(transform) in (RandomAffine, RandomRotation)
    return transform if known and (transform.interpolation == "nearest" or not transform.fill) else None


def draw(trainee, recipe, split, order):
    """The random numbers that training with torch would draw for some batches, and what they decide.

    Returns: float32 (N, 5) where the trainer distorts: degrees, shift along x and y in pixels, scale, shear in degrees;
        else the images, float32 (N, 1, 28, 28), as torch has distorted them.
    """
    transform, drawn = known_transform(recipe), []
    for batch in order.split(recipe.batch_size):
        with trainee.augmentation:
            if transform is None:
                drawn.append(distort(split.images[batch], recipe.augmentation))
            elif type(transform) is RandomRotation:  # counter-clockwise, see lab.training.augment.rotate
                degrees = torch.empty(len(batch), 1).uniform_(-transform.degrees, transform.degrees)
                drawn.append(torch.cat([-degrees, torch.tensor([0.0, 0, 1, 0]).expand(len(batch), -1)], dim=1))
            else:
                degrees, shift, scale, shear = transform.draw(len(batch), SIDE)
                drawn.append(torch.cat([degrees[:, None], shift, scale[:, None], shear[:, None]], dim=1))
    return torch.cat(drawn).contiguous()


def set_paces(trainee, recipe, batches):
    """How an epoch's batches are trained on, as PACE; the schedule advances as far as it would with torch.

    Rates and momenta are the schedule's own. `take` is the share of the new weights that enters the average after each
    batch, 1 where none is kept. Dropout, if there is any, draws from keys made of torch's random numbers.
    """
    (group, *_), paces = trainee.optimizer.param_groups, np.zeros(batches, dtype=PACE)
    before = int(trainee.average.n_averaged) if recipe.average else 0
    for count, pace in enumerate(paces, start=before):
        pace["rate"], pace["momentum"] = group["lr"], group["momentum"]
        pace["take"] = 1 - average_decay(recipe.average, count) if recipe.average and count else 1
        trainee.optimizer.step()  # without gradients it does nothing, but the schedule expects it
        step_after_batch(recipe, trainee.schedule)
    if any(map(dropped_of, trainee.network.modules())):
        paces["key"] = torch.randint(2**63 - 1, (batches,)).numpy()
    return paces


class _Data(ctypes.Structure):
    _fields_ = [
        ("images", ctypes.c_void_p),
        ("labels", ctypes.c_void_p),
        ("black", ctypes.c_float),
        ("white", ctypes.c_float),
    ]


class _Distorted(ctypes.Structure):
    _fields_ = [
        ("distortions", ctypes.c_void_p),
        ("pixels", ctypes.c_void_p),
        ("bilinear", ctypes.c_int),
        ("fill", ctypes.c_float),
    ]


class _Rules(ctypes.Structure):
    _fields_ = [
        ("decay", ctypes.c_float),
        ("nesterov", ctypes.c_int),
        ("muon", ctypes.c_int),
    ]


def _data(images, labels):
    """Where images and labels lie in memory; both have to outlive what reads them."""
    return _Data(images.data_ptr(), labels.data_ptr(), -MEAN / STD, (1 - MEAN) / STD)


def _at(array):
    return array.ctypes.data_as(ctypes.c_void_p)


def _statistics(network):
    return [buffer for norm in norms(network) for buffer in (norm.running_mean, norm.running_var)]


def _flat(tensors):
    arrays = [tensor.detach().numpy().ravel() for tensor in tensors]
    return np.concatenate([np.empty(0), *arrays]).astype(np.float32)  # a network may have no statistics at all


def _fill(tensors, values):
    values = torch.from_numpy(values)
    with torch.no_grad():
        for tensor in tensors:
            part, values = values[: tensor.numel()], values[tensor.numel() :]
            tensor.copy_(part.view(tensor.shape))
