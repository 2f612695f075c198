"""In how many directions a step moves the weights of a 1x1 convolution: the singular values of the step."""

import matplotlib.pyplot as plt
import torch

from lab.pages.ideas import at_rest, by_what_it_sees
from lab.pages.picture import finish, listed
from lab.training.loop import LOSS_FUNCTIONS, prepare
from lab.training.muon import orthogonalise

MOST = 0.9  # of a gradient's squares


def gradients(network, split, recipe):
    """Gradient of the mean loss for every weight that a recipe with Muon makes orthogonal steps of.

    Without dropout and distortions; normalisations use the statistics of the images. The network stays as it was.
    Returns: a list of float32 (out channels, in channels).
    """
    network = by_what_it_sees(at_rest(network))
    groups = recipe.build_optimizer(network).param_groups
    LOSS_FUNCTIONS[recipe.loss](network(prepare(split.images, ())), split.labels).backward()
    return [weight.grad.flatten(1) for group in groups if group["orthogonal"] for weight in group["params"]]


def directions_of_most(sizes, share=MOST):
    """How many of the singular values, in falling order, hold this share of the sum of their squares."""
    held = sizes.square().cumsum(0) / sizes.square().sum()
    return int((held < share).sum()) + 1


def plot_spectra(networks, split, recipe):
    """Draw the singular values of the steps that SGD and Muon take from the same gradient, a panel per network.

    A line per 1x1 convolution, each relative to its largest value. SGD steps along the gradient, Muon along the matrix
    that its iteration makes of it; momentum is left out.

    Args:
        networks: by name; see `untrained`.
        split: the images of the gradient.
        recipe: one with Muon.
    """
    figure, axes = plt.subplots(1, len(networks), figsize=(3.4 * len(networks), 2.8), sharey=True, squeeze=False)
    said, large = [], []
    for axis, (name, network) in zip(axes[0], networks.items(), strict=True):
        plain = gradients(network, split, recipe)
        steps = {"SGD": plain, "Muon": [*map(orthogonalise, plain)]}
        sizes = {label: [*map(torch.linalg.svdvals, matrices)] for label, matrices in steps.items()}
        for colour, (label, lines) in zip(("C0", "C1"), sizes.items(), strict=True):
            for place, line in enumerate(lines):
                axis.plot(range(1, len(line) + 1), line / line[0], color=colour, label=None if place else label)
        said.append(f"{name} " + ", ".join(f"{directions_of_most(line)} of {len(line)}" for line in sizes["SGD"]))
        large += [line > line[0] / 2 for line in sizes["Muon"]]
        axis.set(title=name, xlabel="singular value, in falling order")
    axes[0, 0].set_ylabel("relative to the largest")
    axes[0, -1].legend(fontsize=8)
    large = torch.cat(large)
    words = f"Directions that hold {MOST:.0%} of the gradient's squares in each 1x1 convolution: {listed(said)}. "
    return finish(figure, f"{words}Muon's step is above half of its largest in {int(large.sum())} of {len(large)}")
