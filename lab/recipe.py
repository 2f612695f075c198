"""A recipe: everything that decides a number, as data that can be printed, compared and stored."""

import math
from dataclasses import dataclass, field, fields, is_dataclass
from functools import partial

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from lab.acting import refuse_lazy
from lab.muon import Muon
from lab.rules import Rule, check_fields, flag, is_a, number, one_of, pair, whole

LATER = ("average", "compiled")  # settings that joined when results were there: written down only where they are on


@dataclass(frozen=True)
class StepLR:
    """Multiply the learning rate by gamma every `step_size` epochs."""

    step_size: int
    gamma: float = 0.1

    def __post_init__(self):
        check_fields(self, {"step_size": whole(1, 10_000), "gamma": number(above=0)})


@dataclass(frozen=True)
class OneCycleLR:
    """Raise the rate to `max_learning_rate`, then lower it to almost zero; one step per batch.

    torch's defaults otherwise, one of which matters: momentum is cycled too, from 0.95 to 0.85 and back, and
    overrules the recipe's own. Source: Smith & Topin 2017, "Super-convergence".
    """

    max_learning_rate: float
    warmup: float = 0.3  # share of all steps spent rising

    def __post_init__(self):
        check_fields(self, {"max_learning_rate": number(above=0), "warmup": number(0, below=1)})


@dataclass(frozen=True)
class CosineCycle:
    """Raise the rate from a share of its peak, then lower it to zero along a cosine; one step per batch.

    torch's OneCycleLR with the momentum left alone.
    """

    max_learning_rate: float
    warmup: float = 0.2  # share of all steps spent rising
    start: float = 0.1  # rate of the first batch, as a share of the peak

    def __post_init__(self):
        check_fields(
            self,
            {"max_learning_rate": number(above=0), "warmup": number(0, below=1), "start": number(above=0, high=1)},
        )


@dataclass(frozen=True)
class ReduceLROnPlateau:
    """Multiply the rate by `factor` once the held-out loss has not improved for more than `patience` epochs."""

    factor: float = 0.1
    patience: int = 2

    def __post_init__(self):
        check_fields(self, {"factor": number(above=0, below=1), "patience": whole(0, 10_000)})


WITH_MOMENTUM = ("SGD", "Muon")  # optimisers that heed momentum and nesterov; the others heed betas
PER_BATCH = (OneCycleLR, CosineCycle)  # stepped after every batch; the others after every epoch


def _is_transform(value):
    return callable(value) and is_dataclass(value) and not isinstance(value, type)


