"""Networks written in one line against the same networks written out."""

import pytest
import torch
from torch import nn

from lab.search.notation import Notation
from lab.tracing.folding import stored_parameters


def count(network):
    return sum(weight.numel() for weight in network.parameters())


def written_out():
    """c4 s6p M r5 G"""
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU()),
        nn.Sequential(
            nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, groups=4, bias=False), nn.Conv2d(4, 6, 1, bias=False)),
            nn.BatchNorm2d(6),
            nn.ReLU(),
        ),
        nn.MaxPool2d(2),
        nn.Sequential(nn.Conv2d(6, 5, 1, bias=False), nn.BatchNorm2d(5), nn.ReLU()),
        nn.AdaptiveAvgPool2d(1),
        nn.Conv2d(5, 10, 1, bias=False),
        nn.Flatten(),
    )


def test_words_are_layers():
    images = torch.rand(3, 1, 28, 28)
    network, twin = Notation("c4 s6p M r5 G").eval(), written_out().eval()
    twin.load_state_dict(network.state_dict())
    assert torch.equal(network(images), twin(images))


def test_marks_behind_a_word():
    images = torch.rand(3, 1, 28, 28)
    for layers, more in {
        "c4 c4p M c4 G": 0,
        "c4 c4p M c4= G": -144,  # the same 3x3x4x4 weights again, with a normalisation of its own
        "c4 c4pe M c4 G": 4 * 2 + 2 + 2 * 4 + 4,
        "c4 c4p+ M c4 G": 0,
    }.items():
        network = Notation(layers)
        assert count(network) == count(Notation("c4 c4p M c4 G")) + more
        assert network(images).shape == (3, 10)
    plain, doubled = Notation("c4 s6 r5 G"), Notation("c4 s6x r5x G")
    assert count(doubled) == count(plain) + (4 * 12 + 12 * 6 - 4 * 6) + (6 * 10 + 10 * 5 - 6 * 5)
    assert stored_parameters(doubled) == stored_parameters(plain)
    halves = Notation("c4 s4p s4p~ s4~ G")
    (first, _, _), (second, _, _), (third, _, _) = list(halves)[1:4]
    assert first[1] is second[1] is third[1]  # one 1x1
    assert len({id(unit[0]) for unit in (first, second, third)}) == 3
    assert (second[0].padding, third[0].padding) == ((1, 1), (0, 0))
    assert count(halves) == count(Notation("c4 s4p s4p s4 G")) - 2 * 4 * 4
    network = Notation("c4 c4p+ G").eval()
    nn.init.zeros_(network[1].inner[0].weight)
    maps = network[0](images)
    assert torch.equal(network[1](maps), maps)  # nothing is added


def test_poolings_of_a_bright_pixel():
    """Max pooling sees it whole wherever it lies; the smooth one tells how it lies between two places."""
    images = torch.zeros(2, 1, 28, 28)
    images[0, :, 8, 8] = images[1, :, 9, 9] = 1
    pooled = {word: Notation(f"c4 {word} G")[1](images) for word in "MAB"}
    largest = {word: maps.amax((1, 2, 3)).tolist() for word, maps in pooled.items()}
    assert largest == {"M": [1, 1], "A": [0.25, 0.25], "B": [0.25, 1]}
    assert pooled["B"].sum((1, 2, 3)).tolist() == [1, 1]


@pytest.mark.parametrize(
    "layers",
    [
        "c4 x3 G",
        "c4",
        "c4 c G",
        "M4 G",
        "",
        "c4= G",
        "c4 c4 c6= G",
        "c4 s4 c4= G",
        "c4 c4= G",
        "c4 c4 c4~ G",
        "c4 s8 s8~ G",
        "c4x G",
        "c4 s4 s4x~ G",
    ],
)
def test_what_cannot_be_read_is_named(layers):
    with pytest.raises(ValueError, match="layers="):
        Notation(layers)
