"""Random distortions of whole batches, every image with parameters of its own.

torchvision draws one set of parameters per call, so a batch would be distorted as one block, and image by
image its transforms cost more than training a small network. Here the parameters of a batch are drawn as
vectors and applied at once. Ranges, order of drawing's effects and geometry are torchvision's: tests compare
every function with its torchvision twin, image by image.

Images are float32 (N, 1, 28, 28), grey values in [0, 1]. Angles are in degrees, positive is clockwise for
`affine` and counter-clockwise for `rotate`, as in torchvision. Random numbers are torch's; in training they come from a
stream of their own, see `lab.training.streams`.
"""

from dataclasses import dataclass

import torch
from torch.nn import functional as F

from lab.rules import check_fields, number, one_of, pair

INTERPOLATIONS = ("nearest", "bilinear")


def affine(images, degrees, shift, scale, shear, *, fill=0.0, interpolation="nearest"):
    """Rotate, shear along x, scale and shift each image about its centre.

    Args:
        images: (N, 1, H, W).
        degrees, scale, shear: (N,); angles in degrees, scale as a factor.
        shift: (N, 2), in pixels, along x and y.
        fill: grey value of what comes from outside the image.
        interpolation: "nearest" or "bilinear".
    """
    angle, slope = torch.deg2rad(degrees), torch.tan(torch.deg2rad(shear))
    cosine, sine = torch.cos(angle) / scale, torch.sin(angle) / scale
    # the inverse map, from a pixel of the result to its place in the source: undo shift, then rotation and shear
    a, b = cosine - slope * sine, sine + slope * cosine
    c, d = -sine, cosine
    x, y = -shift[:, 0], -shift[:, 1]
    inverse = torch.stack([a, b, a * x + b * y, c, d, c * x + d * y], dim=1).view(-1, 2, 3)
    return _resample(images, inverse, fill, interpolation)


def rotate(images, degrees, *, fill=0.0, interpolation="nearest"):
    """Turn each image counter-clockwise about its centre by `degrees`, (N,)."""
    neutral = torch.zeros_like(degrees)
    return affine(
        images, -degrees, neutral[:, None].expand(-1, 2), neutral + 1, neutral, fill=fill, interpolation=interpolation
    )


def adjust_brightness(images, factors):
    """Multiply each image by its factor, (N,), and clip to [0, 1]."""
    return (images * factors.view(-1, 1, 1, 1)).clamp_(0, 1)


def adjust_contrast(images, factors):
    """Stretch each image about its own mean by its factor, (N,), and clip to [0, 1]."""
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return torch.lerp(mean, images, factors.view(-1, 1, 1, 1)).clamp_(0, 1)


def _resample(images, inverse, fill, interpolation):
    """Read each image at the places that `inverse`, (N, 2, 3) in pixels from the centre, points to."""
    resample = {"nearest": _resample_nearest, "bilinear": _resample_bilinear}[interpolation]
    return resample(images, inverse, fill)


def _resample_nearest(images, inverse, fill):
    count, channels, height, width = images.shape
    rows, columns = torch.meshgrid(
        torch.arange(height, dtype=images.dtype, device=images.device) - (height - 1) / 2,
        torch.arange(width, dtype=images.dtype, device=images.device) - (width - 1) / 2,
        indexing="ij",
    )
    places = torch.stack([columns.flatten(), rows.flatten(), torch.ones_like(rows).flatten()])
    source = torch.matmul(inverse, places)  # (N, 2, H * W)
    # a frame of `fill`, one pixel wide, catches every place outside: cheaper than testing for it
    x = source[:, 0].add_((width - 1) / 2).round_().clamp_(-1, width)
    y = source[:, 1].add_((height - 1) / 2).round_().clamp_(-1, height)
    index = y.add_(1).mul_(width + 2).add_(x).add_(1).long()[:, None].expand(-1, channels, -1)
    framed = F.pad(images, (1, 1, 1, 1), value=fill).flatten(2)
    return framed.gather(2, index).view(images.shape)


