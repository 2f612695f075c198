"""Pictures of ideas: what they draw, against closed forms, sums over masks, and plain forward passes."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import model
import utils
from lab.pages.ideas.class_maps import class_maps
from lab.pages.ideas.every_weight import plot_every_weight
from lab.pages.ideas.fields import effective_field, side_of_field
from lab.pages.ideas.hardest import carried_by, losses_of
from lab.pages.ideas.masks import behind_masks
from lab.pages.ideas.paths import Plane, loss_at
from lab.pages.ideas.signals import signals
from lab.pages.ideas.spectra import directions_of_most, gradients
from lab.pages.ideas.units import exciting_images


@pytest.fixture(scope="module")
def split():
    return utils.load_digits("sample").test.first(64)


def with_seed(network, **arguments):
    torch.manual_seed(0)
    return network(**arguments).eval()


# ---------------------------------------------------------------------------------------------- fields


def test_the_effective_field_of_a_linear_network_is_its_weights(split):
    network = nn.Sequential(nn.Flatten(), nn.Linear(784, 1))
    expected = network[1].weight.detach().abs().view(28, 28)
    torch.testing.assert_close(effective_field(network, split), expected / expected.sum())


@pytest.mark.parametrize(("reach", "side"), [(14, 28), (5, 10), (1, 2)])
def test_the_side_of_a_field_that_is_even_within_a_square(reach, side):
    field = torch.zeros(28, 28)
    field[14 - reach : 14 + reach, 14 - reach : 14 + reach] = 1
    assert side_of_field(field / field.sum(), share=1 - 1e-6) == side
    assert side_of_field(field / field.sum(), share=0.05) < side or side == 2


def test_an_effective_field_stays_inside_the_receptive_field(split):
    network = nn.Sequential(nn.Conv2d(1, 10, 5), nn.ReLU(), nn.Flatten(), nn.Unflatten(1, (10, 24, 24)))
    middle = nn.Sequential(network, Middle(), nn.Flatten())
    field = effective_field(middle, split)
    assert field.count_nonzero() == 25
    assert field[10:15, 10:15].sum() == pytest.approx(1)


class Middle(nn.Module):
    def forward(self, maps):
        return maps[:, :, 10:11, 10:11]


# ------------------------------------------------------------------------------------------ class maps


@pytest.mark.parametrize("network", [model.PooledSkeleton, model.PooledHead, model.PooledClassMaps])
def test_the_averages_of_class_maps_are_the_logits(network, split):
    maps, logits = class_maps(with_seed(network), split.images)
    torch.testing.assert_close(maps.mean(dim=(2, 3)), logits, atol=1e-4, rtol=1e-4)


def test_behind_a_head_with_relu_a_change_of_the_maps_changes_logits_as_they_say(split):
    """Where no ReLU switches, the logits are linear in the pooled features, with the maps' averages as their share."""
    network = with_seed(model.TwoLayerHead)
    maps, _ = class_maps(network, split.images[:4])
    pooling = next(module for module in network if isinstance(module, nn.AvgPool2d))
    logits = []
    for factor in (1.0, 1.001):
        handle = pooling.register_forward_hook(lambda module, inputs, made, factor=factor: made * factor)
        with torch.inference_mode():
            logits.append(network(utils.prepare(split.images[:4], ())).double())
        handle.remove()
    torch.testing.assert_close((logits[1] - logits[0]) / 0.001, maps.mean(dim=(2, 3)).double(), atol=5e-3, rtol=5e-2)


def test_a_last_kernel_as_large_as_its_map_gives_class_maps_whose_averages_are_the_logits(split):
    network = with_seed(model.LargeKernelHead, widths=(10, 10, 20))
    maps, logits = class_maps(network, split.images)
    torch.testing.assert_close(maps.mean(dim=(2, 3)), logits, atol=1e-4, rtol=1e-4)
    assert maps.shape[2:] == (7, 7)


def test_a_network_without_maps_is_named(split):
    with pytest.raises(ValueError, match="no layer of Sequential turns a map into one place"):
        class_maps(nn.Sequential(nn.Flatten(), nn.Linear(784, 10)), split.images)


