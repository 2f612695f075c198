"""All weights of a small network on one picture."""

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn

from lab.pages.ideas import at_rest
from lab.pages.picture import Picture

WIDTH, GAP, ABOVE = 92, 4, 3  # of the picture in weights, between two layers, and above one for its name
DRAWN = (nn.Conv2d, nn.BatchNorm2d)
KERNELS, LEAST = 7, 12  # 3x3 ones in a row; width of a layer, for its name


def plot_every_weight(network):
    """Draw every weight of a network as a square, blue above zero, red below.

    A layer of 3x3 kernels is drawn kernel by kernel, a 1x1 layer as a matrix, its outputs as rows, and a normalisation
    as its scales above its shifts. Every layer has a colour scale of its own, up to its largest weight.
    """
    left, top, bottom, placed = 0, ABOVE, 0, []
    for block, name in _blocks(at_rest(network)):
        if left + block.shape[1] > WIDTH:
            left, top, bottom = 0, bottom + GAP + ABOVE, 0
        placed.append((left, top, block, name))
        left, bottom = left + max(block.shape[1], LEAST) + GAP, max(bottom, top + block.shape[0])
    canvas = np.full((bottom, WIDTH), np.nan)
    figure, axis = plt.subplots(figsize=(8.5, 8.5 * bottom / WIDTH))
    for left, top, block, name in placed:
        canvas[top : top + block.shape[0], left : left + block.shape[1]] = block
        axis.text(left - 0.5, top - 1, name, fontsize=7)
    axis.imshow(canvas, cmap="RdBu", vmin=-1, vmax=1, interpolation="nearest")
    axis.axis("off")
    figure.subplots_adjust(0, 0, 1, 1)
    drawn, norms = (
        sum(weight.numel() for module in _of_kind(network, *kinds) for weight in module.parameters())
        for kinds in (DRAWN, DRAWN[1:])
    )
    total = sum(weight.numel() for weight in network.parameters())
    share = f"All {total:,}" if drawn == total else f"{drawn:,} of {total:,}"
    words = f"{share} weights of a network, blue above zero, red below: {drawn - norms:,} of its convolutions, "
    return Picture(figure, f"{words}{norms:,} scales and shifts of its normalisations")


def _of_kind(network, *kinds):
    return [module for module in network.modules() if isinstance(module, kinds)]


def _blocks(network):
    """Weights of every layer in a plane, as shares of its largest one, and what they are."""
    for module in _of_kind(network, *DRAWN):
        weight = module.weight.detach()
        if isinstance(module, nn.Conv2d):
            yield _plane((weight / weight.abs().max()).numpy()), _name(weight)
            if module.bias is not None:
                bias = module.bias.detach()[None]
                yield (bias / bias.abs().max()).numpy(), f"bias: {bias.numel()}"
        else:
            both = torch.stack([weight, module.bias.detach()])
            yield (both / both.abs().max()).numpy(), f"scale, shift: {both.numel()}"


def _name(weight):
    made, read, side, _ = weight.shape
    return (
        f"{side}x{side}, {made} from {read}: {weight.numel()}"
        if read > 1
        else f"{side}x{side}, {made}: {weight.numel()}"
    )


def _plane(weight):
    """The weights (made, read, side, side) of one layer in a plane; nothing is drawn between kernels."""
    made, read, side, _ = weight.shape
    if side == 1:
        return weight[:, :, 0, 0]
    kernels, across = weight.reshape(-1, side, side), min(KERNELS, made * read)
    down = -(-len(kernels) // across)
    block = np.full((down * (side + 1) - 1, across * (side + 1) - 1), np.nan)
    for place, kernel in enumerate(kernels):
        row, column = (each * (side + 1) for each in divmod(place, across))
        block[row : row + side, column : column + side] = kernel
    return block
