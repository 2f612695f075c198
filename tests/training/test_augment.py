"""Every distortion against its torchvision twin, image by image and in distribution."""

import pytest
import torch
from scipy import stats
from torchvision import transforms
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as twin

from lab.training import augment
from lab.training.augment import (
    ColorJitter,
    RandomAffine,
    RandomRotation,
    adjust_brightness,
    adjust_contrast,
    affine,
    rotate,
)
from lab.training.data import load_digits

RARE = 1e-3  # a fair comparison of two samples falls below this p-value once in a thousand seeds; ours are fixed
DRAWS = 4000

by_interpolation = pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
by_fill = pytest.mark.parametrize("fill", [0.0, 1 / 255, 0.7])
by_transform = pytest.mark.parametrize(
    "transform",
    [
        RandomRotation(30, interpolation="bilinear"),
        RandomAffine(30, 0.1, (0.8, 1.2), 10, interpolation="bilinear"),
        ColorJitter(0.4, 0.4),
    ],
    ids=lambda transform: type(transform).__name__,
)


@pytest.fixture(scope="module")
def digits():
    return load_digits("sample", train_limit=1500).train.images


@pytest.fixture
def images(digits):
    torch.manual_seed(0)
    return digits[:300] / 255


def assert_same_images(ours, theirs, interpolation):
    if interpolation == "nearest":  # a place halfway between two pixels may be rounded either way
        assert (ours != theirs).float().mean() <= 1e-4
    else:
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


# ------------------------------------------------------------------------------------- image by image


@by_interpolation
@by_fill
def test_affine(images, interpolation, fill):
    drawn = RandomAffine(180, 0.3, (0.5, 2.0), 45).draw(len(images), 28)
    theirs = [
        twin.affine(image, degrees, shift, scale, [shear, 0.0], InterpolationMode(interpolation), [fill])
        for image, degrees, shift, scale, shear in zip(images, *(values.tolist() for values in drawn), strict=True)
    ]
    ours = affine(images, *drawn, fill=fill, interpolation=interpolation)
    assert_same_images(ours, torch.stack(theirs), interpolation)


@by_interpolation
@by_fill
def test_rotate(images, interpolation, fill):
    degrees = torch.empty(len(images)).uniform_(-180, 180)
    theirs = [
        twin.rotate(image, angle, InterpolationMode(interpolation), fill=[fill])
        for image, angle in zip(images, degrees.tolist(), strict=True)
    ]
    ours = rotate(images, degrees, fill=fill, interpolation=interpolation)
    assert_same_images(ours, torch.stack(theirs), interpolation)


@pytest.mark.parametrize(
    ("ours", "theirs"), [(adjust_brightness, twin.adjust_brightness), (adjust_contrast, twin.adjust_contrast)]
)
def test_brightness_and_contrast(images, ours, theirs):
    factors = torch.empty(len(images)).uniform_(0, 2)
    expected = torch.stack([theirs(image, factor) for image, factor in zip(images, factors.tolist(), strict=True)])
    torch.testing.assert_close(ours(images, factors), expected, atol=1e-5, rtol=0)


# ------------------------------------------------------------------------------------ in distribution


def assert_same_distribution(ours, theirs):
    assert stats.ks_2samp(ours, theirs).pvalue > RARE


def test_affine_draws():
    torch.manual_seed(0)
    ranges = [-7.0, 7.0], [0.1, 0.1], [0.8, 1.2], [-10.0, 10.0], [28, 28]
    theirs = [transforms.RandomAffine.get_params(*ranges) for _ in range(DRAWS)]
    degrees, shift, scale, shear = zip(*theirs, strict=True)
    ours = RandomAffine(7, 0.1, (0.8, 1.2), 10).draw(DRAWS, 28)
    assert_same_distribution(ours[0], degrees)
    assert_same_distribution(ours[2], scale)
    assert_same_distribution(ours[3], torch.tensor(shear)[:, 0])
    for axis in range(2):
        pair = ours[1][:, axis], torch.tensor(shift, dtype=torch.float32)[:, axis]
        counts = [[int((values == pixels).sum()) for pixels in range(-3, 4)] for values in pair]
        assert sum(map(sum, counts)) == 2 * DRAWS  # whole pixels, and none beyond three
        assert stats.chi2_contingency(counts).pvalue > RARE
    assert abs(stats.pearsonr(*ours[1].T).statistic) < 5 / DRAWS**0.5  # the two axes are independent


def test_rotation_draws():
    torch.manual_seed(0)
    # a slope along x, turned: ten pixels below the centre it reads 10 sin(angle)
    slope = (torch.arange(29.0) - 14).expand(DRAWS, 1, 29, 29)
    turned = RandomRotation(20, interpolation="bilinear")(slope)
    theirs = [transforms.RandomRotation.get_params([-20.0, 20.0]) for _ in range(DRAWS)]
    assert_same_distribution(torch.rad2deg(torch.asin(turned[:, 0, 24, 14] / 10)), theirs)


