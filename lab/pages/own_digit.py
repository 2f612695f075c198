"""A reader's own digit: a photo or drawing made into what MNIST would have made of it, and read by a trained network.

Source of the form: LeCun, Cortes & Burges, "The MNIST database": a digit fills a box of 20 by 20 pixels, and its centre
of mass lies in the middle of 28 by 28.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from scipy import ndimage

from lab.ladders.weights import load_weights
from lab.numbers import percent
from lab.pages.ideas import at_rest
from lab.pages.picture import Picture
from lab.training.data import CLASSES
from lab.training.loop import prepare

BOX, SIDE = 20, 28
MOST_PIXELS = 400  # a side, to which larger pictures are shrunk first
CONTRAST = 0.15  # of ink against its background, of black against white
INK = 0.401  # of the strongest ink, from which on a pixel is a stroke; no grey level lies on it
LEANING = 1e-3  # pixels: where a digit is symmetric its centre lies between two, and rounding errors would decide
SPECK = 0.02  # of the largest part in area
TALL, APART = 0.6, 0.1  # of all in height: a digit beside another, and between two
EIGHT_BITS = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr", "LAB", "HSV")


class Reading(Picture):
    """What a network makes of a picture: `digit`, `probabilities`, a float for each class, and the `pixels` it saw."""

    def __init__(self, pixels, probabilities, name):
        self.pixels, self.probabilities = pixels, probabilities
        self.digit = int(np.argmax(probabilities))
        figure, (left, right) = plt.subplots(1, 2, figsize=(6, 2.6), width_ratios=(1, 1.6))
        left.imshow(pixels[0].numpy(), cmap="gray_r")
        left.set_title(f"what {name} sees", fontsize=9)
        left.axis("off")
        right.bar(range(CLASSES), probabilities, color=["C0" if n == self.digit else "0.7" for n in range(CLASSES)])
        right.set_xticks(range(CLASSES))
        surely = percent(probabilities[self.digit])
        right.set(ylim=(0, 1), title=f"a {self.digit}: {surely}")
        right.spines[["top", "right"]].set_visible(False)
        super().__init__(figure, f"{name} reads a {self.digit}, with a probability of {surely}")


def recognise(picture, name="e02"):
    """Read one digit in a picture of any size and polarity: dark on light or light on dark, drawn or photographed.

    Args:
        picture: path of an image file, or a PIL image.
        name: of a network whose weights are kept, see `load_weights`.

    Returns: Reading, which Jupyter shows: the 28x28 pixels that the network sees, and ten bars.
    Raises: as `as_mnist` and `load_weights`.
    """
    pixels = as_mnist(picture)
    with torch.inference_mode():
        logits = at_rest(load_weights(name))(prepare(pixels[None], ()))
    return Reading(pixels, logits.softmax(1)[0].tolist(), name)


def as_mnist(picture):
    """The digit of a picture as MNIST would hold it: uint8 (1, 28, 28), white on black.

    Raises: TypeError for what is neither a path nor a PIL image; FileNotFoundError; ValueError saying what the picture
        is instead: no picture, empty, or several digits.
    """
    ink = _ink(_grey(picture))
    ink = _without_specks(ink)
    rows, columns = (np.flatnonzero((ink > INK).any(axis=axis)) for axis in (1, 0))
    cut = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    scale = BOX / max(cut.shape)
    height, width = (max(1, round(side * scale)) for side in cut.shape)
    small = np.array(Image.fromarray(cut.astype(np.float32)).resize((width, height), Image.Resampling.BOX))
    small = np.clip(small / small.max(), 0, 1)
    row, column = (round(SIDE / 2 - centre - LEANING) for centre in ndimage.center_of_mass(small))
    row, column = np.clip(row, 0, SIDE - height), np.clip(column, 0, SIDE - width)
    field = np.zeros((1, SIDE, SIDE), dtype=np.uint8)
    field[0, row : row + height, column : column + width] = np.round(255 * small)
    return torch.from_numpy(field)


def _grey(picture):
    """Grey levels in [0, 1], float64 (height, width); what is transparent is white, or black behind light strokes."""
    if not isinstance(picture, Image.Image | str | Path):
        kind = type(picture).__name__
        raise TypeError(f"recognise: a picture is a path or a PIL image, not {kind}; PIL.Image.fromarray makes one")
    if not isinstance(picture, Image.Image):
        path = Path(picture).expanduser()
        if not path.exists():
            raise FileNotFoundError(f"recognise: there is no file {path}")
        try:
            picture = Image.open(path)
            picture.load()
        except (UnidentifiedImageError, OSError) as error:
            raise ValueError(f"recognise: {path} is not a picture that can be read: {error}") from error
    if picture.mode not in EIGHT_BITS:
        raise ValueError(
            f"recognise: levels of kind {picture.mode!r} have no known black and white; save it with 8 bits"
        )
    picture = ImageOps.exif_transpose(picture).convert("RGBA")
    channels = np.asarray(picture.convert("LA"), dtype=np.float64)
    light, opaque = channels[..., 0], channels[..., 1]
    are_light = (light * opaque).sum() > 127.5 * opaque.sum() and opaque.mean() < 127.5
    paper = "black" if are_light else "white"
    picture = Image.alpha_composite(Image.new("RGBA", picture.size, paper), picture).convert("L")
    picture.thumbnail((MOST_PIXELS, MOST_PIXELS), Image.Resampling.BOX)
    return np.asarray(picture, dtype=np.float64) / 255


def _ink(grey):
    """How far each pixel is from the background, as a share of the farthest; the light may fall unevenly.

    The background is the plane that fits the pixels of the border best, those left out that lie far from it.
    """
    height, width = grey.shape
    place = np.stack([np.ones_like(grey), *np.meshgrid(np.arange(width) / width, np.arange(height) / height)], axis=-1)
    border = np.ones_like(grey, dtype=bool)
    edge = max(1, min(grey.shape) // 50)
    border[edge:-edge, edge:-edge] = False
    difference = grey - np.median(grey[border])
    for _ in range(3):
        paper = border & (np.abs(difference) < max(CONTRAST, np.quantile(np.abs(difference[border]), 0.5)))
        plane, *_ = np.linalg.lstsq(place[paper], grey[paper], rcond=None)
        difference = grey - place @ plane
    signed = difference if difference.max() > -difference.min() else -difference
    strongest = np.quantile(signed, 1 - 5 / signed.size) if signed.size > 5 else signed.max()
    if strongest < CONTRAST:
        raise ValueError(
            "recognise: the picture is empty: nothing differs from its background by more than "
            f"{abs(strongest):.0%} of the way from black to white. Draw darker, or cut closer to the digit"
        )
    return np.clip(signed / strongest, 0, 1)


def _without_specks(ink):
    """The same without what is too small to belong to a digit, and without the haze of the paper.

    Raises: ValueError, if two tall parts stand side by side. Parts one above the other may be one digit: of MNIST's
        own, a few fives and sixes are broken like that.
    """
    labels, count = ndimage.label(ink > INK, structure=np.ones((3, 3)))
    areas = ndimage.sum_labels(np.ones_like(ink), labels, range(1, count + 1))
    kept = [part for part, area in enumerate(areas, start=1) if area >= SPECK * max(areas)]
    boxes = ndimage.find_objects(labels)
    boxes = [boxes[part - 1] for part in kept]
    height = max(box[0].stop for box in boxes) - min(box[0].start for box in boxes)
    tall = sorted((box[1].start, box[1].stop) for box in boxes if box[0].stop - box[0].start >= TALL * height)
    if any(before[1] + APART * height <= after[0] for before, after in zip(tall, tall[1:], strict=False)):
        raise ValueError(
            f"recognise: there seem to be several digits, side by side: {len(tall)} tall parts. Cut out one of them"
        )
    near = ndimage.binary_dilation(np.isin(labels, kept), iterations=2)
    return np.where(near, ink, 0)
