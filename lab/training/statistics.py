"""What batch normalisation stores while a network trains: the mean and variance of its inputs."""

import copy

from torch.nn.modules.batchnorm import _BatchNorm


def normalisations(network):
    """By name, all batch normalisations that store statistics; the others have only those of the batch.

    Raises: ValueError naming the network, if there is none.
    """
    found = {name: module for name, module in network.named_modules() if isinstance(module, _BatchNorm)}
    found = {name: module for name, module in found.items() if module.running_var is not None}
    if not found:
        raise ValueError(f"{type(network).__name__} has no batch normalisation that stores statistics")
    return found


def without_statistics(network):
    """A copy that averages the statistics of all batches it will be shown, with dropout off.

    Raises: as `normalisations`.
    """
    network = copy.deepcopy(network).eval()
    for module in normalisations(network).values():
        module.reset_running_stats()
        module.momentum = None  # a plain average over the batches to come
        module.train()
    return network
