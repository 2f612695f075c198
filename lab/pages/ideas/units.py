"""Which digits excite a channel most."""

import torch
from torch import nn

from lab.pages.ideas import at_rest
from lab.pages.plots import plot_groups
from lab.training.loop import prepare


def exciting_images(network, split, *, layer=-1, count=8):
    """The images to which each channel of a convolution answers most strongly, by its highest value anywhere.

    Args:
        layer: which convolution of the network, by its place; -1 is the last.

    Returns: indices, int64 (channels, count).
    """
    network, met = at_rest(network), []
    module = [module for module in network.modules() if isinstance(module, nn.Conv2d)][layer]
    module.register_forward_hook(lambda module, inputs, made: met.append(made.amax(dim=(2, 3))))
    with torch.inference_mode():
        for images in split.images.split(500):
            network(prepare(images, ()))
    return torch.cat(met).topk(count, dim=0).indices.T


def plot_units(network, split, *, layer=-1, channels=6, count=10):
    """Draw, for the first channels of a convolution, the test digits that excite them most, with their labels."""
    found = exciting_images(network, split, layer=layer, count=count)[:channels].tolist()
    groups = {
        f"channel {number}": (split.images[images], [f"{split.labels[image]}" for image in images])
        for number, images in enumerate(found)
    }
    return plot_groups(groups, columns=count, what=f"The {count} test digits that excite each channel most")
