"""Every network of the ladders, smallest idea first: three building blocks, then the networks.

Input is always float32 (N, 1, 28, 28), output always logits (N, 10). A network is a plain
`nn.Sequential`: its layers in the order in which they act. The comment after a layer gives its output,
channels x height x width, and its receptive field in pixels of the input, both for the default
arguments; a test compares every comment with the traced network.

| class             | rungs         | parameters      | receptive field |
|-------------------|---------------|-----------------|-----------------|
| Oversized         | a00 b01       | 6,379,786       | 40              |
| FirstSkeleton     | a01           | 13,160          | 28              |
| PooledSkeleton    | a02           | 4,572           | 28              |
| NormedSkeleton    | a03 a04       | 5,088           | 28              |
| PooledHead        | a05 a06       | 6,124           | 28              |
| TwoLayerHead      | a07           | 6,720           | 28              |
| LargeKernelHead   | b02 b03       | 194,884  10,790 | 28              |
| NormedLargeKernel | b04 b05       | 10,970          | 28              |
| PooledClassMaps   | b06           | 6,070           | 28              |
| ExtraCapacity     | b07           | 11,994          | 28              |
| EarlyPooling      | b08 b09 b10   | 13,808          | 32              |
| SixConvolutions   | c01 - c05     | 9,714  7,826    | 28              |
| SevenConvolutions | c06           | 7,946           | 32              |
| DeepPooled        | d01           | 257,354         | 44              |
| NormedDeepPooled  | d02 d03       | 19,942          | 44              |
| OneByOne          | d04 d05 d06   | 7,216           | 44              |
| DeepSeparable     | e01 e02       | 7,084           | 40              |
| WideSeparable     | e03 e05       | 7,828           | 36              |
| CroppedSeparable  | e04           | 7,068           | 36              |
"""

from functools import partial

import torch
from torch import nn

# ------------------------------------------------------------------------------------ building blocks