@pytest.mark.parametrize("reach", [0.4, 1.5])
def test_jitter_draws(reach):
    torch.manual_seed(0)
    # contrast leaves a flat image alone; brightness 0 leaves only contrast, seen as a difference of two greys
    flat, two_greys = torch.full((DRAWS, 1, 2, 2), 0.1), torch.tensor([0.48, 0.52]).expand(DRAWS, 1, 1, 2)
    brightness = ColorJitter(reach, 0.4)(flat)[:, 0, 0, 0] / 0.1
    contrast = ColorJitter(0, reach)(two_greys).diff().flatten() / 0.04
    jitter = transforms.ColorJitter(reach, reach)
    theirs = [
        transforms.ColorJitter.get_params(jitter.brightness, jitter.contrast, None, None)[1:3] for _ in range(DRAWS)
    ]
    for ours, expected in zip((brightness, contrast), zip(*theirs, strict=True), strict=True):
        assert_same_distribution(ours, expected)


def test_jitter_order_is_a_coin_flip(images, monkeypatch):
    monkeypatch.setattr(augment, "_uniform", lambda count, *_: torch.full((count,), 1.6))
    brightness_first = torch.stack([twin.adjust_contrast(twin.adjust_brightness(image, 1.6), 1.6) for image in images])
    contrast_first = torch.stack([twin.adjust_brightness(twin.adjust_contrast(image, 1.6), 1.6) for image in images])
    ours = ColorJitter(0.6, 0.6)(images)
    first, second = ((ours - theirs).abs().amax(dim=(1, 2, 3)) < 1e-5 for theirs in (brightness_first, contrast_first))
    assert (first ^ second).all()  # each image is one of the two, and the two can be told apart
    assert stats.binomtest(int(first.sum()), len(images)).pvalue > RARE


def test_whole_pipeline(digits):
    torch.manual_seed(0)
    theirs = transforms.Compose(
        [
            transforms.ToPILImage(),
            transforms.RandomRotation(6, fill=1),
            transforms.RandomAffine(7, (0.1, 0.1), (0.8, 1.2), 10),
            transforms.ColorJitter(0.4, 0.4),
            transforms.ToTensor(),
        ]
    )
    theirs, ours = torch.stack([theirs(image) for image in digits]), digits / 255
    for distort in RandomRotation(6, fill=1 / 255), RandomAffine(7, 0.1, (0.8, 1.2), 10), ColorJitter(0.4, 0.4):
        ours = distort(ours)
    for power in 1, 2:  # mean and variance of every pixel
        a, b = ours**power, theirs**power
        sigma = ((a.var(dim=0) + b.var(dim=0)) / len(digits)).sqrt()
        assert ((a.mean(dim=0) - b.mean(dim=0)).abs() <= 5 * sigma + 1 / 255).all()  # PIL rounds to whole greys
    for statistic in torch.sum, torch.std:  # ink and spread of every image
        assert_same_distribution(statistic(ours, dim=(1, 2, 3)), statistic(theirs, dim=(1, 2, 3)))


# ---------------------------------------------------------------------------------------- transforms


@by_transform
def test_every_image_has_its_own_parameters(images, transform):
    distorted = transform(images[:1].repeat(64, 1, 1, 1))
    assert len(distorted.flatten(1).unique(dim=0)) == 64


@by_transform
def test_the_seed_decides_and_the_input_stays(images, transform):
    before = images.clone()
    first, second, third = (torch.manual_seed(seed) and transform(images) for seed in (1, 1, 2))
    assert torch.equal(first, second)
    assert not torch.equal(first, third)
    assert torch.equal(images, before)


@by_interpolation
def test_neutral_parameters_change_nothing(images, interpolation):
    for transform in RandomRotation(0, interpolation=interpolation), RandomAffine(0, interpolation=interpolation):
        torch.testing.assert_close(transform(images), images, atol=0 if interpolation == "nearest" else 1e-5, rtol=0)
    assert torch.equal(ColorJitter()(images), images)


@pytest.mark.parametrize(
    ("transform", "name", "value"),
    [
        (RandomRotation, "degrees", -1),
        (RandomRotation, "degrees", 181),
        (RandomRotation, "fill", 1.1),
        (RandomRotation, "interpolation", "cubic"),
        (RandomAffine, "degrees", 181),
        (RandomAffine, "translate", 1.1),
        (RandomAffine, "scale", (1.2, 0.8)),
        (RandomAffine, "scale", (0, 1)),
        (RandomAffine, "shear", 90),
        (RandomAffine, "fill", -0.1),
        (RandomAffine, "interpolation", "cubic"),
        (ColorJitter, "brightness", -0.1),
        (ColorJitter, "contrast", -0.1),
    ],
)
def test_bad_parameters_are_named(transform, name, value):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the message is what is tested
        transform(**{"degrees": 5, name: value} if transform is not ColorJitter else {name: value})
    assert str(caught.value).startswith(f"{transform.__name__}: {name}={value!r} must be ")
