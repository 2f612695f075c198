"""Where in a digit the evidence for each class lies."""

import matplotlib.pyplot as plt
import torch
from torch import nn

from lab.pages.ideas import at_rest
from lab.pages.picture import Picture
from lab.training.data import CLASSES
from lab.training.loop import prepare

READERS = (nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.Conv2d)


def class_maps(network, images):
    """The map of every class: what each place adds to its logit, as the average over places is all that counts.

    In front of the last layer that reads several places at once, an average pooling or a convolution, a place holds one
    number per channel. They are weighted by the gradient of the logit. Where layers from there on are linear, or ReLUs
    between linear layers, the average of a map is the logit but for what biases and stored means add; where there are
    none, it is the logit itself.

    Args:
        images: grey levels, uint8 (N, 1, 28, 28).

    Returns: maps, float32 (N, 10, height, width), and logits, float32 (N, 10).
    Raises: ValueError naming the network, if no average pooling or convolution in it reads all that is left.
    Sources: Zhou et al. 2016, "Learning deep features for discriminative localization"; Selvaraju et al. 2017,
        "Grad-CAM".
    """
    network, met = at_rest(network), []
    for module in network.modules():
        if isinstance(module, READERS):
            module.register_forward_hook(lambda module, inputs, made: met.append((inputs[0], made)))
    logits = network(prepare(images, ()).requires_grad_())
    met = [read for read, made in met if read.shape[2:] != made.shape[2:] == (1, 1)]
    if not met:
        raise ValueError(
            f"no layer of {type(network).__name__} turns a map into one place: there are no maps to look at"
        )
    features, maps = met[-1], []
    for digit in range(CLASSES):
        (gradient,) = torch.autograd.grad(logits[:, digit].sum(), features, retain_graph=True)
        maps.append((gradient * features).sum(dim=1) * features[0, 0].numel())
    return torch.stack(maps, dim=1).detach(), logits.detach()


def plot_class_maps(network, split):
    """Draw the ten class maps of two digits, the first that the network reads right and the first that it does not.

    Beside them the average of each map. Blue speaks for a class, red against it.

    Args:
        split: images and labels; those of the test set.
    """
    shown = _first_right_and_wrong(network, split)
    images, labels = split.images[shown], split.labels[shown]
    maps, logits = class_maps(network, images)
    figure = plt.figure(figsize=(8.5, 2.3 * len(images)), layout="constrained")
    parts, sentences = figure.subfigures(len(images), 1, squeeze=False)[:, 0], []
    for part, image, label, said, ten in zip(
        parts, images, labels.tolist(), logits.argmax(1).tolist(), maps, strict=True
    ):
        averages, limit = ten.mean(dim=(1, 2)).tolist(), ten.abs().max().item()
        digit, middle, right = part.subfigures(1, 3, width_ratios=(1.6, 5, 2.4))
        axis = digit.subplots()
        axis.imshow(image[0].numpy(), cmap="gray_r")
        title = f"a {label}" + ("" if said == label else f", read as {said}")
        axis.set_title(title, fontsize=9)
        order = sorted(range(CLASSES), key=averages.__getitem__, reverse=True)
        sentences.append(f"{title}: " + ", ".join(f"{number} {averages[number]:+.1f}" for number in order[:3]))
        axis.axis("off")
        for number, (axis, one) in enumerate(zip(middle.subplots(2, 5).flat, ten, strict=True)):
            axis.imshow(one.numpy(), cmap="RdBu", vmin=-limit, vmax=limit)
            axis.set_title(number, fontsize=8, pad=2, fontweight="bold" if number in (said, label) else "normal")
            axis.axis("off")
        bars = right.subplots()
        colours = ["C3" if number == said != label else "C0" if number == label else "0.7" for number in range(CLASSES)]
        bars.bar(range(CLASSES), averages, color=colours)
        bars.set_xticks(range(CLASSES))
        bars.tick_params(labelsize=7)
        bars.set_title("average of each map", fontsize=8)
        bars.spines[["top", "right"]].set_visible(False)
    return Picture(figure, f"Class maps, and the three highest averages of {'; '.join(sentences)}")


def _first_right_and_wrong(network, split):
    """Indices of the two; only one if the network reads all of them right, or all wrong."""
    network, is_right = at_rest(network), []
    with torch.inference_mode():
        for images, labels in zip(split.images.split(500), split.labels.split(500), strict=True):
            is_right += (network(prepare(images, ())).argmax(1) == labels).tolist()
            if len({*is_right}) == 2:
                break
    return sorted({is_right.index(value) for value in {*is_right}}, key=lambda place: not is_right[place])
