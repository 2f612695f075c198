"""A figure as a page shows it, with words for readers who cannot see it."""

import base64
import io

import matplotlib.pyplot as plt
import seaborn as sns


class Picture:
    """A finished figure and a sentence that says what it shows, with its numbers.

    Jupyter shows the figure. The sentence is its text, and goes with the image into the metadata of the output, from
    where pages in HTML take it as `alt`.
    """

    def __init__(self, figure, words):
        self.figure, self.words = figure, words
        plt.close(figure)  # only the cell that returns the picture shows it

    def __repr__(self):
        return self.words

    def _repr_mimebundle_(self, include=None, exclude=None):
        image = io.BytesIO()
        self.figure.savefig(image, format="png", bbox_inches="tight")
        data = {"image/png": base64.b64encode(image.getvalue()).decode(), "text/plain": self.words}
        return data, {"image/png": {"alt": self.words}}


def finish(figure, words):
    """Remove the frames at the top and right, and give the figure its words."""
    sns.despine(figure)
    figure.tight_layout()
    return Picture(figure, words)


def listed(parts, most=12):
    """A list in words, cut after so many: "a, b and 3 more"."""
    parts = [*map(str, parts)]
    shown = ", ".join(parts[:most])
    return shown if len(parts) <= most else f"{shown} and {len(parts) - most} more"