def _resample_bilinear(images, inverse, fill):
    height, width = images.shape[-2:]
    half = torch.tensor([width / 2, height / 2], device=images.device)
    unit = inverse / half.view(1, 2, 1)  # grid_sample counts in half widths and half heights
    unit = torch.cat([unit[:, :, :2] * half, unit[:, :, 2:]], dim=2)
    grid = F.affine_grid(unit, images.shape, align_corners=False)
    inside = F.grid_sample(torch.ones_like(images), grid, mode="bilinear", align_corners=False)
    sampled = F.grid_sample(images, grid, mode="bilinear", align_corners=False)
    return torch.lerp(torch.full_like(images, fill), sampled, inside)


def _uniform(count, low, high, device):
    return torch.empty(count, device=device).uniform_(low, high)


@dataclass(frozen=True)
class RandomRotation:
    """Rotate by an angle drawn evenly from [-degrees, degrees], as torchvision's RandomRotation does."""

    degrees: float
    fill: float = 0.0  # grey value in [0, 1] of the corners that turn in
    interpolation: str = "nearest"

    def __post_init__(self):
        check_fields(self, {"degrees": number(0, 180), "fill": number(0, 1), "interpolation": one_of(*INTERPOLATIONS)})

    def draw(self, count, device="cpu"):
        """Draw degrees (N,)."""
        return _uniform(count, -self.degrees, self.degrees, device)

    def __call__(self, images):
        degrees = self.draw(len(images), images.device)
        return rotate(images, degrees, fill=self.fill, interpolation=self.interpolation)


@dataclass(frozen=True)
class RandomAffine:
    """Rotate, shift, scale and shear along x, each drawn evenly, as torchvision's RandomAffine does.

    Shifts are whole pixels: drawn evenly from plus or minus `translate` times the side, then rounded.
    """

    degrees: float
    translate: float = 0.0  # largest shift as a share of the side
    scale: tuple[float, float] = (1.0, 1.0)
    shear: float = 0.0  # degrees
    fill: float = 0.0
    interpolation: str = "nearest"

    def __post_init__(self):
        check_fields(
            self,
            {"degrees": number(0, 180), "translate": number(0, 1), "scale": pair(number(0.1, 10))}
            | {"shear": number(0, below=90), "fill": number(0, 1), "interpolation": one_of(*INTERPOLATIONS)},
        )
        low, high = self.scale
        if low > high:
            raise ValueError(f"RandomAffine: scale={self.scale!r} must be a pair low <= high")

    def draw(self, count, side, device="cpu"):
        """Draw degrees (N,), shift (N, 2) in pixels, scale (N,) and shear (N,)."""
        reach = self.translate * side
        return (
            _uniform(count, -self.degrees, self.degrees, device),
            torch.empty(count, 2, device=device).uniform_(-reach, reach).round_(),
            _uniform(count, *self.scale, device),
            _uniform(count, -self.shear, self.shear, device),
        )

    def __call__(self, images):
        parameters = self.draw(len(images), images.shape[-1], images.device)
        return affine(images, *parameters, fill=self.fill, interpolation=self.interpolation)


@dataclass(frozen=True)
class ColorJitter:
    """Change brightness and contrast by factors drawn evenly from 1 - x to 1 + x, in random order.

    torchvision's ColorJitter has saturation and hue too; on one channel they do nothing, so they are left out.
    """

    brightness: float = 0.0
    contrast: float = 0.0

    def __post_init__(self):
        check_fields(self, {"brightness": number(0, 10), "contrast": number(0, 10)})

    def draw(self, count, device="cpu"):
        """Draw brightness (N,), contrast (N,), and whether brightness comes first, bool (N,)."""
        return (
            _uniform(count, max(0.0, 1 - self.brightness), 1 + self.brightness, device),
            _uniform(count, max(0.0, 1 - self.contrast), 1 + self.contrast, device),
            torch.rand(count, device=device) < 0.5,
        )

    def __call__(self, images):
        brightness, contrast, first = self.draw(len(images), images.device)
        images = adjust_brightness(images, torch.where(first, brightness, 1.0))
        images = adjust_contrast(images, contrast)
        return adjust_brightness(images, torch.where(first, 1.0, brightness))


def distort(images, augmentation):
    """Turn grey levels, uint8 (N, 1, H, W), into grey values in [0, 1], and apply distortions to them in order."""
    pixels = images.float().div_(255)
    for transform in augmentation:
        pixels = transform(pixels)
    return pixels
