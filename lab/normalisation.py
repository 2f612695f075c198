"""What dropout does to batch normalisation: the statistics it stores while training are not those it meets afterwards.

Dropout keeps the mean of an activation and raises its variance. Batch normalisation behind it stores the raised one,
and divides by it in eval mode too, when nothing is dropped any more. Source: Li et al. 2018, "Understanding the
disharmony between dropout and batch normalization by variance shift".
"""

import copy

import pandas as pd
import torch
from torch.nn.modules.batchnorm import _BatchNorm

from lab.training import evaluate, prepare

IMAGES, BATCH = 10_000, 500


def variance_shift(run):
    """Compare, for every batch normalisation, the variance it has stored with the one it meets in eval mode.

    Args:
        run: from `fit`; its first 10,000 training images are looked at.

    Returns: DataFrame indexed by module path, with a row for every time that one acts; `met / stored` is the median
        over channels, 1 where nothing has shifted.
    Raises: ValueError naming the network, if none of its normalisations stores statistics.
    """
    network, ratios = copy.deepcopy(run.network).eval(), []

    def record(name):
        def hook(module, inputs, _):
            met = inputs[0].var(dim=[axis for axis in range(inputs[0].ndim) if axis != 1])
            ratios.append((name, (met / module.running_var).median().item()))

        return hook

    for name, module in _normalisations(network).items():
        module.register_forward_hook(record(name))
    with torch.inference_mode():
        network(_batches(run, IMAGES)[0])
    table = pd.DataFrame(ratios, columns=["batch normalisation", "met / stored"])
    return table.set_index("batch normalisation").round(2)


def remeasure(run):
    """Measure the statistics of every batch normalisation anew, with dropout off; no weight changes.

    Returns: DataFrame with the accuracy on training and test images, in percent, as trained and measured anew.
    Raises: as `variance_shift`.
    """
    network = copy.deepcopy(run.network).eval()
    for module in _normalisations(network).values():
        module.reset_running_stats()
        module.momentum = None  # a plain average over the batches to come
        module.train()
    with torch.no_grad():
        for images in _batches(run, BATCH):
            network(images)
    rows = {"as trained": run.network, "measured anew": network}
    device = next(network.parameters()).device
    splits = {"clean train, %": run.digits.train.first(IMAGES), "test, %": run.digits.test}
    table = {
        column: [100 * evaluate(other, split.to(device), run.recipe).accuracy for other in rows.values()]
        for column, split in splits.items()
    }
    return pd.DataFrame(table, index=pd.Index(rows, name="statistics")).round(2)


def _normalisations(network):
    """By name, all batch normalisations that store statistics; without them, they have only those of the moment."""
    found = {name: module for name, module in network.named_modules() if isinstance(module, _BatchNorm)}
    found = {name: module for name, module in found.items() if module.running_var is not None}
    if not found:
        raise ValueError(f"{type(network).__name__} has no batch normalisation that stores statistics")
    return found


def _batches(run, size):
    device = next(run.network.parameters()).device
    return prepare(run.digits.train.first(IMAGES).to(device).images, ()).split(size)
