"""Twenty digits drawn by hand, two of each: paths of a mouse in a square of 280 by 280."""

import json
from pathlib import Path

from PIL import Image, ImageDraw

DRAWINGS = json.loads(Path(__file__).with_name("drawings.json").read_text(encoding="utf-8"))
SIDE, PEN = 280, 22


def draw(strokes):
    """What a round pen leaves on a white board, a grey picture."""
    board = Image.new("L", (SIDE, SIDE), 255)
    pen = ImageDraw.Draw(board)
    for stroke in strokes:
        pen.line([tuple(point) for point in stroke], fill=0, width=PEN, joint="curve")
        for x, y in stroke:
            pen.ellipse((x - PEN / 2, y - PEN / 2, x + PEN / 2, y + PEN / 2), fill=0)
    return board
