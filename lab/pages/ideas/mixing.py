"""What a 1x1 convolution does: every output map is a weighted sum of the input maps."""

import matplotlib.pyplot as plt
import seaborn as sns
import torch
from torch import nn

from lab.pages.ideas import at_rest
from lab.pages.picture import Picture
from lab.training.loop import prepare

SHOWN = 8  # maps on either side


def plot_mixing(network, image, *, shown=SHOWN):
    """Draw a network's first 1x1 convolution: maps that it reads, its weights as a matrix, maps that it makes.

    Of the maps those with the strongest values are drawn, with their numbers.

    Args:
        image: grey levels, uint8 (1, 28, 28).

    Raises: ValueError naming the network, if no 1x1 convolution reads maps of more than one pixel.
    """
    network, met = at_rest(network), []
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1):
            module.register_forward_hook(lambda module, inputs, made: met.append((module, inputs[0][0], made[0])))
    with torch.inference_mode():
        network(prepare(image[None], ()))
    found = [each for each in met if each[1].shape[-1] > 1]
    if not found:
        raise ValueError(f"{type(network).__name__} has no 1x1 convolution in front of its pooling")
    module, read, made = found[0]
    matrix = module.weight.detach().flatten(1)
    figure = plt.figure(figsize=(9, 3.2), layout="constrained")
    left, middle, right = figure.subfigures(1, 3, width_ratios=(1, 1.5, 1))
    _draw_maps(left, read, shown, "maps before it")
    axis = middle.subplots()
    limit = matrix.abs().max().item()
    sns.heatmap(matrix.numpy(), cmap="RdBu", vmin=-limit, vmax=limit, square=True, cbar=False, ax=axis)
    axis.set(xlabel="map before", ylabel="map behind", title=f"{matrix.numel():,} weights")
    axis.tick_params(labelsize=6, length=0)
    _draw_maps(right, made, shown, "maps behind it")
    row, column = divmod(matrix.abs().argmax().item(), matrix.shape[1])
    words = f"A 1x1 convolution of {matrix.numel()} weights makes {len(matrix)} maps of {matrix.shape[1]}. "
    return Picture(figure, f"{words}The largest, {matrix[row, column]:+.2f}, takes map {column} into map {row}")


def _draw_maps(part, maps, shown, title):
    part.suptitle(title, fontsize=9)
    strongest = sorted(maps.abs().amax(dim=(1, 2)).topk(min(shown, len(maps))).indices.tolist())
    limit = maps.abs().max().item()
    for axis, number in zip(part.subplots(-(-shown // 2), 2).flat, strongest, strict=False):
        axis.imshow(maps[number].numpy(), cmap="RdBu", vmin=-limit, vmax=limit)
        axis.set_title(number, fontsize=7, pad=1)
    for axis in part.axes:
        axis.axis("off")
