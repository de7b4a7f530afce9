"""Depth from a single picture by MegaDepth's hourglass (Li and Snavely, CVPR 2018), in DAIN's version.

An hourglass (Chen et al., "Single-image depth perception in the wild", NIPS 2016) of four nested levels: each adds
features at its own resolution to upsampled ones of half the resolution. All its layers are inception blocks:
convolutions of four kernel sizes in parallel, with batch normalisation.

Limits: height and width must be multiples of 16.
"""

import torch
from torch import Tensor, nn

from stvsr.models.blocks import conv3x3
from stvsr.models.chunking import in_chunks

PARTS = (("lower", "skip"), ("lower", "skip"), ("skip", "lower"), ("skip", "lower"))
"""The order in which the authors number the two parts of each level, finest level first."""

RENAMING = (
    (r"([01])\.(\w+)$", r"stem.\1.\2"),
    (r"4\.", "log_depth."),
    (r"3\.", "hourglass."),
    *(
        (r"(hourglass" + r"\.lower\.3" * level + rf")\.0\.{number}\.", rf"\1.{part}.")
        for level, parts in enumerate(PARTS)
        for number, part in enumerate(parts)
    ),
    (r"(hourglass\..*)\.(\d\.\d\.\w+)$", r"\1.branches.\2"),
)
"""From tensor names in the authors' file, within this network, to ours."""


class MegaDepth(nn.Module):
    """Predicts the logarithm of every pixel's depth, up to an unknown constant.

    Args:
        channels: the unit of which all widths are multiples.
    """

    def __init__(self, *, channels: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(*_conv_layers(3, 8 * channels, kernel=7, affine=True))
        self.hourglass = _four_levels(channels)
        self.log_depth = conv3x3(4 * channels, 1)

    def forward(self, frames: Tensor) -> Tensor:
        """`(b, 3, h, w)`, RGB in [0, 1], to `(b, 1, h, w)`; without gradients, large frames one by one."""
        return in_chunks(lambda part: self.log_depth(self.hourglass(self.stem(part))), frames)


class Hourglass(nn.Module):
    """A level: the sum of layers at its own resolution and others at half of it, which include the next level.

    Args:
        skip: layers at its own resolution.
        lower: a pooling by 2 and layers at half of it; an upsampling is added.
    """

    def __init__(self, *, skip: list[nn.Module], lower: list[nn.Module]) -> None:
        super().__init__()
        self.skip = nn.Sequential(*skip)
        self.lower = nn.Sequential(*lower, nn.Upsample(scale_factor=2, mode="nearest"))

    def forward(self, features: Tensor) -> Tensor:
        """`(b, c, h, w)`, `h` and `w` even, to `(b, c', h, w)`, `c'` as its layers have it."""
        output: Tensor = self.skip(features)
        return output.add_(self.lower(features))


class Inception(nn.Module):
    """Convolutions of four kernel sizes in parallel, the larger ones after a 1x1 convolution.

    Args:
        in_channels: of the input.
        alone: output channels of the branch with only a 1x1 convolution.
        between: channels after the 1x1 convolutions of the others.
        each: output channels of each other branch.
        kernels: their kernel sizes.
    """

    def __init__(self, in_channels: int, alone: int, between: int, each: int, kernels: tuple[int, int, int]) -> None:
        super().__init__()
        larger = [
            _conv_layers(in_channels, between, kernel=1) + _conv_layers(between, each, kernel=kernel)
            for kernel in kernels
        ]
        self.branches = nn.ModuleList(
            nn.Sequential(*layers) for layers in [_conv_layers(in_channels, alone, kernel=1), *larger]
        )

    def forward(self, features: Tensor) -> Tensor:
        """`(b, in_channels, h, w)` to `(b, alone + 3 * each, h, w)`."""
        return torch.cat([branch(features) for branch in self.branches], dim=1)


def _conv_layers(in_channels: int, channels: int, *, kernel: int, affine: bool = False) -> list[nn.Module]:
    return [
        nn.Conv2d(in_channels, channels, kernel, padding=kernel // 2),
        nn.BatchNorm2d(channels, affine=affine),
        nn.ReLU(inplace=True),
    ]


def _four_levels(unit: int) -> Hourglass:
    """Builds the hourglass, from its coarsest level to its finest."""
    small, large = (3, 5, 7), (3, 7, 11)

    def block(in_width: int, alone: int, between: int, each: int, kernels: tuple[int, int, int] = small) -> Inception:
        return Inception(in_width * unit, alone * unit, between * unit, each * unit, kernels)

    def same() -> Inception:
        return block(16, 4, 2, 4)

    def wide() -> Inception:
        return block(16, 4, 4, 4, large)

    level = Hourglass(skip=[same(), same()], lower=[nn.AvgPool2d(2), same(), same(), same()])
    level = Hourglass(skip=[same(), wide()], lower=[nn.AvgPool2d(2), same(), same(), level, same(), wide()])
    level = Hourglass(
        skip=[block(8, 2, 2, 2), block(8, 2, 4, 2, large)],
        lower=[nn.MaxPool2d(2), block(8, 2, 2, 2), block(8, 4, 2, 4), level, same(), block(16, 2, 2, 2)],
    )
    return Hourglass(
        skip=[block(8, 1, 4, 1, large)],
        lower=[
            *(nn.MaxPool2d(2), block(8, 2, 2, 2), block(8, 2, 2, 2)),
            *(level, block(8, 2, 4, 2), block(8, 1, 2, 1, large)),
        ],
    )
