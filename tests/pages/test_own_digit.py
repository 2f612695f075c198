"""One's own digit: MNIST's digits come back whatever was done to their pictures, and what is no digit is refused."""

import base64

import numpy as np
import pytest
import torch
from IPython.core.formatters import DisplayFormatter
from PIL import Image, ImageDraw, ImageOps

import utils
from lab.pages.own_digit import as_mnist
from lab.training.data import Split, mnist_folder


@pytest.fixture(scope="module")
def digits():
    return utils.load_digits("sample").test


def drawn(pixels, side=224):
    """A digit of MNIST as a picture: enlarged, dark on light."""
    return ImageOps.invert(Image.fromarray(pixels[0].numpy()).resize((side, side), Image.Resampling.BICUBIC))


def on_paper(picture, place=(40, 25), paper=255, size=(320, 300)):
    sheet = Image.new("L", size, paper)
    sheet.paste(picture, place)
    return sheet


def right(split):
    network = utils.load_weights("e02")
    with torch.inference_mode():
        return int((network(utils.prepare(split.images, ())).argmax(1) == split.labels).sum())


def seen(picture):
    """What the network sees; nothing, where the picture is refused."""
    try:
        return as_mnist(picture)
    except ValueError:
        return torch.zeros(1, 28, 28, dtype=torch.uint8)


def test_enlarged_inverted_and_shifted_digits_lose_at_most_a_tenth_of_a_point():
    digits = utils.load_digits("mnist" if mnist_folder() else "sample").test
    places = np.random.default_rng(0).integers(0, 76, (len(digits), 2)).tolist()
    again = [seen(on_paper(drawn(each), tuple(at))) for each, at in zip(digits.images, places, strict=True)]
    assert right(digits) - right(Split(torch.stack(again), digits.labels)) <= len(digits) / 1_000


@pytest.mark.parametrize(
    "change",
    [
        ImageOps.invert,
        lambda picture: picture.convert("RGB"),
        lambda picture: picture.resize((1_600, 1_500)),
        lambda picture: Image.blend(picture, Image.new("L", picture.size, 128), 0.4),
        lambda picture: Image.fromarray((np.asarray(picture) * np.linspace(0.6, 1, picture.width)).astype(np.uint8)),
    ],
    ids=["light on dark", "colour", "large", "grey on grey", "light from one side"],
)
def test_a_picture_may_be_of_any_kind(change, digits):
    chosen = Split(digits.images[::20], digits.labels[::20])
    again = torch.stack([as_mnist(change(on_paper(drawn(pixels)))) for pixels in chosen.images])
    assert right(Split(again, chosen.labels)) == right(chosen) == len(chosen)


def test_what_is_transparent_is_paper(digits):
    ink = ImageOps.invert(drawn(digits.images[0]))
    picture = Image.new("RGBA", ink.size, (0, 0, 0, 0))
    picture.putalpha(ink)  # black ink, as drawing programs save it
    assert (as_mnist(picture).float() - as_mnist(drawn(digits.images[0])).float()).abs().mean() < 1


def test_a_photo_is_turned_as_its_camera_was_held(tmp_path, digits):
    upright = on_paper(drawn(digits.images[0]))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by a quarter
    upright.rotate(90, expand=True).save(tmp_path / "photo.png", exif=exif)
    assert torch.equal(as_mnist(tmp_path / "photo.png"), as_mnist(upright))


def test_form_is_that_of_mnist():
    picture = Image.new("L", (500, 300), 255)
    ImageDraw.Draw(picture).ellipse((300, 40, 420, 240), outline=0, width=22)
    pixels = as_mnist(picture)
    rows, columns = (np.flatnonzero(pixels[0].numpy().any(axis=axis)) for axis in (1, 0))
    assert (pixels.dtype, pixels.shape, pixels.max()) == (torch.uint8, (1, 28, 28), 255)
    assert rows[-1] - rows[0] + 1 == 20 > columns[-1] - columns[0] + 1
    weights = pixels[0].double()
    centre = [(weights.sum(axis) * torch.arange(28)).sum().item() / weights.sum().item() for axis in (1, 0)]
    assert centre == pytest.approx([14, 14], abs=0.51)


def test_specks_do_not_count(digits):
    clean = on_paper(drawn(digits.images[0]))
    dirty = clean.copy()
    ImageDraw.Draw(dirty).ellipse((5, 5, 9, 9), fill=0)
    assert (as_mnist(dirty).float() - as_mnist(clean).float()).abs().max() <= 3  # of 255: its black is a little blacker


def test_several_digits_are_refused(digits):
    both = on_paper(drawn(digits.images[0], 120), (10, 50))
    both.paste(drawn(digits.images[500], 120), (160, 50))
    with pytest.raises(ValueError, match="several digits, side by side: 2 tall parts. Cut out one"):
        as_mnist(both)


@pytest.mark.parametrize("paper", [0, 128, 255])
def test_an_empty_picture_is_refused(paper):
    with pytest.raises(ValueError, match="the picture is empty"):
        as_mnist(Image.new("L", (60, 60), paper))


def test_a_single_pixel_is_empty():
    with pytest.raises(ValueError, match="by more than 0%"):
        as_mnist(Image.new("L", (1, 1), 0))


def test_what_is_no_picture_is_refused(tmp_path):
    with pytest.raises(TypeError, match="a path or a PIL image, not ndarray; PIL.Image.fromarray"):
        as_mnist(np.zeros((28, 28)))
    with pytest.raises(ValueError, match="levels of kind 'F' have no known black and white"):
        as_mnist(Image.fromarray(np.zeros((28, 28), dtype=np.float32)))
    (tmp_path / "seven.png").write_text("7")
    with pytest.raises(ValueError, match="seven.png is not a picture that can be read"):
        as_mnist(tmp_path / "seven.png")
    with pytest.raises(FileNotFoundError, match="there is no file .*eight.png"):
        as_mnist(tmp_path / "eight.png")


def test_a_reading_says_what_was_seen_and_how_surely(tmp_path, digits):
    on_paper(drawn(digits.images[0])).save(tmp_path / "zero.png")
    reading = utils.recognise(tmp_path / "zero.png")
    assert reading.digit == digits.labels[0] == 0
    assert sum(reading.probabilities) == pytest.approx(1)
    assert reading.words.startswith("e02 reads a 0, with a probability of ")
    data, metadata = DisplayFormatter().format(reading)
    assert base64.b64decode(data["image/png"]).startswith(b"\x89PNG")
    assert metadata["image/png"]["alt"] == reading.words