def test_the_first_right_and_the_first_wrong_digit_are_drawn(split):
    found = utils.plot_class_maps(nn.Sequential(nn.AvgPool2d(28), nn.Flatten(), Ten()), split)
    wrong = next(label for label in split.labels.tolist() if label != 3)
    assert f"a 3: 0 +0.0, 1 +0.0, 2 +0.0; a {wrong}, read as 3: 0 +0.0" in found.words


class Ten(nn.Module):
    """Always three."""

    def forward(self, pooled):
        return 0 * pooled + F.one_hot(torch.tensor(3), 10)


# --------------------------------------------------------------------------------------------- signals


def test_signals_are_what_enters_the_relus(split):
    network = with_seed(model.PooledSkeleton)
    images = utils.prepare(split.images, ())
    with torch.inference_mode():
        first = network[0][0](images)
        found = signals(network, split)
        torch.testing.assert_close(found[0], first)
        torch.testing.assert_close(found[-1], network(images))
    assert len(found) == 1 + sum(isinstance(module, nn.ReLU) for module in network.modules())


def test_an_untrained_network_normalises_by_what_it_sees(split):
    recipe = utils.Recipe(network=model.NormedSkeleton)
    found = signals(utils.untrained(recipe), split)[:-1]
    for entering in found:
        torch.testing.assert_close(entering.mean(dim=(0, 2, 3)), torch.zeros(entering.shape[1]), atol=1e-5, rtol=0)


# ----------------------------------------------------------------------------------------------- masks


