"""Muon: steps of steepest descent for weights that are matrices."""

import torch
from torch import nn

from lab.tracing.acting import acting_modules

COEFFICIENTS = (3.4445, -4.775, 2.0315)  # of the polynomial that draws singular values towards 1
ROUNDS = 5


class Muon(torch.optim.Optimizer):
    """SGD with Nesterov's momentum that makes every step of a 1x1 convolution orthogonal.

    A gradient tends to have a few large singular values; the directions of the small ones then learn slowly. An
    orthogonal step moves in all of them alike. Any weight that is not a channel-mixing matrix takes the step of
    torch.optim.SGD, at the same rate, and so does the layer that gives the classes: the last convolution or linear
    layer to act, wherever the network defines it.

    Args:
        network: all its parameters are trained.
        lr, momentum, weight_decay: as for torch.optim.SGD.

    Source: Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks".
    """

    def __init__(self, network, lr, momentum, weight_decay):
        matrices = _hidden_matrices(network)
        chosen = set(matrices)
        others = [parameter for parameter in network.parameters() if parameter not in chosen]
        groups = [{"params": others, "orthogonal": False}, {"params": matrices, "orthogonal": True}]
        super().__init__(groups, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                gradient = weight.grad + group["weight_decay"] * weight
                velocity = self.state[weight].setdefault("momentum_buffer", torch.zeros_like(weight))
                velocity.mul_(group["momentum"]).add_(gradient)
                step = gradient + group["momentum"] * velocity
                if group["orthogonal"]:
                    step = orthogonalise(step.flatten(1)).view_as(weight)
                weight.sub_(group["lr"] * step)


def _hidden_matrices(network):
    """Weights of all 1x1 convolutions in the network's own order, each once; except that of the last layer to act."""
    layers = [module for _, module, _ in acting_modules(network) if isinstance(module, nn.Conv2d | nn.Linear)]
    head = layers[-1].weight if layers else None
    parameters = set(network.parameters())  # a weight that is computed from others is not one
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d) and module.groups == 1]
    weights = dict.fromkeys(module.weight for module in convolutions if module.weight.shape[2:] == (1, 1))
    return [weight for weight in weights if weight is not head and weight in parameters]


def orthogonalise(matrix):
    """The matrix (rows, columns) with its singular values near 1, between 0.68 and 1.16 for all but the very smallest.

    Tall ones are scaled up by the root of rows / columns, so that a step changes each output by as much.
    The Newton-Schulz iteration needs only products, no decomposition.
    """
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    wide = wide / (wide.norm() + 1e-7)
    first, third, fifth = COEFFICIENTS
    for _ in range(ROUNDS):
        square = wide @ wide.T
        wide = first * wide + (third * square + fifth * square @ square) @ wide
    rows, columns = matrix.shape
    result = wide if rows <= columns else wide.T
    return result * max(1, rows / columns) ** 0.5
