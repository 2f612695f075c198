"""Optimisers. A new one needs only an entry in OPTIMIZERS."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import optim

from lab.training.muon import Muon


def _needs_nesterov(recipe):
    if recipe.nesterov:
        return None
    return f"optimizer={recipe.optimizer!r} takes Nesterov's steps alone; set nesterov=True and a momentum"


@dataclass(frozen=True)
class Optimizer:
    """An optimiser of a recipe: how it is built from recipe and network, and what else it takes from the recipe.

    `heeds` are the settings that have an effect besides learning rate and weight decay; `objection` says in words what
    in a recipe does not suit it, or None.
    """

    build: Callable
    heeds: tuple[str, ...]
    objection: Callable = lambda recipe: None


def _shared(recipe):
    return {"lr": recipe.learning_rate, "weight_decay": recipe.weight_decay}


def _sgd(recipe, network):
    settings = {"momentum": recipe.momentum, "nesterov": recipe.nesterov}
    return optim.SGD(network.parameters(), **settings, **_shared(recipe))


def _muon(recipe, network):
    return Muon(network, momentum=recipe.momentum, **_shared(recipe))


def _adam(recipe, network):
    return optim.Adam(network.parameters(), betas=recipe.betas, **_shared(recipe))


def _adamw(recipe, network):
    return optim.AdamW(network.parameters(), betas=recipe.betas, **_shared(recipe))


OPTIMIZERS = {
    "SGD": Optimizer(_sgd, ("momentum", "nesterov")),
    "Adam": Optimizer(_adam, ("betas",)),
    "AdamW": Optimizer(_adamw, ("betas",)),
    "Muon": Optimizer(_muon, ("momentum", "nesterov"), _needs_nesterov),
}


def settings_without_effect(name):
    """Settings of a recipe that other optimisers heed and this one does not."""
    return {setting for other in OPTIMIZERS.values() for setting in other.heeds} - set(OPTIMIZERS[name].heeds)
