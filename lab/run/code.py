"""The digest of the code that decides the numbers of a recipe."""

from lab.native import trainer
from lab.run.digest import code_digest
from lab.run.record import UNTRACEABLE
from lab.run.source import Untraceable
from lab.training.loop import begin, evaluate, run_epoch
from lab.training.optimizers import OPTIMIZERS
from lab.training.recipe import Recipe


def recipe_digest(recipe):
    """Digest of the code that decides the numbers of a recipe: the loops, its network, and all that they call.

    Raises: Untraceable naming what cannot be followed.
    """
    own = [recipe.network, recipe.arguments, recipe.initialisation, recipe.augmentation, recipe.schedule]
    roots = [begin, run_epoch, evaluate, Recipe.build_network, OPTIMIZERS[recipe.optimizer], *own]
    return code_digest(*roots, *([trainer.COMPILED] if recipe.compiled else []))


def digest_or_reason(recipe):
    """The digest of a recipe's code, or why it has none, which no published run has for a digest."""
    try:
        return recipe_digest(recipe)
    except Untraceable as error:
        return f"{UNTRACEABLE}{error}"
