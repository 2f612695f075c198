"""How the present code proves that it may continue an earlier run.

A run is what it computes. Before anything else, every run trains and measures a few batches from its seed; the bits of
the outcome are its fingerprint, and a checkpoint is taken up only by code with the same one.
So an edited network, block, list or helper is noticed wherever it is. What a fingerprint cannot see is code that
acts only later, such as a module that changes itself in its fifth epoch, or only on a GPU: it is computed on the CPU.
The digest of the source, see `lab.run.digest`, counts as well, and may notice that.

The same few batches show whether a checkpoint would hold the whole state of the run: anything else that has changed,
a counter, a list, numpy's random numbers, would be lost, and the resumed run would differ.
"""

import copy
import hashlib
import random
from dataclasses import replace

import numpy as np
import torch

from lab.run.digest import code_digest, tensor_bytes
from lab.run.source import Untraceable
from lab.training.data import pixels_digest
from lab.training.loop import TrainingDiverged, begin, run_epoch

BATCHES, MOST_IMAGES, MEASURED = 3, 1024, 64
NUMPY, PYTHON = "numpy's random numbers", "Python's random numbers"
CODE, TRANSFORMS = "the network's class, or what it uses,", "an augmentation"
# not part of the fingerprint: the code has a digest of its own, and random numbers count where they are used
GLOBAL = (NUMPY, PYTHON, CODE, TRANSFORMS)


def take_fingerprint(recipe, seed, splits, trainer):
    """Digest of losses, counts, weights and statistics after the first few batches from a seed.

    Args:
        splits: training, held-out (or None) and test images, on the CPU.
        trainer: what will train and measure.

    Returns: SHA-256, which also covers all images and labels; and, in words, what changed meanwhile that no checkpoint
        would hold, or None.
    """
    found = hashlib.sha256()
    train, held_out, test = splits
    few = min(MOST_IMAGES, len(train), recipe.batch_size * max(1, min(BATCHES, MOST_IMAGES // recipe.batch_size)))
    # a transform may have a state of its own, which only the real run may change
    recipe = replace(recipe, augmentation=copy.deepcopy(recipe.augmentation))
    with torch.random.fork_rng(devices=[]):
        trainee = begin(recipe, seed, torch.device("cpu"), len(train))
        before = _beside_weights(recipe, trainee.network)
        parts = train.first(few), held_out and held_out.first(MEASURED), test.first(MEASURED)
        try:
            row = run_epoch(trainee, recipe, *parts, trainer)
        except TrainingDiverged as error:
            row = {"diverged": str(error)}
        except (TypeError, RuntimeError, AttributeError, LookupError) as error:
            name = recipe.network.__name__
            raise ValueError(f"Recipe: network={name} fails in its first batches: {error}") from error
    found.update(repr([(name, value) for name, value in row.items() if not name.endswith("seconds")]).encode())
    found.update(repr([item for item in before.items() if item[0] not in GLOBAL]).encode())
    for part in (trainee.network, trainee.average):
        for name, value in part.state_dict().items() if part is not None else ():
            found.update(name.encode() + (tensor_bytes(value) if torch.is_tensor(value) else _digest(value).encode()))
    found.update(pixels_digest(*filter(None, splits)).encode())
    after = _beside_weights(recipe, trainee.network)
    return found.hexdigest(), next((name for name in after if after[name] != before.get(name)), None)


def _beside_weights(recipe, network):
    """Digests, by a description in words, of all that may affect a run and that no checkpoint holds."""
    state = {NUMPY: np.random.get_state(legacy=False), PYTHON: random.getstate()}  # noqa: NPY002 (what readers use)
    state |= {CODE: (recipe.network, recipe.arguments), TRANSFORMS: recipe.augmentation}
    weights = {id(weight) for weight in network.parameters()}
    for path, module in network.named_modules():
        held = {"_parameters", "_modules", "_buffers", "training"}
        values = {name: value for name, value in vars(module).items() if name not in held}
        values |= {name: module._buffers[name] for name in module._non_persistent_buffers_set}
        for name, value in values.items():
            others = [part for part in value if id(part) not in weights] if isinstance(value, list) else value
            state[f"{path or type(network).__name__}.{name}"] = others  # a GRU lists its weights a second time
    return {name: _digest(value) for name, value in state.items()}


def _digest(value):
    """The digest of a value; what cannot be followed counts by its type alone."""
    try:
        return code_digest(value)
    except Untraceable:
        return f"{type(value).__qualname__}"
