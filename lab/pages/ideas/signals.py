"""The values that reach each layer, before training and after it."""

import matplotlib.pyplot as plt
import torch
from torch import nn

from lab.pages.ideas import at_rest, by_what_it_sees
from lab.pages.picture import finish, listed
from lab.training.loop import prepare

BANDS = ((0.05, 0.95), (0.25, 0.75))


def untrained(recipe):
    """The network of a recipe as it begins, with seed 0; its normalisations use the statistics of what they see."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return by_what_it_sees(recipe.build_network())


def signals(network, split):
    """What enters every ReLU, and at last the logits: a list of tensors (N, channels, height, width) or (N, 10).

    In eval mode, without dropout; the network stays as it was.
    """
    network, met = at_rest(network), []
    for module in network.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
            module.register_forward_pre_hook(lambda module, inputs: met.append(inputs[0]))
    with torch.inference_mode():
        logits = network(prepare(split.images, ()))
    return [*met, logits]


def plot_signals(networks, split):
    """Draw how the values that enter the ReLUs are spread, a panel per network, layer by layer.

    The light band holds nine values of ten, the dark one half of them, the line is the median; the last layer gives
    the logits.

    Args:
        networks: by name; see `untrained`.
        split: the images to look at; 500 are plenty.
    """
    columns = 2 if len(networks) in (1, 2, 4) else 3
    rows = -(-len(networks) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(3 * columns, 2.6 * rows), squeeze=False)
    said = []
    for axis in axes.flat[len(networks) :]:
        axis.set_visible(False)
    for axis, (name, network) in zip(axes.flat, networks.items(), strict=False):
        values = [signal.flatten()[::7] for signal in signals(network, split)]
        layers = range(1, len(values) + 1)
        for low, high in BANDS:
            ends = [[value.quantile(share).item() for value in values] for share in (low, high)]
            axis.fill_between(layers, *ends, color="C0", alpha=0.3, linewidth=0)
        axis.plot(layers, [value.median().item() for value in values], color="C0", marker="o", markersize=3)
        first, last = (value.std().item() for value in (values[0], values[-1]))
        said.append(f"{name} {first:.2g} in the first layer, {last:.2g} in the last")
        axis.set_title(name, fontsize=9)
        axis.set_xlabel("layer")
        axis.xaxis.get_major_locator().set_params(integer=True)
    for axis in axes[:, 0]:
        axis.set_ylabel("what enters its ReLU")
    return finish(figure, f"Spread of what enters the ReLUs, layer by layer, as standard deviation: {listed(said)}")
