"""Networks written in one line, for a search over many of them: "c8 c8 M c12 c12 c16p c16 G"."""

import re

from torch import nn

from model import filter_each, project

ACTIVATIONS = {"relu": nn.ReLU, "leaky": nn.LeakyReLU, "silu": nn.SiLU, "gelu": nn.GELU, "hard": nn.Hardswish}
POOLS = {
    "M": lambda: nn.MaxPool2d(2),
    "A": lambda: nn.AvgPool2d(2),
    "B": lambda: nn.Sequential(nn.MaxPool2d(2, stride=1), nn.AvgPool2d(2)),
}
UNIT = re.compile(
    r"(?P<kind>[csr])(?P<width>\d+)(?P<padded>p?)(?P<doubled>x?)(?P<squeezed>e?)(?P<skipped>\+?)(?P<shared>[=~]?)"
)
CROP = re.compile(r"i(?P<side>\d*[02468])")
SIDE = 28
SQUEEZE = 4


class Notation(nn.Sequential):
    """A network spelled as words, separated by spaces.

    iN    only the middle N x N pixels of the image; the first word, if it is there
    cN    3x3 convolution to N channels, batch normalisation, activation
    sN    the same, depthwise separable: 3x3 for each channel, then 1x1
    rN    the same, 1x1
    p     behind these: padding of 1
    x     behind sN, rN: the 1x1 convolution as a product of two, with 2N channels in between (Guo et al. 2018); when
          training is over, the two are one, see `lab.tracing.folding`
    e     behind these: squeeze and excite (Hu et al. 2017), a quarter of the channels in between
    +     behind these: add the unit's input to its output (He et al. 2015)
    =     behind these: the convolution of the word before, weights and all, with a normalisation of its own
    ~     behind sN: the 1x1 convolution of the word before, with a 3x3 and a normalisation of its own
    M, A  max or average pooling by 2
    B     the largest of 2x2 at every place, then average pooling by 2: shifts by one pixel matter less (Zhang 2019)
    G     average over all that is left, then 1x1 to the ten classes; the last word

    Raises: ValueError naming the word that cannot be read.
    """

    def __init__(self, layers, activation="relu"):
        super().__init__()
        channels, convolution, shape = 1, None, None
        for position, word in enumerate(layers.split()):
            if position == 0 and (match := CROP.fullmatch(word)) and 0 < int(match["side"]) < SIDE:
                self.append(nn.ZeroPad2d(-((SIDE - int(match["side"])) // 2)))
            elif word in POOLS:
                self.append(POOLS[word]())
            elif word == "G":
                self.extend([nn.AdaptiveAvgPool2d(1), project(channels, 10), nn.Flatten()])
            elif match := UNIT.fullmatch(word):
                width, doubled = int(match["width"]), bool(match["doubled"])
                if doubled and (match["kind"] == "c" or match["shared"]):
                    raise ValueError(f"layers={layers!r}: in {word!r} there is no 1x1 convolution of its own to double")
                half = match["shared"] == "~"  # of a separable convolution
                if match["shared"] and (shape != (match["kind"], channels, width) or half and match["kind"] != "s"):
                    raise ValueError(f"layers={layers!r}: {word!r} does not fit the convolution before it")
                padding = int(bool(match["padded"]))
                if half:
                    convolution = nn.Sequential(filter_each(channels, padding=padding), convolution[1])
                elif match["shared"] != "=":
                    shape = (match["kind"], channels, width)
                    convolution = _convolution(match["kind"], channels, width, padding, doubled)
                unit = nn.Sequential(convolution, nn.BatchNorm2d(width), ACTIVATIONS[activation]())
                if match["squeezed"]:
                    unit.append(SqueezeExcite(width))
                self.append(Skip(unit) if match["skipped"] else unit)
                channels = width
            else:
                raise ValueError(f"layers={layers!r}: cannot read the word {word!r}")
        if not layers.endswith("G"):
            raise ValueError(f"layers={layers!r} must end with G")


def _convolution(kind, inputs, width, padding, doubled):
    if kind == "c":
        return nn.Conv2d(inputs, width, 3, padding=padding, bias=False)
    parts = [filter_each(inputs, padding=padding)] if kind == "s" else []
    parts += [project(inputs, 2 * width), project(2 * width, width)] if doubled else [project(inputs, width)]
    return nn.Sequential(*parts) if len(parts) > 1 else parts[0]


class SqueezeExcite(nn.Module):
    """Scale every channel by factors computed from all channel averages (Hu et al. 2017)."""

    def __init__(self, channels):
        super().__init__()
        inner = max(channels // SQUEEZE, 2)
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, inner, 1), nn.ReLU(), nn.Conv2d(inner, channels, 1)
        )

    def forward(self, maps):
        return maps * self.gate(maps).sigmoid()


class Skip(nn.Module):
    """Add the input to the output."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, maps):
        return maps + self.inner(maps)
