"""One value over many dropout masks, and what the next batch normalisation makes of them."""

import matplotlib.pyplot as plt
import torch
from matplotlib.ticker import LogLocator
from torch import nn

from lab.pages.ideas import at_rest
from lab.pages.picture import finish
from lab.training.loop import prepare
from lab.training.statistics import normalisations

MASKS = 500


def behind_masks(network, image, masks=MASKS):
    """What enters each batch normalisation for one image: under many dropout masks, and without dropout.

    Args:
        image: grey levels, uint8 (1, 28, 28).

    Returns: by name of the normalisation, values (masks, channels, height, width) and (channels, height, width).
    Raises: ValueError naming the network, without dropout or without a normalisation that stores statistics.
    """
    network, met = at_rest(network), {}
    dropouts = [module for module in network.modules() if isinstance(module, nn.Dropout)]
    if not dropouts:
        raise ValueError(f"{type(network).__name__} has no dropout: there are no masks to look at")
    for name, module in normalisations(network).items():
        module.register_forward_pre_hook(lambda module, inputs, name=name: met.setdefault(name, []).append(inputs[0]))
    with torch.random.fork_rng(devices=[]), torch.inference_mode():
        torch.manual_seed(0)
        network(prepare(image[None], ()))
        for dropout in dropouts:
            dropout.train()
        network(prepare(image[None], ()).expand(masks, -1, -1, -1))
    return {name: (many, one[0]) for name, (one, many) in met.items()}


def plot_masks(network, split):
    """Draw what dropout does to one value, and to the variances that batch normalisations store.

    Left, the value that varies most over masks, among those that enter the last normalisation for the first image: its
    histogram, its mean, and the value without dropout. Right, for every channel of every normalisation the variance
    that is stored against the one met without dropout.

    Raises: as `behind_masks`.
    """
    found = behind_masks(network, split.images[0])
    name = list(found)[-1]
    many, one = found[name]
    place = many.var(dim=0).argmax().item()
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.5, 3.3))
    values, alone = many.flatten(1)[:, place], one.flatten()[place].item()
    left.hist(values.numpy(), bins=30, color="0.8")
    left.axvline(values.mean().item(), color="C0", label="mean over the masks")
    left.axvline(alone, color="C1", linestyle="--", label="without dropout")
    left.set(xlabel="one value, the first test image", ylabel=f"masks, of {len(values)}")
    left.legend(fontsize=8)
    ratio = _draw_variances(right, network, split)
    words = f"One value over {len(values)} dropout masks: {values.mean():.2f} on average, standard deviation "
    words += f"{values.std():.2f}; {alone:.2f} without dropout. Variances met without dropout are {ratio:.2f} times "
    return finish(figure, f"{words}those stored, in the median over all channels")


def _draw_variances(axis, network, split):
    """A point per channel, lighter in later layers; returns the median of met over stored."""
    network, met = at_rest(network), {}
    for name, module in normalisations(network).items():
        module.register_forward_pre_hook(
            lambda module, inputs, name=name: met.update({name: inputs[0].var(dim=(0, 2, 3))})
        )
    with torch.inference_mode():
        network(prepare(split.images, ()))
    stored = {name: module.running_var for name, module in normalisations(network).items()}
    ends_of_network = {0: "first layer", len(met) - 1: "last layer"}
    for position, (name, variances) in enumerate(met.items()):
        colour = plt.get_cmap("viridis")(position / len(met))
        axis.scatter(variances, stored[name], s=14, color=colour, label=ends_of_network.get(position))
    axis.legend(fontsize=8)
    ends = [min(map(torch.min, met.values())).item(), max(map(torch.max, met.values())).item()]
    axis.plot(ends, ends, color="0.5", linestyle="--", linewidth=1)
    axis.set(xscale="log", yscale="log", xlabel="variance met without dropout", ylabel="variance stored")
    for one in (axis.xaxis, axis.yaxis):
        one.set_major_locator(LogLocator(subs=(1, 2, 5)))
        one.set_major_formatter("{x:g}")
        one.set_minor_formatter("")
    return torch.cat([met[name] / stored[name] for name in met]).median().item()