class Dropout(nn.Dropout):
    """Zero each activation with probability p: what `nn.Dropout` does, drawn faster on a CPU.

    torch draws one random number per activation, which takes longer than the convolutions of a small
    network. Here one 64-bit draw serves four activations, 16 bits each, so that p is rounded to the
    nearest 1/65536 and the survivors are scaled by exactly that rounded rate. Off the CPU, and
    at rates that 16 bits cannot tell from 0 or 1, this is `nn.Dropout` itself.

    Source: Srivastava et al. 2014, "Dropout: a simple way to prevent neural networks from overfitting".
    """

    def forward(self, activations):
        dropped = round(self.p * 2**16)
        if not self.training or activations.device.type != "cpu" or not 0 < dropped < 2**16:
            return super().forward(activations)
        count, strides = activations.numel(), torch.empty_like(activations).stride()
        draws = torch.empty((count + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
        mask = torch.empty(count, dtype=activations.dtype)
        torch.ge(draws.view(torch.int16)[:count], dropped - 2**15, out=mask)  # a bool mask would cost ten times more
        mask.mul_(2**16 / (2**16 - dropped))
        return activations * mask.as_strided(activations.shape, strides)


class ConvUnit(nn.Sequential):
    """A convolution and the layers that follow it, in the order in which `after` names them.

    Args:
        after: words from "relu", "norm" (batch normalisation, Ioffe & Szegedy 2015) and "dropout";
            their order is part of the network. At `dropout=0` the dropout layer is left out.
    """

    def __init__(self, in_channels, out_channels, kernel_size=3, *, after, padding=0, bias=False, dropout=0.0):
        if not isinstance(dropout, int | float) or isinstance(dropout, bool) or not 0 <= dropout < 1:
            raise ValueError(f"ConvUnit: dropout={dropout!r} must be a number at least 0 and below 1")
        followers = {
            "relu": nn.ReLU,
            "norm": partial(nn.BatchNorm2d, out_channels),
            "dropout": partial(Dropout, dropout),
        }
        names = [name for name in after.split() if name != "dropout" or dropout > 0]
        convolution = nn.Conv2d(in_channels, out_channels, kernel_size, padding=padding, bias=bias)
        super().__init__(convolution, *(followers[name]() for name in names))


def project(in_channels, out_channels, *, bias=False):
    """Mix channels pixel by pixel: a bare 1x1 convolution (Lin et al. 2013, "Network in network")."""
    return nn.Conv2d(in_channels, out_channels, kernel_size=1, bias=bias)


def filter_each(channels, *, padding=0):
    """Convolve every channel by itself, 3x3: nine weights per channel."""
    return nn.Conv2d(channels, channels, kernel_size=3, padding=padding, groups=channels, bias=False)


class SeparableUnit(nn.Sequential):
    """A convolution in two: 3x3 on every channel by itself, 1x1 across channels; then normalisation and ReLU.

    9 i + i o weights do much of what 9 i o do in a full convolution from i to o channels.

    Args:
        mix: the 1x1 convolution, for units that share one; its own by default.

    Source: Sifre & Mallat 2014, "Rigid-motion scattering for texture classification"; Howard et al. 2017, "MobileNets".
    """

    def __init__(self, in_channels, out_channels, *, padding=0, mix=None):
        mix = mix or project(in_channels, out_channels)
        separable = nn.Sequential(filter_each(in_channels, padding=padding), mix)
        super().__init__(separable, nn.BatchNorm2d(out_channels), nn.ReLU())


# ----------------------------------------------------------- ladder A: fewer than 8,000 parameters


class Oversized(nn.Sequential):
    """Show that the set-up learns, with far more capacity than the task needs.

    Source: steps 000-0, 001-1 and 003-1. Rungs a00 and b01.
    """

    def __init__(self):
        unit = partial(ConvUnit, after="relu", bias=True)
        super().__init__(
            unit(1, 32, padding=1),  # 32x28x28  rf 3
            unit(32, 64, padding=1),  # 64x28x28  rf 5
            nn.MaxPool2d(2),  # 64x14x14  rf 6
            unit(64, 128, padding=1),  # 128x14x14  rf 10
            unit(128, 256, padding=1),  # 256x14x14  rf 14
            nn.MaxPool2d(2),  # 256x7x7  rf 16
            unit(256, 512),  # 512x5x5  rf 24
            unit(512, 1024),  # 1024x3x3  rf 32
            nn.Conv2d(1024, 10, kernel_size=3),  # 10x1x1  rf 40
            nn.Flatten(),
        )


class FirstSkeleton(nn.Sequential):
    """Narrow layers around one 1x1 transition; the last kernel still covers all that is left.

    Source: step 003-2. Rung a01.
    """

    def __init__(self):
        unit = partial(ConvUnit, after="relu")
        super().__init__(
            unit(1, 8),  # 8x26x26  rf 3
            unit(8, 16),  # 16x24x24  rf 5
            unit(16, 16),  # 16x22x22  rf 7
            unit(16, 8, kernel_size=1),  # 8x22x22  rf 7
            nn.MaxPool2d(2),  # 8x11x11  rf 8
            unit(8, 16),  # 16x9x9  rf 12
            unit(16, 16),  # 16x7x7  rf 16
            unit(16, 16),  # 16x5x5  rf 20
            unit(16, 16),  # 16x3x3  rf 24
            nn.Conv2d(16, 10, kernel_size=3, bias=False),  # 10x1x1  rf 28
            nn.Flatten(),
        )


class PooledSkeleton(nn.Sequential):
    """Global average pooling over ten class maps takes the place of the last large kernel.

    Source: step 000-1. Rung a02.
    """

    def __init__(self):
        unit = partial(ConvUnit, after="relu")
        super().__init__(
            unit(1, 8),  # 8x26x26  rf 3
            unit(8, 16),  # 16x24x24  rf 5
            nn.MaxPool2d(2),  # 16x12x12  rf 6
            unit(16, 8, kernel_size=1),  # 8x12x12  rf 6
            unit(8, 10),  # 10x10x10  rf 10
            unit(10, 10),  # 10x8x8  rf 14
            unit(10, 16),  # 16x6x6  rf 18
            project(16, 10),  # 10x6x6  rf 18
            nn.AvgPool2d(6),  # 10x1x1  rf 28
            nn.Flatten(),
        )


class NormedSkeleton(nn.Sequential):
    """Batch normalisation after every convolution, the one that makes the class maps included.

    Source: steps 000-2 and 003-3 (dropout 0), 000-3 and 003-4 (dropout 0.1). Rungs a03 and a04.
    """

    def __init__(self, dropout=0.0):
        unit = partial(ConvUnit, after="norm dropout relu", dropout=dropout)
        super().__init__(
            unit(1, 8),  # 8x26x26  rf 3
            unit(8, 16),  # 16x24x24  rf 5
            nn.MaxPool2d(2),  # 16x12x12  rf 6
            unit(16, 8, kernel_size=1),  # 8x12x12  rf 6
            unit(8, 10),  # 10x10x10  rf 10
            unit(10, 16),  # 16x8x8  rf 14
            unit(16, 10),  # 10x6x6  rf 18
            nn.AvgPool2d(6),  # 10x1x1  rf 28
            nn.Flatten(),
        )


class PooledHead(nn.Sequential):
    """Pool sixteen feature maps instead of ten class maps, then let a 1x1 layer decide.

    Source: steps 000-4, 000-5, 003-5 and 003-6. Rungs a05 and a06.
    """

    def __init__(self, dropout=0.03):
        unit = partial(ConvUnit, after="norm relu dropout", dropout=dropout)
        super().__init__(
            unit(1, 8),  # 8x26x26  rf 3
            unit(8, 16),  # 16x24x24  rf 5
            nn.MaxPool2d(2),  # 16x12x12  rf 6
            unit(16, 8, kernel_size=1),  # 8x12x12  rf 6
            unit(8, 10),  # 10x10x10  rf 10
            unit(10, 16),  # 16x8x8  rf 14
            unit(16, 16),  # 16x6x6  rf 18
            nn.AvgPool2d(6),  # 16x1x1  rf 28
            project(16, 10),  # 10x1x1  rf 28
            nn.Flatten(),
        )


class TwoLayerHead(nn.Sequential):
    """A hidden 1x1 layer between the pooled features and the classes; a bare transition.

    Source: steps 000-6 and 003-7. Rungs a07 to a09.
    """

    def __init__(self, dropout=0.03):
        unit = partial(ConvUnit, after="relu norm dropout", dropout=dropout)
        super().__init__(
            unit(1, 8),  # 8x26x26  rf 3
            unit(8, 16),  # 16x24x24  rf 5
            nn.MaxPool2d(2),  # 16x12x12  rf 6
            project(16, 8),  # 8x12x12  rf 6
            unit(8, 10),  # 10x10x10  rf 10
            unit(10, 16),  # 16x8x8  rf 14
            unit(16, 18),  # 18x6x6  rf 18
            nn.AvgPool2d(6),  # 18x1x1  rf 28
            unit(18, 16, kernel_size=1),  # 16x1x1  rf 28
            project(16, 10),  # 10x1x1  rf 28
            nn.Flatten(),
        )


# ----------------------------------------------------------- ladder B: no fully connected layer


class LargeKernelHead(nn.Sequential):
    """Convolutions, a transition, convolutions, and a 7x7 kernel that reads the whole last map.

    Source: steps 001-2 (the default widths) and 001-3 (widths 10, 10, 20). Rungs b02 and b03.
    """

    def __init__(self, widths=(32, 64, 128)):
        narrow, middle, wide = widths
        unit = partial(ConvUnit, after="relu")
        super().__init__(
            unit(1, narrow),  # 32x26x26  rf 3
            unit(narrow, middle),  # 64x24x24  rf 5
            unit(middle, wide),  # 128x22x22  rf 7
            nn.MaxPool2d(2),  # 128x11x11  rf 8
            unit(wide, narrow, kernel_size=1),  # 32x11x11  rf 8
            unit(narrow, middle),  # 64x9x9  rf 12
            unit(middle, wide),  # 128x7x7  rf 16
            unit(wide, 10, kernel_size=1),  # 10x7x7  rf 16
            nn.Conv2d(10, 10, kernel_size=7, bias=False),  # 10x1x1  rf 28
            nn.Flatten(),
        )


class NormedLargeKernel(nn.Sequential):
    """Batch normalisation before every ReLU; dropout, if any, in two places only.

    Source: steps 001-4 (dropout 0) and 001-5 (dropout 0.25). Rungs b04 and b05.
    """

    def __init__(self, dropout=0.0):
        unit = partial(ConvUnit, after="norm relu")
        unit_and_dropout = partial(ConvUnit, after="norm relu dropout", dropout=dropout)
        super().__init__(
            unit(1, 10),  # 10x26x26  rf 3
            unit(10, 10),  # 10x24x24  rf 5
            unit_and_dropout(10, 20),  # 20x22x22  rf 7
            nn.MaxPool2d(2),  # 20x11x11  rf 8
            unit(20, 10, kernel_size=1),  # 10x11x11  rf 8
            unit(10, 10),  # 10x9x9  rf 12
            unit_and_dropout(10, 20),  # 20x7x7  rf 16
            unit(20, 10, kernel_size=1),  # 10x7x7  rf 16
            nn.Conv2d(10, 10, kernel_size=7, bias=False),  # 10x1x1  rf 28
            nn.Flatten(),
        )


class PooledClassMaps(nn.Sequential):
    """Global average pooling over the ten class maps takes the place of the 7x7 kernel.

    Source: step 001-6. Rung b06.
    """

    def __init__(self, dropout=0.25):
        unit = partial(ConvUnit, after="norm relu")
        unit_and_dropout = partial(ConvUnit, after="norm relu dropout", dropout=dropout)
        super().__init__(
            unit(1, 10),  # 10x26x26  rf 3
            unit(10, 10),  # 10x24x24  rf 5
            unit_and_dropout(10, 20),  # 20x22x22  rf 7
            nn.MaxPool2d(2),  # 20x11x11  rf 8
            unit(20, 10, kernel_size=1),  # 10x11x11  rf 8
            unit(10, 10),  # 10x9x9  rf 12
            unit_and_dropout(10, 20),  # 20x7x7  rf 16
            unit(20, 10, kernel_size=1),  # 10x7x7  rf 16
            nn.AvgPool2d(7),  # 10x1x1  rf 28
            nn.Flatten(),
        )


class ExtraCapacity(nn.Sequential):
    """One more 3x3 layer, 32 wide, before bare class maps and the pooling.

    Source: step 001-7. Rung b07.
    """

    def __init__(self, dropout=0.25):
        unit = partial(ConvUnit, after="norm relu")
        unit_and_dropout = partial(ConvUnit, after="norm relu dropout", dropout=dropout)
        super().__init__(
            unit(1, 10),  # 10x26x26  rf 3
            unit(10, 10),  # 10x24x24  rf 5
            unit_and_dropout(10, 20),  # 20x22x22  rf 7
            nn.MaxPool2d(2),  # 20x11x11  rf 8
            unit(20, 10, kernel_size=1),  # 10x11x11  rf 8
            unit(10, 10),  # 10x9x9  rf 12
            unit_and_dropout(10, 20),  # 20x7x7  rf 16
            unit(20, 32),  # 32x5x5  rf 20
            project(32, 10),  # 10x5x5  rf 20
            nn.AvgPool2d(5),  # 10x1x1  rf 28
            nn.Flatten(),
        )


class EarlyPooling(nn.Sequential):
    """Pool at receptive field 5, a little dropout in every unit, and classes decided after pooling.

    Source: steps 001-8, 001-9 and 001-10. Rungs b08 to b12.
    """

    def __init__(self, dropout=0.1):
        unit = partial(ConvUnit, after="relu norm dropout", dropout=dropout)
        super().__init__(
            unit(1, 16),  # 16x26x26  rf 3
            unit(16, 32),  # 32x24x24  rf 5
            project(32, 10),  # 10x24x24  rf 5
            nn.MaxPool2d(2),  # 10x12x12  rf 6
            unit(10, 16),  # 16x10x10  rf 10
            unit(16, 16),  # 16x8x8  rf 14
            unit(16, 16),  # 16x6x6  rf 18
            unit(16, 16, padding=1),  # 16x6x6  rf 22
            nn.AvgPool2d(6),  # 16x1x1  rf 32
            project(16, 10),  # 10x1x1  rf 32
            nn.Flatten(),
        )


# ----------------------------------------------------------- ladder C: the receptive field


class SixConvolutions(nn.Sequential):
    """Two convolutions, one pooling, four convolutions, pooled features, a 1x1 head.

    Source: steps 002-1 (the default widths) and 002-2 to 002-5 (widths 8, 12, 12, 12, 12, 24; from 002-3 on
    dropout 0.05), derived from published counts and receptive fields; the original networks are not public.
    Rungs c01 to c05; the smaller field of c08.
    """

    def __init__(self, widths=(8, 12, 16, 16, 12, 24), dropout=0.0):
        first, second, third, fourth, fifth, sixth = widths
        unit = partial(ConvUnit, after="norm relu dropout", dropout=dropout)
        super().__init__(
            unit(1, first),  # 8x26x26  rf 3
            unit(first, second),  # 12x24x24  rf 5
            nn.MaxPool2d(2),  # 12x12x12  rf 6
            unit(second, third),  # 16x10x10  rf 10
            unit(third, fourth),  # 16x8x8  rf 14
            unit(fourth, fifth),  # 12x6x6  rf 18
            unit(fifth, sixth),  # 24x4x4  rf 22
            nn.AvgPool2d(4),  # 24x1x1  rf 28
            project(sixth, 10, bias=True),  # 10x1x1  rf 28
            nn.Flatten(),
        )


class SevenConvolutions(nn.Sequential):
    """One more convolution at almost the same size, by padding the first two: receptive field 32.

    Source: step 002-6, derived as above. Rungs c06 to c08.
    """

    def __init__(self, dropout=0.05):
        unit = partial(ConvUnit, after="norm relu dropout", dropout=dropout)
        super().__init__(
            unit(1, 8, padding=1),  # 8x28x28  rf 3
            unit(8, 12, padding=1),  # 12x28x28  rf 5
            nn.MaxPool2d(2),  # 12x14x14  rf 6
            unit(12, 12),  # 12x12x12  rf 10
            unit(12, 12),  # 12x10x10  rf 14
            unit(12, 12),  # 12x8x8  rf 18
            unit(12, 12),  # 12x6x6  rf 22
            unit(12, 14),  # 14x4x4  rf 26
            nn.AvgPool2d(4),  # 14x1x1  rf 32
            project(14, 10, bias=True),  # 10x1x1  rf 32
            nn.Flatten(),
        )


# ----------------------------------------------------------- ladder D: 1x1 convolutions


class DeepPooled(nn.Sequential):
    """Two poolings and wide layers: a receptive field beyond the image, far too many parameters.

    Source: step 004 code 1. Rung d01; with a fraction of the widths, the ablation of d02.
    """

    def __init__(self, widths=(8, 16, 32, 64, 128, 128)):
        first, second, third, fourth, fifth, sixth = widths
        unit = partial(ConvUnit, after="relu", bias=True)
        super().__init__(
            unit(1, first, padding=1),  # 8x28x28  rf 3
            unit(first, second, padding=1),  # 16x28x28  rf 5
            unit(second, third, padding=1),  # 32x28x28  rf 7
            unit(third, fourth, padding=1),  # 64x28x28  rf 9
            nn.MaxPool2d(2),  # 64x14x14  rf 10
            unit(fourth, fifth, padding=1),  # 128x14x14  rf 14
            unit(fifth, sixth, padding=1),  # 128x14x14  rf 18
            nn.MaxPool2d(2),  # 128x7x7  rf 20
            nn.Conv2d(sixth, 10, kernel_size=3),  # 10x5x5  rf 28
            nn.AvgPool2d(5, stride=2),  # 10x1x1  rf 44
            nn.Flatten(),
        )


class NormedDeepPooled(nn.Sequential):
    """The same skeleton with a fraction of the channels, and batch normalisation after ReLU.

    Source: step 004 codes 2 (dropout 0) and 3 (dropout 0.05). Rungs d02 and d03.
    """

    def __init__(self, dropout=0.0):
        unit = partial(ConvUnit, after="relu norm dropout", bias=True, dropout=dropout)
        super().__init__(
            unit(1, 4, padding=1),  # 4x28x28  rf 3
            unit(4, 8, padding=1),  # 8x28x28  rf 5
            unit(8, 12, padding=1),  # 12x28x28  rf 7
            unit(12, 16, padding=1),  # 16x28x28  rf 9
            nn.MaxPool2d(2),  # 16x14x14  rf 10
            unit(16, 32, padding=1),  # 32x14x14  rf 14
            unit(32, 32, padding=1),  # 32x14x14  rf 18
            nn.MaxPool2d(2),  # 32x7x7  rf 20
            nn.Conv2d(32, 10, kernel_size=3),  # 10x5x5  rf 28
            nn.AvgPool2d(5, stride=2),  # 10x1x1  rf 44
            nn.Flatten(),
        )


class OneByOne(nn.Sequential):
    """A 1x1 transition before the first pooling and a 1x1 head after the last: below 8,000.

    Source: step 004 codes 4, 5 and 6. Rungs d04 to d08.
    """

    def __init__(self, dropout=0.05):
        unit = partial(ConvUnit, after="relu norm dropout", bias=True, dropout=dropout)
        super().__init__(
            unit(1, 8, padding=1),  # 8x28x28  rf 3
            unit(8, 12, padding=1),  # 12x28x28  rf 5
            project(12, 6, bias=True),  # 6x28x28  rf 5
            nn.MaxPool2d(2),  # 6x14x14  rf 6
            unit(6, 12),  # 12x12x12  rf 10
            unit(12, 12),  # 12x10x10  rf 14
            unit(12, 12, padding=1),  # 12x10x10  rf 18
            nn.MaxPool2d(2),  # 12x5x5  rf 20
            unit(12, 12),  # 12x3x3  rf 28
            unit(12, 12, padding=1),  # 12x3x3  rf 36
            nn.AvgPool2d(3, stride=2),  # 12x1x1  rf 44
            project(12, 10, bias=True),  # 10x1x1  rf 44
            nn.Flatten(),
        )


# ------------------------------------------------------------------------ ladder E: the frontier


class DeepSeparable(nn.Sequential):
    """Separable units, two before the pooling and six after it: few weights per layer, so many layers.

    Found by the search of notebook 98; the arguments are the widths, `last` that of the last unit, where it differs.
    Rungs e01 and e02.
    """

    def __init__(self, first=8, second=24, width=28, last=None):
        last = last or width
        super().__init__(
            ConvUnit(1, first, after="norm relu"),  # 8x26x26  rf 3
            SeparableUnit(first, second),  # 24x24x24  rf 5
            nn.MaxPool2d(2),  # 24x12x12  rf 6
            SeparableUnit(second, width, padding=1),  # 28x12x12  rf 10
            SeparableUnit(width, width, padding=1),  # 28x12x12  rf 14
            SeparableUnit(width, width),  # 28x10x10  rf 18
            SeparableUnit(width, width, padding=1),  # 28x10x10  rf 22
            SeparableUnit(width, width),  # 28x8x8  rf 26
            SeparableUnit(width, last),  # 28x6x6  rf 30
            nn.AdaptiveAvgPool2d(1),  # 28x1x1  rf 40
            project(last, 10),  # 10x1x1  rf 40
            nn.Flatten(),
        )


class WideSeparable(nn.Sequential):
    """Separable units, three before the pooling and four wide ones after it: better than depth for short training.

    Found by the search of notebook 98. Rungs e03 and e05 (first 16, width 35).
    """

    def __init__(self, first=8, width=36):
        super().__init__(
            ConvUnit(1, first, after="norm relu"),  # 8x26x26  rf 3
            SeparableUnit(first, 24),  # 24x24x24  rf 5
            SeparableUnit(24, 24),  # 24x22x22  rf 7
            nn.MaxPool2d(2),  # 24x11x11  rf 8
            SeparableUnit(24, width, padding=1),  # 36x11x11  rf 12
            SeparableUnit(width, width),  # 36x9x9  rf 16
            SeparableUnit(width, width, padding=1),  # 36x9x9  rf 20
            SeparableUnit(width, width),  # 36x7x7  rf 24
            nn.AdaptiveAvgPool2d(1),  # 36x1x1  rf 36
            project(width, 10),  # 10x1x1  rf 36
            nn.Flatten(),
        )


class CroppedSeparable(nn.Sequential):
    """Separable units on the middle of the image, two before the pooling and five after it: few products.

    Digits fill the middle 20x20 pixels, so `cut` pixels go on every side. Found by the search of notebook 98. Rung e04.
    """

    def __init__(self, cut=2):
        super().__init__(
            nn.ZeroPad2d(-cut),  # 1x24x24  rf 1
            ConvUnit(1, 8, after="norm relu"),  # 8x22x22  rf 3
            SeparableUnit(8, 20),  # 20x20x20  rf 5
            nn.MaxPool2d(2),  # 20x10x10  rf 6
            SeparableUnit(20, 32, padding=1),  # 32x10x10  rf 10
            SeparableUnit(32, 32, padding=1),  # 32x10x10  rf 14
            SeparableUnit(32, 32),  # 32x8x8  rf 18
            SeparableUnit(32, 32, padding=1),  # 32x8x8  rf 22
            SeparableUnit(32, 32),  # 32x6x6  rf 26
            nn.AdaptiveAvgPool2d(1),  # 32x1x1  rf 36
            project(32, 10),  # 10x1x1  rf 36
            nn.Flatten(),
        )
