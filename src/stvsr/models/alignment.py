"""Alignment of two feature maps: pyramid, cascading and deformable sampling (PCD), after EDVR.

The paper uses one structure three times (Sec. 3.4): to interpolate the missing frame between two frames, and to
align the hidden state and the cell state of the ConvLSTM with the current frame. Each use is an `AlignedFusion`
of its own: three pyramid levels of both maps, each map sampled towards the other coarse to fine, and a 1x1
convolution that blends the two (the alpha and beta of Eq. 4).

Limits: height and width must be multiples of 4 (two stride-2 levels).
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stvsr.errors import InvalidInput
from stvsr.models.blocks import conv3x3, leaky_relu
from stvsr.ops.deformable import TAPS, deform_conv2d


class Pyramid(NamedTuple):
    """Feature maps of one frame or state at full, half and quarter resolution."""

    level1: Tensor  # (b, c, h, w)
    level2: Tensor  # (b, c, h/2, w/2)
    level3: Tensor  # (b, c, h/4, w/4)


def upsample2(features: Tensor) -> Tensor:
    """Bilinear x2, pixel centres aligned as areas: `(b, c, h, w)` to `(b, c, 2h, 2w)`."""
    return F.interpolate(features, scale_factor=2, mode="bilinear", align_corners=False)


class FeaturePyramid(nn.Module):
    """Two further levels, each half as high and wide as the one before."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.down2, self.conv2 = conv3x3(channels, channels, stride=2), conv3x3(channels, channels)
        self.down3, self.conv3 = conv3x3(channels, channels, stride=2), conv3x3(channels, channels)

    def forward(self, level1: Tensor) -> Pyramid:
        level2 = leaky_relu(self.conv2(leaky_relu(self.down2(level1))))
        level3 = leaky_relu(self.conv3(leaky_relu(self.down3(level2))))
        return Pyramid(level1, level2, level3)


class DeformableSampling(nn.Module):
    """Samples features at learned offsets (Eq. 3): a modulated deformable convolution with its offset head."""

    def __init__(self, *, channels: int, deformable_groups: int) -> None:
        super().__init__()
        if channels % deformable_groups:
            raise InvalidInput(f"deformable_groups={deformable_groups} does not divide channels={channels}")
        self.offset_channels = 2 * TAPS * deformable_groups
        self.weight = nn.Parameter(torch.empty(channels, channels, 3, 3))
        self.bias = nn.Parameter(torch.zeros(channels))
        # Offsets in the first channels, then the mask.
        self.offset_mask = conv3x3(channels, 3 * TAPS * deformable_groups)

        bound = 1 / math.sqrt(channels * TAPS)
        nn.init.uniform_(self.weight, -bound, bound)
        # Zero, so that sampling starts on the regular grid.
        nn.init.zeros_(self.offset_mask.weight)
        assert self.offset_mask.bias is not None
        nn.init.zeros_(self.offset_mask.bias)

    def forward(self, features: Tensor, offset_features: Tensor) -> Tensor:
        """Two maps `(b, c, h, w)` to one of the same shape."""
        offset_mask = self.offset_mask(offset_features)
        offset, mask = offset_mask[:, : self.offset_channels], offset_mask[:, self.offset_channels :]
        return deform_conv2d(features, offset, mask.sigmoid(), self.weight, self.bias)


