"""Pictures of the ideas: each file measures something in trained networks and draws it."""

import copy


def at_rest(network):
    """A copy to look at: on the CPU, in eval mode; the network stays where and as it is."""
    return copy.deepcopy(network).cpu().eval()
