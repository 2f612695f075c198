"""A recipe: everything that decides a number, as data that can be printed, compared and stored."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields, is_dataclass
from functools import partial

import torch
from torch import nn

from lab.rules import Rule, check_fields, flag, is_a, number, one_of, pair, whole
from lab.tracing.acting import refuse_lazy
from lab.training.optimizers import OPTIMIZERS
from lab.training.schedules import Schedule

# settings added when results already existed
WRITTEN_IF_ON = ("initialisation", "hardest", "average", "remeasure", "compiled")


def _is_transform(value):
    return callable(value) and is_dataclass(value) and not isinstance(value, type)


RULES = {
    "network": Rule("a class of networks", lambda value: isinstance(value, type) and issubclass(value, nn.Module)),
    "arguments": is_a(dict, "a dictionary"),
    "initialisation": Rule(
        "a function that fills a tensor of weights, such as torch.nn.init.kaiming_normal_, or None",
        lambda value: value is None or callable(value),
    ),
    "epochs": whole(1, 10_000),
    "batch_size": whole(1, 1_000_000),
    "loss": one_of("cross_entropy", "nll"),
    "optimizer": one_of(*OPTIMIZERS),
    "learning_rate": number(above=0),
    "momentum": number(0, below=1),
    "nesterov": flag(),
    "betas": pair(number(0, below=1)),
    "weight_decay": number(0),
    "schedule": is_a((Schedule, type(None)), "a schedule such as StepLR(6), or None"),
    "augmentation": Rule(
        "a tuple of transforms, dataclasses that can be called, such as (RandomRotation(6),)",
        lambda value: isinstance(value, tuple) and all(map(_is_transform, value)),
    ),
    "held_out": Rule(
        "a whole number of images, or a share below 1",
        lambda value: whole(0, 1_000_000).holds(value) or number(0, below=1).holds(value),
    ),
    "hardest": number(0, below=1),
    "precision": one_of("float32", "bfloat16"),
    "average": number(0, below=1),
    "remeasure": flag(),
    "compiled": flag(),
}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One training run, except for its seed.

    Raises: ValueError naming the field and its value, if one is outside its range.
    """

    network: type[nn.Module]
    arguments: dict = field(default_factory=dict)  # of the network
    initialisation: Callable | None = None  # of the weights of convolutions and linear layers; None: torch's own
    epochs: int = 15
    batch_size: int = 128
    loss: str = "cross_entropy"  # of logits; "nll" of log-probabilities
    optimizer: str = "SGD"
    learning_rate: float = 0.01
    momentum: float = 0.9  # of optimisers that heed it, as lab/training/optimizers.py says
    nesterov: bool = False
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0
    schedule: Schedule | None = None
    augmentation: tuple = ()  # applied in order to every training batch
    held_out: float = 0  # number of last training images, or their share if below 1: not trained on, watched
    hardest: float = 0.0  # share of the images, of the largest last losses, that epochs after the first show; 0: all
    precision: str = "float32"  # "bfloat16": convolutions in bfloat16, sums and weights in float32
    average: float = 0.0  # final decay per batch of a running average of weights and statistics; 0: none kept
    remeasure: bool = False  # before each measurement, statistics of batch normalisation anew, with dropout off
    compiled: bool = False  # train with lab/native on a CPU, where it can: the same but for rounding, and faster

    def __post_init__(self):
        if isinstance(self.network, nn.Module):
            kind = type(self.network).__name__
            raise ValueError(
                f"Recipe: network must be a class, not an instance: network={kind}, what it takes in arguments={{...}}"
            )
        if isinstance(self.augmentation, list):
            object.__setattr__(self, "augmentation", tuple(self.augmentation))
        check_fields(self, RULES)
        if self.nesterov and not self.momentum:
            raise ValueError("Recipe: nesterov=True must be False without momentum")
        if objection := OPTIMIZERS[self.optimizer].objection(self):
            raise ValueError(f"Recipe: {objection}")
        if self.schedule and self.schedule.watches and not self.held_out:
            name = type(self.schedule).__name__
            raise ValueError(f"Recipe: held_out=0, but {name} needs held-out training images to watch")

    def build_network(self):
        network = self.network(**self.arguments)
        refuse_lazy(network)
        if self.initialisation:
            for module in network.modules():
                if isinstance(module, nn.Conv2d | nn.Linear):
                    with torch.no_grad():
                        self.initialisation(module.weight)
        return network

    def build_optimizer(self, network):
        """The optimiser over all parameters of a network."""
        return OPTIMIZERS[self.optimizer].build(self, network)

    def specimen(self):
        """An untrained network in eval mode, to look at; the caller's random numbers stay as they are."""
        with torch.random.fork_rng(devices=[]):
            return self.build_network().eval()

    @property
    def parameters(self):
        """Number of all weights of the network, batch normalisation's scale and shift included."""
        return sum(weight.numel() for weight in self.specimen().parameters())

    def as_dict(self):
        """The recipe as plain JSON values, the network by its name; equal recipes give equal dictionaries.

        Raises: ValueError naming an argument or setting that cannot be written down.
        """
        values = {item.name: getattr(self, item.name) for item in fields(self)} | {"network": self.network.__name__}
        try:
            written = {name: _written(value) for name, value in values.items()}
        except TypeError as error:
            raise ValueError(f"Recipe: arguments={self.arguments!r} cannot be written into a record: {error}") from None
        return {name: value for name, value in written.items() if value or name not in WRITTEN_IF_ON}


def _written(value):
    """A value as JSON can hold it: classes and functions by name, dataclasses and partials as the calls they are."""
    if isinstance(value, float) and not math.isfinite(value):
        raise TypeError(f"{value} is no finite number")
    if isinstance(value, str | int | float | None):
        return value
    if isinstance(value, list | tuple):
        return [_written(part) for part in value]
    if isinstance(value, dict):
        return {str(key): _written(part) for key, part in value.items()}
    if isinstance(value, partial):
        return {"name": _written(value.func), "arguments": _written(value.args), **_written(value.keywords)}
    if is_dataclass(value) and not isinstance(value, type):
        settings = {item.name: _written(getattr(value, item.name)) for item in fields(value)}
        return {"name": type(value).__name__, **settings}
    if callable(value) and hasattr(value, "__qualname__"):
        return f"{value.__module__}.{value.__qualname__}"
    raise TypeError(f"{value!r} is neither plain nor has it a name")


def as_call(written):
    """A dictionary that stands for a schedule or transform, as the call that makes it; any other value as it is."""
    if isinstance(written, dict) and "name" in written:
        return f"{written['name']}({', '.join(f'{key}={part}' for key, part in written.items() if key != 'name')})"
    return written


def without_held_out(images, held_out):
    """How many of `images` training images are left to train on; a `held_out` below 1 is a share."""
    return images - (round(images * held_out) if held_out < 1 else held_out)


def splits_of(recipe, digits):
    """Training, held-out and test images; None where nothing is held out."""
    kept = without_held_out(len(digits.train), recipe.held_out)
    held_out = digits.train.last(len(digits.train) - kept) if recipe.held_out else None
    return digits.train.first(kept), held_out, digits.test
