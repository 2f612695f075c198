"""A look at a network at work that leaves it unchanged: which of its modules act, and in which order."""

from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.parameter import is_lazy

PARTICULAR = {nn.modules.conv._ConvNd: "in_channels", nn.modules.batchnorm._BatchNorm: "num_features"}


class _Reached(Exception):
    """The first layer is about to act; its argument is the number of channels that it expects."""


def refuse_lazy(network):
    """Raise ValueError naming network and layer, if a layer of it has no weights before it has seen an image."""
    for name, module in network.named_modules():
        if any(map(is_lazy, [*module.parameters(recurse=False), *module.buffers(recurse=False)])):
            raise ValueError(
                f"{type(network).__name__}: layer {name!r} ({type(module).__name__}) is lazy, without weights until "
                f"it has seen an image; give its number of input channels"
            )


@contextmanager
def undisturbed(network):
    """Eval mode, without gradients; afterwards the network's modes and torch's random numbers are as they were.

    Raises: ValueError naming the network, for any other error that running it raises; as `refuse_lazy`.
    """
    refuse_lazy(network)
    modes = {module: module.training for module in network.modules()}
    device = next(network.parameters(), torch.empty(0)).device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), torch.no_grad():
        try:
            network.eval()
            yield
        except ValueError:
            raise
        except Exception as error:
            raise ValueError(f"{type(network).__name__} cannot be used on blank images: {error}") from error
        finally:
            for module, mode in modes.items():
                module.training = mode


def blank_images(network, image_size=28):
    """Two images of zeros for an undisturbed network, of its type and on its device.

    Returns: float (2, C, image_size, image_size), with C as the first convolution or normalisation that acts expects
        it; 1 if there is none. Two, so that an operation that mixes images or drops their dimension shows.
    """
    like = next(network.parameters(), torch.empty(0))

    def stop(module, inputs):
        if inputs and inputs[0].shape[1] == 1:
            raise _Reached(next(getattr(module, size) for kind, size in PARTICULAR.items() if isinstance(module, kind)))

    particular = [module for module in network.modules() if isinstance(module, tuple(PARTICULAR))]
    hooks = [module.register_forward_pre_hook(stop) for module in particular]
    images = like.new_zeros(2, 1, image_size, image_size)
    try:
        network(images.clone())
    except _Reached as reached:
        return images.expand(-1, *reached.args, -1, -1).clone()
    finally:
        for hook in hooks:
            hook.remove()
    return images


def acting_modules(network, image_size=28):
    """Put blank images through the network, undisturbed.

    Returns: list of (name, module, output), as often as a module acts, in the order in which they finish.
    Raises: as `undisturbed`.
    """
    acts = []

    def note(name):
        return lambda module, _, output: acts.append((name, module, output))

    with undisturbed(network):
        images = blank_images(network, image_size)
        hooks = [module.register_forward_hook(note(name)) for name, module in network.named_modules()]
        try:
            network(images)
        finally:
            for hook in hooks:
                hook.remove()
    return acts
