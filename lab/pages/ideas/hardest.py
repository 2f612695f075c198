"""Where the loss is: a few images carry most of it."""

import matplotlib.pyplot as plt
import torch
from torch.nn import functional as F

from lab.pages.ideas import at_rest
from lab.pages.picture import Picture, listed
from lab.training.loop import prepare

ROWS, COLUMNS = 3, 6  # of images


def losses_of(network, split):
    """Logits (N, 10) and loss of every image in nats (N,), in eval mode, undistorted; the network stays as it was."""
    network = at_rest(network)
    with torch.no_grad():
        parts = [network(prepare(images, ())) for images in split.images.split(500)]
    logits = torch.cat(parts)
    return logits, F.cross_entropy(logits, split.labels, reduction="none")


def carried_by(losses, share):
    """Which part of the sum of all losses the largest of them hold, `share` of their number."""
    largest = losses.sort(descending=True).values[: round(share * len(losses))]
    return (largest.sum() / losses.sum()).item()


def plot_hardest(networks, split, *, share=0.1):
    """Draw how much of the loss the hardest images carry, and the hardest of all for the last network.

    Args:
        networks: by name; see `Run.network`.
        split: the images, training images as a rule.
        share: of the images, marked in the figure.
    """
    figure = plt.figure(figsize=(7.6, 2.9), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(1, 1.15))
    axis, said = left.subplots(), []
    for name, network in networks.items():
        logits, losses = losses_of(network, split)
        held = losses.sort(descending=True).values.cumsum(0) / losses.sum()
        axis.plot(100 * torch.arange(1, len(held) + 1) / len(held), 100 * held, label=name)
        said.append(f"{100 * carried_by(losses, share):.1f} % of that of {name}")
    axis.axvline(100 * share, color="0.6", linestyle="--", linewidth=1)
    axis.set(xscale="log", xlabel="images, the hardest first, %", ylabel="of all loss, %", ylim=(0, 102))
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.legend(fontsize=8)
    axis.spines[["top", "right"]].set_visible(False)
    hardest = losses.argsort(descending=True)[: ROWS * COLUMNS]
    for place, index in zip(right.subplots(ROWS, COLUMNS).flat, hardest.tolist(), strict=True):
        place.imshow(split.images[index, 0].numpy(), cmap="gray_r")
        place.set_title(f"{int(split.labels[index])} as {int(logits[index].argmax())}", fontsize=7, pad=2)
        place.set_axis_off()
    words = f"The hardest {share:.0%} of {len(split):,} images carry {listed(said)}. Beside it the {ROWS * COLUMNS}"
    return Picture(figure, f"{words} hardest of all for {name}, with what they are and what the network says")
