"""Pictures of the ideas: each file measures something in trained networks and draws it."""

import copy

from torch.nn.modules.batchnorm import _BatchNorm


def at_rest(network):
    """A copy to look at: on the CPU, in eval mode; the network stays where and as it is."""
    return copy.deepcopy(network).cpu().eval()


def by_what_it_sees(network):
    """The same network, whose normalisations use the statistics of the images they get, not stored ones."""
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            module.track_running_stats, module.running_mean, module.running_var = False, None, None
    return network
