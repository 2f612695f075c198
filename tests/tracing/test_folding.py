"""What is left of a network after training: the same answers from fewer numbers."""

import pytest
import torch
from torch import nn

import model
from lab.tracing.folding import fold, stored_parameters

IMAGES = torch.rand(8, 1, 28, 28, generator=torch.Generator().manual_seed(0))


def trained(network):
    """With statistics, scales and shifts as training leaves them: none is that of a fresh network."""
    generator = torch.Generator().manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values in (module.weight, module.bias, module.running_mean, module.running_var):
                values.data = 0.5 + torch.rand(values.shape, generator=generator)
    return network.eval()


@pytest.mark.parametrize(
    "network",
    [
        model.Oversized,
        model.NormedSkeleton,
        model.PooledHead,
        model.EarlyPooling,
        model.SevenConvolutions,
        model.OneByOne,
        model.WideSeparable,
        model.CroppedSeparable,
    ],
)
def test_folding_changes_no_answer(network):
    torch.manual_seed(0)
    network = trained(network()).double()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with torch.inference_mode():
        torch.testing.assert_close(fold(network)(IMAGES.double()), network(IMAGES.double()), rtol=0, atol=1e-9)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_a_folded_normalisation_leaves_one_number_per_channel():
    """By hand: 9 weights and a shift per channel, then 4 x 4 weights with a bias that takes the shift in."""
    network = nn.Sequential(
        nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)
    )
    assert sum(weight.numel() for weight in network.parameters()) == (36 + 8) + (16 + 4 + 8)
    assert stored_parameters(network) == (36 + 4) + (16 + 4)


def test_a_normalisation_behind_a_relu_stays():
    network = nn.Sequential(nn.Conv2d(1, 4, 3, bias=False), nn.ReLU(), nn.BatchNorm2d(4))
    assert stored_parameters(network) == 36 + 8
    assert [type(layer) for layer in fold(network)] == [nn.Conv2d, nn.ReLU, nn.BatchNorm2d]


@pytest.mark.parametrize("biased", [(False, False), (True, False), (False, True), (True, True)])
@pytest.mark.parametrize("size", [1, 3])
def test_a_product_of_convolutions_is_one(size, biased):
    torch.manual_seed(0)
    first = nn.Conv2d(1, 12, size, padding=size // 2, bias=biased[0])
    network = nn.Sequential(first, nn.Conv2d(12, 5, 1, bias=biased[1]), nn.BatchNorm2d(5), nn.ReLU())
    network = trained(network).double()
    folded = fold(network)
    assert [type(layer) for layer in folded] == [nn.Conv2d, nn.ReLU]
    assert stored_parameters(network) == 5 * size**2 + 5
    with torch.inference_mode():
        torch.testing.assert_close(folded(IMAGES.double()), network(IMAGES.double()), rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    "layers",
    [
        (nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 8, 1)),
        (nn.Conv2d(1, 8, 1), nn.Conv2d(8, 2, 3)),
        (nn.Conv2d(1, 8, 1), nn.Conv2d(8, 2, 1, stride=2)),
        (nn.Conv2d(1, 8, 1), nn.Conv2d(8, 2, 1, padding=1)),
        (nn.Conv2d(1, 8, 1), nn.ReLU(), nn.Conv2d(8, 2, 1)),
        (nn.Conv2d(9, 2, 3), nn.Conv2d(2, 40, 1)),
    ],
    ids=repr,
)
def test_what_is_no_product_or_would_take_more_weights_stays(layers):
    inputs = layers[0].in_channels
    network = nn.Sequential(nn.Conv2d(1, inputs, 1), nn.ReLU(), *layers) if inputs > 1 else nn.Sequential(*layers)
    assert [type(layer) for layer in fold(network)] == [type(layer) for layer in network]


class Twice(nn.Module):
    """Two branches of one layer and a sum: not what its layers do one after another."""

    def __init__(self):
        super().__init__()
        self.layer, self.norm = nn.Conv2d(1, 1, 3, padding=1), nn.BatchNorm2d(1)

    def forward(self, images):
        return self.norm(self.layer(images)) + images


class Narrowing(nn.Module):
    """Its layers do not even fit one behind the other."""

    def __init__(self):
        super().__init__()
        self.one, self.other = nn.Conv2d(1, 2, 3), nn.Conv2d(1, 3, 3)

    def forward(self, images):
        return torch.cat([self.one(images), self.other(images)], dim=1)


@pytest.mark.parametrize("network", [Twice, Narrowing])
def test_a_network_that_is_no_chain_is_named_and_not_counted(network):
    with pytest.raises(ValueError, match=f"{network.__name__} is no chain of its layers"):
        fold(network())
    assert stored_parameters(network()) is None
