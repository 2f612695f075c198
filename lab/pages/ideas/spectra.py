"""In how many directions a step moves the weights of a 1x1 convolution: the singular values of the step."""

import matplotlib.pyplot as plt
import torch
from torch.nn import functional as F

from lab.pages.ideas import at_rest, by_what_it_sees
from lab.pages.picture import finish, listed
from lab.training.loop import prepare
from lab.training.muon import Muon, orthogonalise

MOST = 0.9  # of a gradient's squares


def gradients(network, split):
    """Gradient of the mean loss for every weight that Muon makes orthogonal steps of, whatever trained the network.

    Without dropout and distortions; normalisations use the statistics of the images. The network stays as it was.
    Returns: a list of float32 (out channels, in channels). Raises: ValueError naming a network without such weights.
    """
    network = by_what_it_sees(at_rest(network))
    groups = Muon(network, lr=0.0, momentum=0.0, weight_decay=0.0).param_groups
    matrices = [weight for group in groups if group["orthogonal"] for weight in group["params"]]
    if not matrices:
        raise ValueError(
            f"{type(network).__name__} has no 1x1 convolution in front of its last layer: Muon is SGD there"
        )
    F.cross_entropy(network(prepare(split.images, ())), split.labels).backward()
    return [weight.grad.flatten(1) for weight in matrices]


def directions_of_most(sizes, share=MOST):
    """How many of the singular values, in falling order, hold this share of the sum of their squares."""
    held = sizes.square().cumsum(0) / sizes.square().sum()
    return int((held < share).sum()) + 1


def plot_spectra(networks, split):
    """Draw the singular values of the steps that SGD and Muon take from the same gradient, a panel per network.

    A line per 1x1 convolution, each relative to its largest value. SGD steps along the gradient, Muon along the matrix
    that its iteration makes of it; momentum is left out.

    Args:
        networks: by name; see `untrained`.
        split: the images of the gradient.

    Raises: as `gradients`.
    """
    figure, axes = plt.subplots(1, len(networks), figsize=(3.4 * len(networks), 2.8), sharey=True, squeeze=False)
    said, large = [], []
    for axis, (name, network) in zip(axes[0], networks.items(), strict=True):
        plain = gradients(network, split)
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