def test_dropout_keeps_the_mean_of_a_sum_and_has_the_variance_of_its_coins(split):
    """Each input is dropped with probability p, else scaled: the variances of w x, times p / (1 - p), add up."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Dropout(0.25), nn.Conv2d(1, 3, 28), nn.BatchNorm2d(3)).eval()
    many, one = behind_masks(network, split.images[0], masks=20_000)["2"]
    products = network[1].weight * utils.prepare(split.images[:1], ())
    variance = products.square().sum(dim=(1, 2, 3)) * 0.25 / 0.75
    torch.testing.assert_close(many.var(dim=0).flatten(), variance.detach(), rtol=0.05, atol=0)
    error = (variance / 20_000).sqrt()
    assert ((many.mean(dim=0) - one).flatten().abs() < 4 * error).all()


@pytest.mark.parametrize(
    ("network", "reason"),
    [(model.NormedSkeleton, "has no dropout"), (model.FirstSkeleton, "has no dropout|no batch normalisation")],
)
def test_what_has_no_masks_is_named(network, reason, split):
    with pytest.raises(ValueError, match=reason):
        behind_masks(with_seed(network), split.images[0])


# -------------------------------------------------------------------------------- units, mixing, sizes


def test_the_most_exciting_digits_are_those_of_a_plain_search(split):
    network = with_seed(model.PooledHead)
    found = exciting_images(network, split, layer=0, count=3)
    with torch.inference_mode():
        highest = network[0][0](utils.prepare(split.images, ())).amax(dim=(2, 3))
    for channel, images in enumerate(found.tolist()):
        values = highest[images, channel].tolist()
        assert values == pytest.approx(highest[:, channel].sort(descending=True).values[:3].tolist(), abs=1e-5)


def test_the_first_1x1_layer_in_front_of_the_pooling_is_drawn(split):
    network = with_seed(model.OneByOne)
    picture = utils.plot_mixing(network, split.images[0])
    matrix = next(
        part.weight for part in network.modules() if isinstance(part, nn.Conv2d) and part.kernel_size == (1, 1)
    )
    row, column = divmod(matrix.abs().flatten().argmax().item(), matrix.shape[1])
    assert f"weights makes {matrix.shape[0]} maps of {matrix.shape[1]}. " in picture.words
    assert f"takes map {column} into map {row}" in picture.words
    heat = next(axis for part in picture.figure.subfigs for axis in part.axes if axis.get_xlabel() == "map before")
    np.testing.assert_array_equal(
        heat.collections[0].get_array().reshape(matrix.shape[:2]), matrix[:, :, 0, 0].detach()
    )


def test_a_network_without_1x1_layers_is_named(split):
    with pytest.raises(ValueError, match="Oversized has no 1x1 convolution"):
        utils.plot_mixing(with_seed(model.Oversized), split.images[0])


def test_sizes_add_up_to_the_network():
    network = with_seed(model.FirstSkeleton)
    weights, products = (axis.get_title() for axis in utils.plot_sizes({"a01": network}).figure.axes)
    assert weights.endswith(f" {sum(part.numel() for part in network.parameters()):,}")
    assert products.endswith(f" {utils.multiply_accumulates(network):,}")


@pytest.mark.parametrize(
    "network",
    [
        with_seed(model.DeepSeparable, first=5, second=8, width=14, last=16),
        nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 1)),  # with biases
    ],
    ids=["normalised", "biased"],
)
def test_every_weight_is_on_the_picture(network):
    picture = plot_every_weight(network)
    canvas = picture.figure.axes[0].images[0].get_array()
    count = sum(part.numel() for part in network.parameters())
    assert (~np.ma.getmaskarray(canvas)).sum() == count
    assert f"All {count:,} weights" in picture.words


# --------------------------------------------------------------------------------------------- spectra

MUON = utils.Recipe(network=model.WideSeparable, optimizer="Muon", nesterov=True, momentum=0.9)


def test_gradients_are_those_of_the_loss_by_finite_differences(split):
    network = utils.untrained(MUON)
    found = gradients(network, split)
    weights = [part.weight for part in network.modules() if isinstance(part, nn.Conv2d) and part.kernel_size == (1, 1)]
    assert [tuple(matrix.shape) for matrix in found] == [tuple(weight.shape[:2]) for weight in weights[:-1]]
    images = utils.prepare(split.images, ()).double()
    network, losses = network.double(), []
    direction = found[0].double()
    for step in (1e-5, -2e-5):
        weights[0].data.add_(step * direction[:, :, None, None])
        losses.append(F.cross_entropy(network(images), split.labels).item())
    assert (losses[0] - losses[1]) / 2e-5 == pytest.approx(direction.square().sum().item(), rel=1e-3)


def test_a_network_without_matrices_is_named(split):
    with pytest.raises(ValueError, match="Oversized has no 1x1 convolution"):
        gradients(with_seed(model.Oversized), split.first(2))


def test_directions_that_hold_most_of_a_gradient():
    assert directions_of_most(torch.tensor([3.0, 1.0, 0.0])) == 1
    assert directions_of_most(torch.ones(10), share=0.75) == 8


def test_spectra_tell_a_flat_step_from_a_steep_one(split):
    picture = utils.plot_spectra({"fresh": utils.untrained(MUON)}, split)
    assert picture.words.startswith("Directions that hold 90% of the gradient's squares in each 1x1 convolution: fresh")
    lines = [line.get_ydata() for line in picture.figure.axes[0].lines]
    steep, flat = lines[: len(lines) // 2], lines[len(lines) // 2 :]
    for one, other in zip(steep, flat, strict=True):
        assert len(one) == len(other)
        assert np.median(one) < np.median(other) > 0.5


def test_weights_that_are_not_drawn_are_told():
    words = plot_every_weight(nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(4, 2))).words
    assert words.startswith("40 of 50 weights of a network")


# ----------------------------------------------------------------------------------------------- paths


def flat(network):
    return torch.cat([part.detach().flatten() for part in network.parameters()])


def test_a_plane_holds_points_that_lie_in_one():
    generator = torch.Generator().manual_seed(0)
    axes, places = torch.randn(2, 50, generator=generator), torch.randn(8, 2, generator=generator)
    points = 3 + places @ axes
    plane = Plane(points)
    assert plane.share == pytest.approx(1)
    torch.testing.assert_close(torch.stack([plane.point(place) for place in plane.project(points)]), points)
    torch.testing.assert_close(plane.project(points[-1:]), torch.zeros(1, 2), atol=1e-5, rtol=0)


def test_the_loss_at_the_weights_of_a_network_is_its_own(split):
    network, other = with_seed(model.PooledSkeleton), model.PooledSkeleton()
    images, weights = (
        utils.prepare(split.images, ()),
        torch.cat([part.detach().flatten() for part in network.parameters()]),
    )
    expected = F.cross_entropy(network(images), split.labels).item()
    assert loss_at(other, weights, images, split.labels) == pytest.approx(expected)


def test_a_run_keeps_its_trail_also_when_it_is_read_back(tmp_path):
    digits = utils.load_digits("sample", train_limit=256)
    recipe = utils.Recipe(network=model.NormedSkeleton, epochs=3, average=0.9)
    run = utils.fit(recipe, digits, rung="x", device="cpu", threads=1, run_dir=tmp_path)
    assert [tuple(weights.shape) for weights in run.trail] == [(2, recipe.parameters)] * 4
    torch.testing.assert_close(run.trail[-1][1], flat(run.network), rtol=0, atol=0)
    torch.manual_seed(0)
    torch.testing.assert_close(run.trail[0][0], flat(recipe.build_network()), rtol=0, atol=0)
    again = utils.fit(recipe, digits, rung="x", device="cpu", threads=1, run_dir=tmp_path)
    assert again.read_back == 3
    torch.testing.assert_close(torch.stack(again.trail), torch.stack(run.trail), rtol=0, atol=0)
    picture = utils.plot_paths({"x": again}, grid=3)
    assert "x moves by" in picture.words
    assert "x, average moves by" in picture.words


def test_a_run_without_a_trail_is_left_out_and_named(tmp_path, capsys):
    digits = utils.load_digits("sample", train_limit=64)
    recipe = utils.Recipe(network=model.NormedSkeleton, epochs=1)
    run = utils.fit(recipe, digits, rung="x", device="cpu", threads=1, run_dir=tmp_path)
    run.trail.clear()
    assert utils.plot_paths({"old": run}) is None
    assert "Without old: trained before trails were kept" in capsys.readouterr().out


def test_a_path_of_one_epoch_is_no_picture(tmp_path, capsys):
    digits = utils.load_digits("sample", train_limit=64)
    recipe = utils.Recipe(network=model.NormedSkeleton, epochs=1)
    run = utils.fit(recipe, digits, rung="x", device="cpu", threads=1, run_dir=tmp_path)
    assert utils.plot_paths({"x": run}) is None
    assert "No picture of the path: it takes 3 epochs." in capsys.readouterr().out


# ---------------------------------------------------------------------------------------------- hardest


def test_what_the_hardest_carry():
    assert carried_by(torch.tensor([1.0, 6.0, 1.0, 2.0]), 0.25) == pytest.approx(0.6)
    assert carried_by(torch.ones(10), 0.3) == pytest.approx(0.3)


def test_losses_are_those_of_the_network_in_eval_mode(split):
    network = with_seed(model.NormedSkeleton, dropout=0.5)
    with torch.no_grad():
        expected = F.cross_entropy(network(utils.prepare(split.images, ())), split.labels, reduction="none")
    logits, losses = losses_of(network.train(), split)
    torch.testing.assert_close(losses, expected)
    assert network.training
    assert logits.shape == (64, 10)


def test_the_hardest_images_are_shown_in_order(split):
    network = with_seed(model.NormedSkeleton)
    picture = utils.plot_hardest({"fresh": network}, split, share=0.5)
    _, losses = losses_of(network, split)
    hardest = losses.argsort(descending=True).tolist()
    titles = [axis.get_title() for axis in picture.figure.axes[1:]]
    assert [int(title[0]) for title in titles] == split.labels[hardest[: len(titles)]].tolist()
    assert f"{100 * carried_by(losses, 0.5):.1f} % of that of fresh" in picture.words
    curve = picture.figure.axes[0].lines[0].get_ydata()
    assert curve[-1] == pytest.approx(100)
    assert curve[31] == pytest.approx(100 * carried_by(losses, 0.5))
