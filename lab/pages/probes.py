"""Looks at networks apart from training: statistics and signals in them, their cost, and their mistakes."""

import copy
from dataclasses import dataclass

import pandas as pd
import torch
from torch.utils.flop_counter import FlopCounterMode

from lab.tracing.acting import blank_images, undisturbed
from lab.training.data import CLASSES
from lab.training.loop import evaluate, measure_anew, prepare
from lab.training.statistics import normalisations

IMAGES = 10_000


def variance_shift(run):
    """Compare, for every batch normalisation, the variance it has stored with the one it meets in eval mode.

    Dropout keeps the mean of an activation and raises its variance. Batch normalisation after it stores the raised
    one, and divides by it in eval mode too, when nothing is dropped any more. Source: Li et al. 2018, "Understanding
    the disharmony between dropout and batch normalization by variance shift".

    Args:
        run: from `fit`; its first 10,000 training images are used.

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

    for name, module in normalisations(network).items():
        module.register_forward_hook(record(name))
    with torch.inference_mode():
        device = next(network.parameters()).device
        network(prepare(run.digits.train.first(IMAGES).to(device).images, ()))
    table = pd.DataFrame(ratios, columns=["batch normalisation", "met / stored"])
    return table.set_index("batch normalisation").round(2)


def remeasure(run):
    """Measure the statistics of every batch normalisation anew, with dropout off; no weight changes.

    Returns: DataFrame with the accuracy on training and test images, in percent, as trained and measured anew.
    Raises: as `variance_shift`.
    """
    device = next(run.network.parameters()).device
    anew = measure_anew(run.network, run.recipe, run.digits.train.first(IMAGES).to(device))
    rows = {"as trained": run.network, "measured anew": anew}
    splits = {"clean train, %": run.digits.train.first(IMAGES), "test, %": run.digits.test}
    table = {
        column: [
            100 * evaluate(other, split.to(device), run.recipe, infer=run.infer).accuracy for other in rows.values()
        ]
        for column, split in splits.items()
    }
    return pd.DataFrame(table, index=pd.Index(rows, name="statistics")).round(2)


def multiply_accumulates(network):
    """Products that the convolutions and linear layers of a network add up for one 28x28 image.

    Torch's flop counter counts a multiplication and an addition for each, so its count is halved. It counts two
    images, in eval mode; the network stays as it was.
    """
    with undisturbed(network):
        images = blank_images(network)
        with FlopCounterMode(display=False) as counter:
            network(images)
    return counter.get_total_flops() // 2 // len(images)


@dataclass(frozen=True, repr=False)
class Mistakes:
    """Counts of true and predicted digits, int64 (10, 10), and the wrong images, surest first, with captions."""

    matrix: torch.Tensor
    images: torch.Tensor
    captions: list[str]


def find_mistakes(run):
    """Collect what the network of a finished run gets wrong on the test set."""
    split = run.digits.test
    sureness, predictions = run.predict_test().max(dim=1)
    matrix = torch.bincount(split.labels * CLASSES + predictions, minlength=CLASSES**2).view(CLASSES, CLASSES)
    wrong = torch.nonzero(predictions != split.labels).flatten()
    wrong = wrong[sureness[wrong].argsort(descending=True)]
    captions = [f"{split.labels[i]} → {predictions[i]}  {100 * sureness[i]:.0f} %" for i in wrong]
    return Mistakes(matrix, split.images[wrong], captions)