SCHEDULES = (StepLR, OneCycleLR, CosineCycle, ReduceLROnPlateau, type(None))
RULES = {
    "network": Rule("a class of networks", lambda value: isinstance(value, type) and issubclass(value, nn.Module)),
    "arguments": is_a(dict, "a dictionary"),
    "epochs": whole(1, 10_000),
    "batch_size": whole(1, 1_000_000),
    "loss": one_of("cross_entropy", "nll"),
    "optimizer": one_of("SGD", "Adam", "AdamW", "Muon"),
    "learning_rate": number(above=0),
    "momentum": number(0, below=1),
    "nesterov": flag(),
    "betas": pair(number(0, below=1)),
    "weight_decay": number(0),
    "schedule": is_a(SCHEDULES, "a schedule such as StepLR(6), or None"),
    "augmentation": Rule(
        "a tuple of transforms, dataclasses that can be called, such as (RandomRotation(6),)",
        lambda value: isinstance(value, tuple) and all(map(_is_transform, value)),
    ),
    "held_out": Rule(
        "a whole number of images, or a share below 1",
        lambda value: whole(0, 1_000_000).holds(value) or number(0, below=1).holds(value),
    ),
    "precision": one_of("float32", "bfloat16"),
    "average": number(0, below=1),
    "compiled": flag(),
}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One training run but for its seed.

    Raises: ValueError naming the field and its value, if one is outside its range.
    """

    network: type[nn.Module]
    arguments: dict = field(default_factory=dict)  # of the network
    epochs: int = 15
    batch_size: int = 128
    loss: str = "cross_entropy"  # of logits; "nll" of log-probabilities
    optimizer: str = "SGD"
    learning_rate: float = 0.01
    momentum: float = 0.9  # SGD and Muon only
    nesterov: bool = False  # SGD only; Muon has to have it
    betas: tuple[float, float] = (0.9, 0.999)  # Adam and AdamW only
    weight_decay: float = 0.0
    schedule: StepLR | OneCycleLR | CosineCycle | ReduceLROnPlateau | None = None
    augmentation: tuple = ()  # applied in order to every training batch
    held_out: float = 0  # last so many training images, or that share of them if below 1: not trained on, watched
    precision: str = "float32"  # "bfloat16": convolutions in bfloat16, sums and weights in float32
    average: float = 0.0  # decay per batch, in the end, of a running average of weights and statistics; 0: none kept
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
        if self.optimizer == "Muon" and not self.nesterov:
            raise ValueError("Recipe: optimizer='Muon' takes Nesterov's steps alone; set nesterov=True and a momentum")
        if isinstance(self.schedule, ReduceLROnPlateau) and not self.held_out:
            raise ValueError("Recipe: held_out=0, but ReduceLROnPlateau needs held-out training images to watch")

    def build_network(self):
        network = self.network(**self.arguments)
        refuse_lazy(network)
        return network

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
        return {name: value for name, value in written.items() if value or name not in LATER}


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
    """How many of so many training images are left to train on; a `held_out` below 1 is a share."""
    return images - (round(images * held_out) if held_out < 1 else held_out)


def build_optimizer(recipe, network):
    """The optimiser of the recipe over all parameters of the network."""
    shared = {"lr": recipe.learning_rate, "weight_decay": recipe.weight_decay}
    if recipe.optimizer == "SGD":
        return torch.optim.SGD(network.parameters(), momentum=recipe.momentum, nesterov=recipe.nesterov, **shared)
    if recipe.optimizer == "Muon":
        return Muon(network, momentum=recipe.momentum, **shared)
    return getattr(torch.optim, recipe.optimizer)(network.parameters(), betas=recipe.betas, **shared)


def build_average(recipe, network):
    """A running average of the network, batch statistics included, or None if the recipe keeps none.

    Source: Polyak & Juditsky 1992; with exponential decay as in Tarvainen & Valpola 2017, "Mean teachers".
    """
    if not recipe.average:
        return None

    def update(averages, values, batches):
        get_ema_multi_avg_fn(average_decay(recipe.average, int(batches)))(averages, values, batches)

    return AveragedModel(network, multi_avg_fn=update, use_buffers=True)


def average_decay(most, batches):
    """Decay per batch of an average over so many batches so far: little at first, so that it forgets its start.

    The average reaches back over about a tenth of the batches there were, until `most` limits it. Source: TensorFlow's
    `tf.train.ExponentialMovingAverage`.
    """
    return min(most, (1 + batches) / (10 + batches))


def build_schedule(recipe, optimizer, batches_per_epoch):
    """The schedule of the recipe, or one that never changes the rate.

    Raises: ValueError if so few batches are trained on that a rate cannot rise.
    """
    schedule = recipe.schedule
    if isinstance(schedule, StepLR):
        return torch.optim.lr_scheduler.StepLR(optimizer, schedule.step_size, schedule.gamma)
    if isinstance(schedule, PER_BATCH):
        steps = recipe.epochs * batches_per_epoch
        if steps == 1:
            raise ValueError("schedule: a cycle over a single batch can neither rise nor fall; train on more of them")
        if schedule.warmup * steps == 1:  # torch divides by the length of the rise, one step less
            raise ValueError(f"schedule: warmup={schedule.warmup} of {steps} batches is a rise of a single one")
        plain = isinstance(schedule, CosineCycle)
        return torch.optim.lr_scheduler.OneCycleLR(
            optimizer,
            schedule.max_learning_rate,
            total_steps=steps,
            pct_start=float(schedule.warmup),
            **({"div_factor": 1 / schedule.start, "cycle_momentum": False} if plain else {}),
        )
    if isinstance(schedule, ReduceLROnPlateau):
        return torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=schedule.factor, patience=schedule.patience)
    return torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
