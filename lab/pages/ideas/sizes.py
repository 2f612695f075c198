"""Where the weights of a network lie, and where its work."""

import matplotlib.pyplot as plt

from lab.pages.picture import finish, listed
from lab.tracing.receptive_field import trace_layers

KINDS = {"Conv2d": "conv", "Linear": "linear"}


def plot_sizes(networks):
    """Draw the parameters and the products of every convolution and linear layer as bars, a column per network.

    Products are those of one 28x28 image. Every bar says its number.

    Args:
        networks: by name.
    """
    figure, axes = plt.subplots(2, len(networks), figsize=(4.2 * len(networks), 5), squeeze=False)
    said = []
    for column, (name, network) in zip(axes.T, networks.items(), strict=True):
        layers = [layer for layer in trace_layers(network) if layer.kind in KINDS]
        labels = [f"{place} {KINDS[layer.kind]} {layer.kernel or ''}" for place, layer in enumerate(layers, start=1)]
        weights = [layer.parameters for layer in layers]
        products = [network.get_submodule(layer.name).weight.numel() * layer.out_size**2 for layer in layers]
        for axis, numbers, title in zip(column, (weights, products), ("weights of layers", "products"), strict=True):
            bars = axis.barh(labels, numbers, color="C0")
            axis.bar_label(bars, [f"{number:,}" for number in numbers], fontsize=7, padding=2)
            axis.invert_yaxis()
            axis.tick_params(labelsize=7)
            axis.set_title(f"{name}: {title}, {sum(numbers):,}", fontsize=9)
            axis.set_xticks([])
            axis.margins(x=0.2)
        most = max(range(len(layers)), key=weights.__getitem__)
        said.append(f"{name} {sum(weights):,}, of which {weights[most]:,} in layer {most + 1} of {len(layers)}")
    return finish(figure, f"Weights of convolutions and linear layers: {listed(said)}")
