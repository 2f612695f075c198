"""What a cell may use of `utils` when it is run alone to learn the recipe, the ablations or the claims of a rung.

Such a cell describes; it trains and draws nothing. So it gets only the few names needed to describe,
and the rooms built on this one need not be there.
"""

from dataclasses import is_dataclass
from types import ModuleType

from lab.ladders.claims import Claim
from lab.training import augment, schedules
from lab.training.recipe import Recipe

TRANSFORMS = {name: kind for name, kind in vars(augment).items() if is_dataclass(kind)}
SCHEDULES = {name: kind for name, kind in vars(schedules).items() if is_dataclass(kind) and name != "Schedule"}


class Names(ModuleType):
    """Stands in for `utils`; any other name is refused with a list of what it has."""

    def __getattr__(self, name):
        known = ", ".join(sorted(name for name in vars(self) if not name.startswith("_")))
        raise AttributeError(f"a cell that is run by itself may use of utils {known}, and not {name}")


NAMES = Names("utils")
vars(NAMES).update({"Recipe": Recipe, "Claim": Claim, "judge": lambda claims: None} | SCHEDULES | TRANSFORMS)
