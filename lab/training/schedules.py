"""Learning-rate schedules. A new one needs only a class here; notebooks reach it once utils.py names it."""

from dataclasses import dataclass
from typing import ClassVar

from torch.optim import lr_scheduler

from lab.rules import check_fields, number, whole

BATCH, EPOCH = "batch", "epoch"  # after which a schedule is stepped


@dataclass(frozen=True)
class Schedule:
    """How the learning rate changes while a network trains.

    A schedule is stepped after every batch or after every epoch; one that `watches` is told the held-out loss of the
    epoch.
    """

    stepped: ClassVar[str] = EPOCH
    watches: ClassVar[bool] = False

    def build(self, optimizer, batches):
        """torch's scheduler for a run of this many batches. Raises: ValueError if the run is too short for it."""
        raise NotImplementedError


@dataclass(frozen=True)
class StepLR(Schedule):
    """Multiply the learning rate by gamma every `step_size` epochs."""

    step_size: int
    gamma: float = 0.1

    def __post_init__(self):
        check_fields(self, {"step_size": whole(1, 10_000), "gamma": number(above=0)})

    def build(self, optimizer, batches):
        return lr_scheduler.StepLR(optimizer, self.step_size, self.gamma)


@dataclass(frozen=True)
class OneCycleLR(Schedule):
    """Raise the rate to `max_learning_rate`, then lower it to almost zero; one step per batch.

    torch's defaults otherwise, one of which matters: momentum is cycled too, from 0.95 to 0.85 and back, and
    overrules the recipe's own. Source: Smith & Topin 2017, "Super-convergence".
    """

    max_learning_rate: float
    warmup: float = 0.3  # share of all steps spent rising

    stepped: ClassVar[str] = BATCH

    def __post_init__(self):
        check_fields(self, {"max_learning_rate": number(above=0), "warmup": number(0, below=1)})

    def build(self, optimizer, batches):
        return _cycle(self, optimizer, batches)


@dataclass(frozen=True)
class CosineCycle(Schedule):
    """Raise the rate from a share of its peak, then lower it to zero along a cosine; one step per batch.

    torch's OneCycleLR with the momentum left alone.
    """

    max_learning_rate: float
    warmup: float = 0.2  # share of all steps spent rising
    start: float = 0.1  # rate of the first batch, as a share of the peak

    stepped: ClassVar[str] = BATCH

    def __post_init__(self):
        check_fields(
            self,
            {"max_learning_rate": number(above=0), "warmup": number(0, below=1), "start": number(above=0, high=1)},
        )

    def build(self, optimizer, batches):
        return _cycle(self, optimizer, batches, div_factor=1 / self.start, cycle_momentum=False)


@dataclass(frozen=True)
class LinearCycle(CosineCycle):
    """The same along straight lines, after a shorter rise.

    Source: Defazio et al. 2023, "Optimal linear decay learning rate schedules and further refinements".
    """

    warmup: float = 0.05

    def build(self, optimizer, batches):
        straight = {"cycle_momentum": False, "anneal_strategy": "linear"}
        return _cycle(self, optimizer, batches, div_factor=1 / self.start, **straight)


@dataclass(frozen=True)
class ReduceLROnPlateau(Schedule):
    """Multiply the rate by `factor` once the held-out loss has not improved for more than `patience` epochs."""

    factor: float = 0.1
    patience: int = 2

    watches: ClassVar[bool] = True

    def __post_init__(self):
        check_fields(self, {"factor": number(above=0, below=1), "patience": whole(0, 10_000)})

    def build(self, optimizer, batches):
        return lr_scheduler.ReduceLROnPlateau(optimizer, factor=self.factor, patience=self.patience)


def _cycle(schedule, optimizer, steps, **settings):
    if steps == 1:
        raise ValueError("schedule: a cycle over a single batch can neither rise nor fall; train on more of them")
    if schedule.warmup * steps == 1:  # torch divides by the length of the rise, one step less
        raise ValueError(f"schedule: warmup={schedule.warmup} of {steps} batches is a rise of a single one")
    peak, rise = schedule.max_learning_rate, float(schedule.warmup)
    return lr_scheduler.OneCycleLR(optimizer, peak, total_steps=steps, pct_start=rise, **settings)


def build_schedule(recipe, optimizer, batches):
    """torch's scheduler of a recipe for all batches of its run, or one that never changes the rate.

    Raises: ValueError if there are too few batches for the rate to rise.
    """
    if recipe.schedule is None:
        return lr_scheduler.ConstantLR(optimizer, factor=1.0)
    return recipe.schedule.build(optimizer, batches)


def step_after_batch(recipe, scheduler):
    """Let the rate change, if it does so after every batch."""
    if recipe.schedule is not None and recipe.schedule.stepped == BATCH:
        scheduler.step()


def step_after_epoch(recipe, scheduler, held_out_loss=None):
    """Let the rate change, if it does so after every epoch; some schedules need the loss of held-out images."""
    if recipe.schedule is None or recipe.schedule.stepped == EPOCH:
        scheduler.step(*([held_out_loss] if recipe.schedule and recipe.schedule.watches else []))
