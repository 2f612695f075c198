"""What a network could see of a digit, and what it looks at."""

import matplotlib.pyplot as plt
import seaborn as sns
import torch
from matplotlib.patches import Rectangle

from lab.pages.ideas import at_rest
from lab.pages.picture import finish, listed
from lab.tracing.receptive_field import trace_layers
from lab.training.loop import prepare

SHARE = 0.95  # of all gradients, which the square of an effective field holds


def effective_field(network, split):
    """How much each pixel weighs in an answer: the mean absolute gradient of the winning logit, float32 (28, 28).

    Args:
        network: images, float32 (N, 1, 28, 28), to logits (N, 10).
        split: the images to look at.

    Returns: shares, which add up to 1.
    Source: Luo et al. 2016, "Understanding the effective receptive field in deep convolutional neural networks".
    """
    images = prepare(split.images, ()).requires_grad_()
    logits = at_rest(network)(images)
    (gradient,) = torch.autograd.grad(logits.max(dim=1).values.sum(), images)
    field = gradient.abs().mean(dim=0)[0]
    return field / field.sum()


def side_of_field(field, share=SHARE):
    """Side of the smallest square around the middle that holds this share of an effective field, in pixels."""
    size = len(field)
    for side in range(size % 2, size + 1, 2):
        edge = (size - side) // 2
        if field[edge : size - edge, edge : size - edge].sum() >= share:
            return side
    return size


def plot_fields(networks, split):
    """Draw the receptive fields of all layers on a digit, and beside them what the whole network looks at.

    A row per network. Left, the squares that values in the middle of each layer's map could see; right, the effective
    field, with the square that holds 95 % of it.

    Args:
        networks: by name trained networks.
        split: images for the effective field, of which the first is shown.
    """
    figure, axes = plt.subplots(len(networks), 2, figsize=(7, 3.4 * len(networks)), squeeze=False)
    said = []
    for (squares, heat), (name, network) in zip(axes, networks.items(), strict=True):
        fields = sorted({layer.receptive_field for layer in trace_layers(network)} - {1})
        _draw_squares(squares, split.images[0, 0], fields)
        squares.set_title(f"{name}: fields of the layers, {', '.join(map(str, fields))}", fontsize=9)
        effective = effective_field(network, split)
        side = side_of_field(effective)
        heat.imshow(effective.numpy(), cmap="rocket_r")
        _draw_square(heat, side, "C0")
        heat.set_title(f"{name}: 95 % of the gradients in {side} x {side} pixels", fontsize=9)
        for axis in (squares, heat):
            axis.axis("off")
        said.append(f"{name} could see {fields[-1]} pixels, and 95 % of its gradients lie in {side} x {side}")
    return finish(figure, f"Receptive fields of all layers and effective field: {listed(said)}")


def _draw_squares(axis, image, fields):
    axis.imshow(image.numpy(), cmap="gray_r", alpha=0.6)
    for field, colour in zip(fields, sns.color_palette("flare", len(fields)), strict=True):
        _draw_square(axis, field, colour)
    reach = max(28, max(fields)) / 2 + 0.5
    axis.set(xlim=(13.5 - reach, 13.5 + reach), ylim=(13.5 + reach, 13.5 - reach))


def _draw_square(axis, side, colour):
    """A square of this side around the middle of a 28x28 image."""
    corner = 13.5 - side / 2
    axis.add_patch(Rectangle((corner, corner), side, side, fill=False, edgecolor=colour, linewidth=1.8))
