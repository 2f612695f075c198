"""Muon against a decomposition in double precision, torch's own for matrices, and torch's SGD for all the rest."""

import pytest
import torch
from torch import nn

import model
from lab.training.muon import Muon, orthogonalise
from lab.training.recipe import Recipe


@pytest.mark.parametrize("shape", [(7, 7), (5, 12), (24, 8), (1, 6)])
def test_orthogonalise_keeps_directions_and_evens_out_singular_values(shape):
    torch.manual_seed(0)
    matrix = torch.randn(shape, dtype=torch.float64)
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    values = values / values.norm()
    for _ in range(5):
        values = 3.4445 * values - 4.775 * values**3 + 2.0315 * values**5
    expected = left * values @ right * max(1, shape[0] / shape[1]) ** 0.5
    torch.testing.assert_close(orthogonalise(matrix), expected)
    assert ((values > 0.68) & (values < 1.16)).all()


def test_steps_of_a_matrix_are_those_of_torch():
    if not hasattr(torch.optim, "Muon"):
        pytest.skip("torch has Muon since 2.9")
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(6, 9, 1, bias=False), nn.Conv2d(9, 4, 1, bias=False))
    weight = network[0].weight
    twin = nn.Parameter(weight.detach().view(9, 6).clone())
    ours = Muon(network, lr=0.1, momentum=0.9, weight_decay=0.0)
    theirs = torch.optim.Muon([twin], lr=0.1, momentum=0.9, weight_decay=0.0)
    for _ in range(5):
        before = weight.detach().clone()
        weight.grad = torch.randn(9, 6, 1, 1)
        twin.grad = weight.grad.view(9, 6).clone()
        ours.step()
        theirs.step()
        assert (weight - before).norm() > 0.1
        torch.testing.assert_close(weight.view(9, 6), twin, rtol=0, atol=5e-3)  # theirs adds up in bfloat16
        twin.data = weight.detach().view(9, 6).clone()


def test_what_is_no_matrix_takes_the_steps_of_sgd():
    networks = [model.DeepSeparable(4, 6, 7) for _ in range(2)]
    networks[1].load_state_dict(networks[0].state_dict())
    settings = {"learning_rate": 0.1, "weight_decay": 0.01, "nesterov": True, "network": model.DeepSeparable}
    ours, theirs = (
        Recipe(optimizer=name, **settings).build_optimizer(network)
        for name, network in zip(("Muon", "SGD"), networks, strict=True)
    )
    others, matrices = (group["params"] for group in ours.param_groups)
    pointwise = [module.weight for module in networks[0].modules() if is_pointwise(module)]
    assert [id(weight) for weight in matrices] == [id(weight) for weight in pointwise[:-1]]  # the last gives classes
    for _ in range(3):
        for mine, twin in zip(networks[0].parameters(), networks[1].parameters(), strict=True):
            mine.grad = torch.randn_like(mine)
            twin.grad = mine.grad.clone()
        ours.step()
        theirs.step()
    plain = {id(weight) for weight in others}
    for mine, twin in zip(networks[0].parameters(), networks[1].parameters(), strict=True):
        assert torch.allclose(mine, twin, rtol=1e-5, atol=1e-6) == (id(mine) in plain)


def is_pointwise(module):
    return isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1)


def test_it_has_nesterovs_momentum_or_none_at_all():
    for settings in ({}, {"momentum": 0.0}):
        with pytest.raises(ValueError, match="optimizer='Muon'"):
            Recipe(network=model.DeepSeparable, optimizer="Muon", **settings)
