"""The script of the drawing page makes the same 28x28 pixels of a picture as `utils.as_mnist`."""

import json

import numpy as np
import pytest
from PIL import Image

import utils
from lab.site.frame import WEB
from tests.site.drawing import DRAWINGS, draw
from tests.site.node import run_node

DIGITS = utils.load_digits("sample").test
MOST_DIFFERENT = 1  # grey level: both keep float32 between the two passes of a resampling, which may round apart


def pictures():
    """Digits of any size, place and polarity, some on paper that is lit unevenly; and drawings."""
    random = np.random.default_rng(0)
    for number, image in enumerate(DIGITS.images[:40, 0].numpy()):
        side = int(random.integers(60, 200))
        digit = np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC))
        picture = np.zeros((240, random.integers(240, 300)))
        top, left = random.integers(0, 40, 2)
        picture[top : top + side, left : left + side] = digit
        if number % 2:
            picture = 255 - picture
        if number % 3 == 0:
            shadow = np.linspace(0, 40, picture.shape[1]) + random.normal(0, 4, picture.shape)
            picture = np.clip(0.7 * picture + shadow, 0, 255)
        yield picture.astype(np.uint8)
    for drawing in DRAWINGS:
        yield np.asarray(draw(drawing["strokes"]))


def read_by_script(all_of_them, folder):
    described = [
        {"width": one.shape[1], "height": one.shape[0], "values": (one.ravel() / 255).tolist()} for one in all_of_them
    ]
    (folder / "pictures.json").write_text(json.dumps(described))
    shown = run_node(
        f"""
        const {{ asMnist }} = require({json.dumps(str(WEB / "digit.js"))});
        const read = (picture) => {{
          try {{ return [...asMnist(picture)]; }} catch (error) {{ return error.message; }}
        }};
        console.log(JSON.stringify(JSON.parse(require("fs").readFileSync("pictures.json")).map(read)));
        """,
        folder,
    )
    return json.loads(shown)


def test_both_see_the_same_pixels(tmp_path):
    given = list(pictures())
    found = np.array(read_by_script(given, tmp_path))
    wanted = np.stack([utils.as_mnist(Image.fromarray(one)).numpy().ravel() for one in given])
    assert np.abs(found - wanted).max() <= MOST_DIFFERENT
    assert (found != wanted).mean() < 0.001


def test_both_refuse_the_same_in_words(tmp_path):
    blank = np.full((100, 120), 255, dtype=np.uint8)
    two = np.asarray(draw([[(60, 60), (60, 200)], [(200, 60), (200, 200)]]))
    empty, several = read_by_script([blank, two], tmp_path)
    assert "No strokes" in empty
    assert "Several digits" in several
    for picture, words in ((blank, "is empty"), (two, "several digits")):
        with pytest.raises(ValueError, match=words):
            utils.as_mnist(Image.fromarray(picture))