class PCDAlignment(nn.Module):
    """Samples one pyramid at offsets predicted from it and another, coarse to fine (Eq. 2 and 3)."""

    def __init__(self, *, channels: int, deformable_groups: int) -> None:
        super().__init__()
        c = channels
        self.offset3 = nn.ModuleList([conv3x3(2 * c, c), conv3x3(c, c)])
        self.offset2 = nn.ModuleList([conv3x3(2 * c, c), conv3x3(2 * c, c), conv3x3(c, c)])
        self.offset1 = nn.ModuleList([conv3x3(2 * c, c), conv3x3(2 * c, c), conv3x3(c, c)])
        self.sample3, self.sample2, self.sample1 = (
            DeformableSampling(channels=c, deformable_groups=deformable_groups) for _ in range(3)
        )
        self.merge2, self.merge1 = conv3x3(2 * c, c), conv3x3(2 * c, c)

    def forward(self, source: Pyramid, target: Pyramid) -> Tensor:
        """Samples `source` towards `target`: two pyramids to `(b, c, h, w)`."""
        offset3 = leaky_relu(self.offset3[0](torch.cat([source.level3, target.level3], dim=1)))
        offset3 = leaky_relu(self.offset3[1](offset3))
        aligned3 = leaky_relu(self.sample3(source.level3, offset3))

        offset2 = self._refine_offset(self.offset2, source.level2, target.level2, offset3)
        aligned2 = self.sample2(source.level2, offset2)
        aligned2 = leaky_relu(self.merge2(torch.cat([aligned2, upsample2(aligned3)], dim=1)))

        offset1 = self._refine_offset(self.offset1, source.level1, target.level1, offset2)
        aligned1 = self.sample1(source.level1, offset1)
        merged: Tensor = self.merge1(torch.cat([aligned1, upsample2(aligned2)], dim=1))
        return merged

    @staticmethod
    def _refine_offset(convs: nn.ModuleList, source: Tensor, target: Tensor, coarser: Tensor) -> Tensor:
        """Offset features of one level from its two maps and the level below."""
        offset = leaky_relu(convs[0](torch.cat([source, target], dim=1)))
        # A displacement of one pixel is one of two pixels on the next finer level.
        offset = leaky_relu(convs[1](torch.cat([offset, 2 * upsample2(coarser)], dim=1)))
        return leaky_relu(convs[2](offset))


class NaiveAlignment(nn.Module):
    """`PCDAlignment` without motion: an ordinary 3x3 convolution wherever that samples (ablation (a)).

    Pyramid and cascade stay. The convolutions that predict offsets have no purpose left and are gone.
    """

    def __init__(self, *, channels: int) -> None:
        super().__init__()
        c = channels
        self.conv3, self.conv2, self.conv1 = conv3x3(c, c), conv3x3(c, c), conv3x3(c, c)
        self.merge2, self.merge1 = conv3x3(2 * c, c), conv3x3(2 * c, c)

    def forward(self, source: Pyramid, target: Pyramid) -> Tensor:
        """As `PCDAlignment`, but `target` has no say."""
        aligned3 = leaky_relu(self.conv3(source.level3))
        aligned2 = leaky_relu(self.merge2(torch.cat([self.conv2(source.level2), upsample2(aligned3)], dim=1)))
        merged: Tensor = self.merge1(torch.cat([self.conv1(source.level1), upsample2(aligned2)], dim=1))
        return merged


class AlignedFusion(nn.Module):
    """Two feature maps, each sampled towards the other, blended into one (Eq. 1 and 4)."""

    def __init__(self, *, channels: int, align_first: nn.Module, align_second: nn.Module) -> None:
        super().__init__()
        self.pyramid = FeaturePyramid(channels)
        self.align_first = align_first
        self.align_second = align_second
        self.fuse = nn.Conv2d(2 * channels, channels, kernel_size=1)

    def forward(self, first: Pyramid, second: Pyramid) -> Tensor:
        """Two pyramids made by `self.pyramid` to `(b, c, h, w)`.

        The pyramids come from the caller because one map often meets several others.
        """
        aligned = [self.align_first(first, second), self.align_second(second, first)]
        fused: Tensor = self.fuse(torch.cat(aligned, dim=1))
        return fused


def deformable_fusion(*, channels: int, deformable_groups: int) -> AlignedFusion:
    """An `AlignedFusion` that samples at learned offsets, with separate weights for the two directions."""
    first, second = (PCDAlignment(channels=channels, deformable_groups=deformable_groups) for _ in range(2))
    return AlignedFusion(channels=channels, align_first=first, align_second=second)


def naive_fusion(*, channels: int) -> AlignedFusion:
    """An `AlignedFusion` of ordinary convolutions."""
    first, second = (NaiveAlignment(channels=channels) for _ in range(2))
    return AlignedFusion(channels=channels, align_first=first, align_second=second)
