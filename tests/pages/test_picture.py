"""A picture and its words, as Jupyter stores them and as nbconvert writes them."""

import base64
import struct

import matplotlib.pyplot as plt
from IPython.core.formatters import DisplayFormatter

from lab.pages.picture import Picture, listed


def picture():
    figure, axis = plt.subplots()
    axis.plot([1, 2], [1, 2])
    return Picture(figure, 'A line "rises" from 1 to 2')


def test_jupyter_gets_an_image_and_its_words():
    data, metadata = DisplayFormatter().format(picture())
    image = base64.b64decode(data["image/png"])
    assert image.startswith(b"\x89PNG")
    width, height = struct.unpack(">II", image[16:24])
    assert width > height > 100
    assert data["text/plain"] == metadata["image/png"]["alt"] == 'A line "rises" from 1 to 2'
    assert plt.get_fignums() == []


def test_a_long_list_is_cut_and_says_so():
    assert listed(range(3)) == "0, 1, 2"
    assert listed(range(5), most=2) == "0, 1 and 3 more"
