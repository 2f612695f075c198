"""What dropout does to batch normalisation: the statistics it stores while training are not those it meets afterwards.

Dropout keeps the mean of an activation and raises its variance. Batch normalisation behind it stores the raised one,
and divides by it in eval mode too, when nothing is dropped any more. Source: Li et al. 2018, "Understanding the
disharmony between dropout and batch normalization by variance shift".
"""

import copy

import pandas as pd
import torch
from torch import nn

from lab.training import evaluate, prepare

IMAGES, BATCH = 10_000, 500


def variance_shift(run):
    """Compare, for every batch normalisation, the variance it has stored with the one it meets in eval mode.

    Args:
        run: from `fit`; its first 10,000 training images are looked at.

    Returns: DataFrame indexed by module path; `met / stored` is the median over channels, 1 where nothing has shifted.
    """
    network, ratios = copy.deepcopy(run.network).eval(), {}

    def record(name):
        def hook(module, inputs, _):
            met = inputs[0].var(dim=(0, 2, 3))
            ratios[name] = (met / module.running_var).median().item()

        return hook

    for name, module in _normalisations(network).items():
        module.register_forward_hook(record(name))
    with torch.inference_mode():
        network(_batches(run, IMAGES)[0])
    return pd.DataFrame({"met / stored": ratios}).rename_axis("batch normalisation").round(2)


def remeasure(run):
    """Measure the statistics of every batch normalisation anew, with dropout off; no weight changes.

    Returns: DataFrame with the accuracy on training and test images, in percent, as trained and measured anew.
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
    return {name: module for name, module in network.named_modules() if isinstance(module, nn.BatchNorm2d)}


def _batches(run, size):
    device = next(run.network.parameters()).device
    return prepare(run.digits.train.first(IMAGES).to(device).images, ()).split(size)
