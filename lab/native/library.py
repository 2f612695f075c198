"""A network in the compiled trainer, called through ctypes."""

import ctypes

import numpy as np
import torch

from lab.native.batches import known_transforms
from lab.native.describe import describe, norms
from lab.native.seam import COUNT, Data, Distortion, Method, State, load_library, require_steps
from lab.training.data import CLASSES


class Compiled:
    """A network, ready for an epoch.

    Args:
        network: its weights and statistics are copied.
        batch_size: images at a time.
        average: of weights and statistics, a network of the same kind; `network` itself if there is none.
        velocity: of every weight, in torch's order; zero if there is none.
    """

    def __init__(self, network, batch_size, *, average=None, velocity=None):
        self.library, self.batch_size = load_library(), batch_size
        self.units = describe(network)
        outcome = average or network
        self.arrays = {
            "weights": _flat(network.parameters()),
            "velocity": _flat(velocity or map(torch.zeros_like, network.parameters())),
            "average_weights": _flat(outcome.parameters()),
            "gradient": _flat(map(torch.zeros_like, network.parameters())),
            "statistics": _flat(_statistics(network)),
            "average_statistics": _flat(_statistics(outcome)),
        }
        self.state = State(**{name: array.ctypes.data for name, array in self.arrays.items()})
        units = np.array([list(unit.values()) for unit in self.units], dtype=np.int64)
        sizes = len(self.arrays["weights"]), len(self.arrays["statistics"])
        self.handle = self.library.create(units.ctypes.data, len(units), batch_size, *sizes)
        if self.handle is None:
            raise MemoryError(f"compiled trainer: there is no memory for batches of {batch_size:,} images")

    @classmethod
    def of(cls, trainee, batch_size):
        """As far as a Trainee has come; `store` copies the state back."""
        state, weights = trainee.optimizer.state, list(trainee.network.parameters())
        velocity = [state.get(weight, {}).get("momentum_buffer", torch.zeros_like(weight)) for weight in weights]
        return cls(trainee.network, batch_size, average=trainee.outcome, velocity=velocity)

    def __del__(self):
        if hasattr(self, "handle"):
            self.library.destroy(self.handle)

    def train(self, split, order, drawn, steps, recipe, so_far=(0, 0.0)):
        """Train on some batches, up to the first whose loss is not finite.

        Args:
            split: images and labels, on the CPU.
            order: int64 (N,), which images, in batches of the size given.
            drawn: what `draw` draws for these images.
            steps: what `plan_steps` gives for these batches.
            recipe: gives the optimiser and how images are resampled.
            so_far: what was returned for earlier batches, without their number.

        Returns: correct answers and sum of losses in nats, as training saw the images, and the number of batches.
        Raises: ValueError naming an array of another size or type, or an index or label out of range.
        """
        require_steps(steps, len(order), self.batch_size)
        data, correct, loss = Data.of(split, order), COUNT(so_far[0]), ctypes.c_double(so_far[1])
        self.losses = torch.empty(len(order))  # of these images
        distortion = Distortion.of(known_transforms(recipe), drawn, len(order))
        method = Method(recipe.weight_decay, recipe.nesterov, recipe.optimizer == "Muon")
        batches = order.data_ptr(), len(order), distortion, steps.ctypes.data, method, self.losses.data_ptr()
        done = self.library.train(self.handle, self.state, data, *batches, ctypes.byref(loss), ctypes.byref(correct))
        return correct.value, loss.value, done

    def infer(self, split, order):
        """Logits of some images, float32 (N, 10), of the averaged network or the only one, in eval mode."""
        data, logits = Data.of(split, order), torch.empty(len(order), CLASSES)
        self.library.infer(self.handle, self.state, data, order.data_ptr(), len(order), logits.data_ptr())
        return logits

    def masks(self, count):
        """What each dropout multiplied the first images of the last batch by, float32 (count, channels, height, width).

        Raises: ValueError if there can be no batch of that many.
        """
        if not 0 <= count <= self.batch_size:
            raise ValueError(f"compiled trainer: masks of {count} images, but a batch holds {self.batch_size}")
        masks = []
        for number, unit in enumerate(self.units):
            if unit["dropped"]:
                masks.append(torch.empty(count, unit["outputs"], unit["side"], unit["side"]))
                self.library.copy_mask(self.handle, number, count, masks[-1].data_ptr())
        return masks

    def store(self, trainee, batches):
        """Copy everything back into the trainee, which has trained on that many more batches."""
        network, average, optimizer = trainee.network, trainee.average, trainee.optimizer
        _fill(network.parameters(), self.arrays["weights"])
        _fill(_statistics(network), self.arrays["statistics"])
        if optimizer.param_groups[0]["momentum"]:  # without it torch.optim.SGD keeps no velocity
            states = [(optimizer.state[weight], torch.zeros_like(weight)) for weight in network.parameters()]
            _fill([state.setdefault("momentum_buffer", zero) for state, zero in states], self.arrays["velocity"])
        if average:
            _fill(average.module.parameters(), self.arrays["average_weights"])
            _fill(_statistics(average.module), self.arrays["average_statistics"])
            average.n_averaged += batches
        for norm in norms(network) + (norms(average.module) if average else []):
            norm.num_batches_tracked += batches


def _statistics(network):
    return [buffer for norm in norms(network) for buffer in (norm.running_mean, norm.running_var)]


def _flat(tensors):
    arrays = [tensor.detach().numpy().ravel() for tensor in tensors]
    return np.concatenate([np.empty(0), *arrays]).astype(np.float32)  # a network may have no statistics at all


def _fill(tensors, values):
    tensors = list(tensors)
    with torch.no_grad():
        for tensor, part in zip(tensors, torch.from_numpy(values).split([*map(torch.numel, tensors)]), strict=True):
            tensor.copy_(part.view(tensor.shape))
