"""A recipe: everything that decides a number, as data that can be printed, compared and stored."""

from dataclasses import asdict, dataclass, field, fields, is_dataclass

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

OPTIMIZERS = ("SGD", "Adam", "AdamW")
LOSSES = ("cross_entropy", "nll")
PRECISIONS = ("float32", "bfloat16")
LATER = ("average",)  # settings that joined when results were there: written down only where they are on


@dataclass(frozen=True)
class StepLR:
    """Multiply the learning rate by gamma every `step_size` epochs."""

    step_size: int
    gamma: float = 0.1


@dataclass(frozen=True)
class OneCycleLR:
    """Raise the rate to `max_learning_rate`, then lower it to almost zero; one step per batch.

    torch's defaults otherwise, one of which matters: momentum is cycled too, from 0.95 to 0.85 and back, and
    overrules the recipe's own. Source: Smith & Topin 2017, "Super-convergence".
    """

    max_learning_rate: float
    warmup: float = 0.3  # share of all steps spent rising


@dataclass(frozen=True)
class CosineCycle:
    """Raise the rate from a share of its peak, then lower it to zero along a cosine; one step per batch.

    torch's OneCycleLR with the momentum left alone.
    """

    max_learning_rate: float
    warmup: float = 0.2  # share of all steps spent rising
    start: float = 0.1  # rate of the first batch, as a share of the peak


@dataclass(frozen=True)
class ReduceLROnPlateau:
    """Multiply the rate by `factor` once the held-out loss has not improved for more than `patience` epochs."""

    factor: float = 0.1
    patience: int = 2


PER_BATCH = (OneCycleLR, CosineCycle)  # stepped after every batch; the others after every epoch


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
    momentum: float = 0.9  # SGD only
    nesterov: bool = False  # SGD only
    betas: tuple[float, float] = (0.9, 0.999)  # Adam and AdamW only
    weight_decay: float = 0.0
    schedule: StepLR | OneCycleLR | CosineCycle | ReduceLROnPlateau | None = None
    augmentation: tuple = ()  # applied in order to every training batch
    held_out: float = 0  # last so many training images, or that share of them if below 1: not trained on, watched
    precision: str = "float32"  # "bfloat16": convolutions in bfloat16, sums and weights in float32
    average: float = 0.0  # keep a running average of weights and statistics with this decay per batch; 0: none

    def __post_init__(self):
        rules = {
            "epochs": (isinstance(self.epochs, int) and self.epochs >= 1, "a whole number of at least 1"),
            "batch_size": (isinstance(self.batch_size, int) and self.batch_size >= 1, "a whole number of at least 1"),
            "loss": (self.loss in LOSSES, f"one of {', '.join(LOSSES)}"),
            "optimizer": (self.optimizer in OPTIMIZERS, f"one of {', '.join(OPTIMIZERS)}"),
            "learning_rate": (self.learning_rate > 0, "above 0"),
            "momentum": (0 <= self.momentum < 1, "at least 0 and below 1"),
            "nesterov": (not self.nesterov or self.momentum > 0, "False without momentum"),
            "betas": (all(0 <= beta < 1 for beta in self.betas), "two numbers of at least 0 and below 1"),
            "weight_decay": (self.weight_decay >= 0, "at least 0"),
            "held_out": (self.held_out >= 0, "at least 0"),
            "average": (0 <= self.average < 1, "at least 0 and below 1"),
            "precision": (self.precision in PRECISIONS, f"one of {', '.join(PRECISIONS)}"),
        }
        for name, (holds, expected) in rules.items():
            if not holds:
                raise ValueError(f"Recipe: {name}={getattr(self, name)!r} must be {expected}")
        for name in ("step_size", "gamma", "max_learning_rate", "factor"):
            if getattr(self.schedule, name, 1) <= 0:
                raise ValueError(f"Recipe: schedule={self.schedule} must have {name} above 0")
        if isinstance(self.schedule, ReduceLROnPlateau) and not self.held_out:
            raise ValueError("Recipe: held_out=0, but ReduceLROnPlateau needs held-out training images to watch")

    def build_network(self):
        return self.network(**self.arguments)

    def specimen(self):
        """An untrained network in eval mode, to look at; the caller's random numbers stay as they are."""
        with torch.random.fork_rng(devices=[]):
            return self.build_network().eval()

    @property
    def parameters(self):
        """Number of all weights of the network, batch normalisation's scale and shift included."""
        return sum(weight.numel() for weight in self.specimen().parameters())

    def as_dict(self):
        """The recipe as plain JSON values, classes by name; equal recipes give equal dictionaries."""
        values = {item.name: _plain(getattr(self, item.name)) for item in fields(self)}
        return {name: value for name, value in values.items() if value or name not in LATER}


def _plain(value):
    if isinstance(value, type):
        return value.__name__
    if is_dataclass(value):
        return {"name": type(value).__name__, **{key: _plain(part) for key, part in asdict(value).items()}}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    return value


def without_held_out(images, held_out):
    """How many of so many training images are left to train on; a `held_out` below 1 is a share."""
    return images - (round(images * held_out) if held_out < 1 else held_out)


def build_optimizer(recipe, network):
    """The optimiser of the recipe over all parameters of the network."""
    shared = {"lr": recipe.learning_rate, "weight_decay": recipe.weight_decay}
    if recipe.optimizer == "SGD":
        return torch.optim.SGD(network.parameters(), momentum=recipe.momentum, nesterov=recipe.nesterov, **shared)
    return getattr(torch.optim, recipe.optimizer)(network.parameters(), betas=recipe.betas, **shared)


def build_average(recipe, network):
    """A running average of the network, batch statistics included, or None if the recipe keeps none.

    Source: Polyak & Juditsky 1992; with exponential decay as in Tarvainen & Valpola 2017, "Mean teachers".
    """
    if not recipe.average:
        return None
    return AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(recipe.average), use_buffers=True)


def build_schedule(recipe, optimizer, batches_per_epoch):
    """The schedule of the recipe, or one that never changes the rate."""
    schedule = recipe.schedule
    if isinstance(schedule, StepLR):
        return torch.optim.lr_scheduler.StepLR(optimizer, schedule.step_size, schedule.gamma)
    if isinstance(schedule, PER_BATCH):
        plain = isinstance(schedule, CosineCycle)
        return torch.optim.lr_scheduler.OneCycleLR(
            optimizer,
            schedule.max_learning_rate,
            total_steps=recipe.epochs * batches_per_epoch,
            pct_start=schedule.warmup,
            **({"div_factor": 1 / schedule.start, "cycle_momentum": False} if plain else {}),
        )
    if isinstance(schedule, ReduceLROnPlateau):
        return torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=schedule.factor, patience=schedule.patience)
    return torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
