"""Alignment of two feature maps: pyramid, cascading and deformable sampling (PCD), after EDVR.

The paper uses one structure three times (Sec. 3.4): to interpolate the missing frame between two frames, and to
align the hidden state and the cell state of the ConvLSTM with the current frame. Each use is a separate
`AlignedFusion`: three pyramid levels of both maps, each map sampled towards the other, coarse to fine, and a 1x1
convolution that blends the two (the alpha and beta of Eq. 4).

Limits: height and width must be multiples of 4 (two stride-2 levels).
"""

import math
from collections.abc import Iterable
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stvsr.errors import InvalidInput
from stvsr.models.blocks import conv1x1, conv3x3, conv_of_two, conv_part, leaky_relu, start_at_zero
from stvsr.ops.deformable import Sizes, deform_conv2d
from stvsr.ops.deformable_cpu import TAPS


class Pyramid(NamedTuple):
    """Feature maps of one frame or state at full, half and quarter resolution."""

    level1: Tensor  # (b, c, h, w)
    level2: Tensor  # (b, c, h/2, w/2)
    level3: Tensor  # (b, c, h/4, w/4)


def upsample2(features: Tensor) -> Tensor:
    """Bilinear x2, `align_corners=False`: `(b, c, h, w)` to `(b, c, 2h, 2w)`."""
    return F.interpolate(features, scale_factor=2, mode="bilinear", align_corners=False)


class Partner(NamedTuple):
    """One of the two maps of an `AlignedFusion`, with its contribution to each alignment."""

    pyramid: Pyramid
    in_first: tuple[Tensor, ...]  # its share in the alignment of the first map
    in_second: tuple[Tensor, ...]  # and of the second


class FeaturePyramid(nn.Module):
    """Adds two levels to a feature map, each half as high and wide as the one before."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.down2, self.conv2 = conv3x3(channels, channels, stride=2), conv3x3(channels, channels)
        self.down3, self.conv3 = conv3x3(channels, channels, stride=2), conv3x3(channels, channels)

    def forward(self, level1: Tensor) -> Pyramid:
        """Features `(b, c, h, w)`, sides multiples of 4, to levels of whole, half and quarter size."""
        level2 = leaky_relu(self.conv2(leaky_relu(self.down2(level1))))
        level3 = leaky_relu(self.conv3(leaky_relu(self.down3(level2))))
        return Pyramid(level1, level2, level3)


class DeformableSampling(nn.Module):
    """Samples features at learned offsets (Eq. 3): a modulated deformable convolution with its offset head.

    Args:
        channels: width of every map.
        deformable_groups: number of channel groups, each sampled at its own offsets.

    Raises:
        InvalidInput: `deformable_groups` does not divide `channels`.
    """

    def __init__(self, *, channels: int, deformable_groups: int) -> None:
        super().__init__()
        if deformable_groups < 1 or channels % deformable_groups:
            raise InvalidInput(
                f"deformable_groups={deformable_groups} does not divide channels={channels}; choose a multiple of "
                "it, or another deformable_groups in every part of the model"
            )
        self.sizes = Sizes(channels=channels, groups=deformable_groups, outputs=channels)
        self.offset_channels = 2 * TAPS * deformable_groups
        self.weight = nn.Parameter(torch.empty(channels, channels, 3, 3))
        self.bias = nn.Parameter(torch.zeros(channels))
        # Outputs the offsets, then the mask.
        self.offset_mask = conv3x3(channels, 3 * TAPS * deformable_groups)
        # Offsets pass through this module so that monitors can hook it.
        self.offsets = nn.Identity()

        bound = 1 / math.sqrt(channels * TAPS)
        nn.init.uniform_(self.weight, -bound, bound)
        # Zero, so that sampling starts on the regular grid.
        start_at_zero(self.offset_mask)

    def forward(self, features: Tensor, offset_features: Tensor) -> Tensor:
        """Samples `features` at offsets predicted from `offset_features`; all maps are `(b, c, h, w)`."""
        offset = self.predict_offset(offset_features)
        # Predicted separately: as slices of one tensor, either would keep both in memory for training.
        mask = self._predict(offset_features, slice(self.offset_channels, None)).sigmoid_()
        return deform_conv2d(features, offset, mask, self.weight, self.bias)

    def predict_offset(self, offset_features: Tensor) -> Tensor:
        """Where to sample: `(b, 2 * 9 * deformable_groups, h, w)`, alternately down and right, in pixels.

        The dtype is that of the weights, even under autocast.
        """
        # Offsets are in pixels: below float32, a large one would be rounded to a sixteenth of a pixel.
        with torch.autocast(offset_features.device.type, enabled=False):
            exact = offset_features.to(self.offset_mask.weight.dtype)
            offset: Tensor = self.offsets(self._predict(exact, slice(None, self.offset_channels)))
        return offset

    def _predict(self, offset_features: Tensor, channels: slice) -> Tensor:
        assert self.offset_mask.bias is not None
        return F.conv2d(offset_features, self.offset_mask.weight[channels], self.offset_mask.bias[channels], padding=1)


class Alignment(nn.Module):
    """Samples one pyramid (source) towards another (target). A subclass must define only `forward`."""

    def share_of_source(self, source: Pyramid) -> tuple[Tensor, ...]:
        """The source's contribution, independent of the target: a map that meets several others is prepared once."""
        return ()

    def share_of_target(self, target: Pyramid) -> tuple[Tensor, ...]:
        """The target's contribution, independent of the source; by default the target itself."""
        return target

    def forward(
        self, source: Pyramid, share_of_source: tuple[Tensor, ...], share_of_target: tuple[Tensor, ...]
    ) -> Tensor:
        """The source aligned with the target: `(b, c, h, w)`."""
        raise NotImplementedError

    def of_pyramids(self, source: Pyramid, target: Pyramid) -> Tensor:
        """As `forward`, for two pyramids that are each used only once, so that no shares need to be kept."""
        aligned: Tensor = self(source, self.share_of_source(source), self.share_of_target(target))
        return aligned


class PCDAlignment(Alignment):
    """Samples one pyramid at offsets predicted from it and another, coarse to fine (Eq. 2 and 3).

    Arguments and errors are those of `DeformableSampling`.
    """

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

    def share_of_source(self, source: Pyramid) -> Pyramid:
        """The source's contribution to the offsets, at each level."""
        return self._shares(source, 0)

    def share_of_target(self, target: Pyramid) -> Pyramid:
        """As `share_of_source`, for the target."""
        return self._shares(target, target.level1.shape[1])

    def forward(
        self, source: Pyramid, share_of_source: tuple[Tensor, ...], share_of_target: tuple[Tensor, ...]
    ) -> Tensor:
        """The source aligned with the target: `(b, c, h, w)`."""
        return self._sample(source, self._offset_features(map(torch.add, share_of_source, share_of_target)))

    def of_pyramids(self, source: Pyramid, target: Pyramid) -> Tensor:
        """As `forward`, without keeping the shares."""
        return self._sample(source, self._offset_features(map(conv_of_two, self._first_offset_convs(), source, target)))

    def _sample(self, source: Pyramid, offset_features: Pyramid) -> Tensor:
        aligned3 = leaky_relu(self.sample3(source.level3, offset_features.level3))
        aligned2 = self.sample2(source.level2, offset_features.level2)
        aligned2 = leaky_relu(conv_of_two(self.merge2, aligned2, upsample2(aligned3)))
        aligned1 = self.sample1(source.level1, offset_features.level1)
        return conv_of_two(self.merge1, aligned1, upsample2(aligned2))

    def offsets(self, share_of_source: tuple[Tensor, ...], share_of_target: tuple[Tensor, ...]) -> Pyramid:
        """The offsets at which each level of the source is sampled, as `DeformableSampling.predict_offset` has them."""
        levels = self._offset_features(map(torch.add, share_of_source, share_of_target))
        samplings = (self.sample1, self.sample2, self.sample3)
        return Pyramid(*(sampling.predict_offset(level) for sampling, level in zip(samplings, levels, strict=True)))

    def _offset_features(self, combined: Iterable[Tensor]) -> Pyramid:
        """Features to predict offsets from, given each level's first convolution of both maps, which is overwritten."""
        combined1, combined2, combined3 = combined
        level3 = leaky_relu(self.offset3[1](leaky_relu(combined3)))
        level2 = self._refine(self.offset2, combined2, level3)
        level1 = self._refine(self.offset1, combined1, level2)
        return Pyramid(level1, level2, level3)

    def _shares(self, pyramid: Pyramid, first_channel: int) -> Pyramid:
        levels = zip(self._first_offset_convs(), pyramid, strict=True)
        return Pyramid(*(conv_part(conv, features, first_channel) for conv, features in levels))

    def _first_offset_convs(self) -> list[nn.Conv2d]:
        """The first offset convolution of each level, which takes both pyramids."""
        return [cast(nn.Conv2d, convs[0]) for convs in (self.offset1, self.offset2, self.offset3)]

    @staticmethod
    def _refine(convs: nn.ModuleList, features: Tensor, coarser: Tensor) -> Tensor:
        """Offset features of a level, from its first convolution's output and those of the coarser level."""
        _, second, third = cast(list[nn.Conv2d], convs)
        # Doubled: a displacement of one pixel is two pixels on the next finer level.
        features = leaky_relu(conv_of_two(second, leaky_relu(features), upsample2(coarser).mul_(2)))
        return leaky_relu(third(features))


class NaiveAlignment(Alignment):
    """`PCDAlignment` with an ordinary 3x3 convolution in place of each deformable sampling (ablation (a)).

    Pyramid and cascade stay; the convolutions that predict offsets have no purpose and are omitted.
    """

    def __init__(self, *, channels: int) -> None:
        super().__init__()
        c = channels
        self.conv3, self.conv2, self.conv1 = conv3x3(c, c), conv3x3(c, c), conv3x3(c, c)
        self.merge2, self.merge1 = conv3x3(2 * c, c), conv3x3(2 * c, c)

    def forward(
        self, source: Pyramid, share_of_source: tuple[Tensor, ...], share_of_target: tuple[Tensor, ...]
    ) -> Tensor:
        """As in `PCDAlignment`, but the target has no influence."""
        aligned3 = leaky_relu(self.conv3(source.level3))
        aligned2 = leaky_relu(conv_of_two(self.merge2, self.conv2(source.level2), upsample2(aligned3)))
        return conv_of_two(self.merge1, self.conv1(source.level1), upsample2(aligned2))


class AlignedFusion(nn.Module):
    """Two feature maps, each sampled towards the other, blended into one (Eq. 1 and 4).

    Args:
        channels: width of every map.
        align_first: samples the first map towards the second.
        align_second: samples the second towards the first.
    """

    def __init__(self, *, channels: int, align_first: Alignment, align_second: Alignment) -> None:
        super().__init__()
        self.pyramid = FeaturePyramid(channels)
        self.align_first = align_first
        self.align_second = align_second
        self.fuse = conv1x1(2 * channels, channels)

    def as_first(self, pyramid: Pyramid) -> Partner:
        """Prepares a map as the first of two, from a pyramid made by `self.pyramid`.

        Separate from `forward`, so that a map that meets several others is prepared only once.
        """
        return Partner(pyramid, self.align_first.share_of_source(pyramid), self.align_second.share_of_target(pyramid))

    def as_second(self, pyramid: Pyramid) -> Partner:
        """Prepares a map as the second of two, from a pyramid made by `self.pyramid`."""
        return Partner(pyramid, self.align_first.share_of_target(pyramid), self.align_second.share_of_source(pyramid))

    def forward(self, first: Partner, second: Partner) -> Tensor:
        """Blends two maps, prepared by `as_first` and `as_second`, into `(b, c, h, w)`."""
        aligned_first = self.align_first(first.pyramid, first.in_first, second.in_first)
        aligned_second = self.align_second(second.pyramid, second.in_second, first.in_second)
        return conv_of_two(self.fuse, aligned_first, aligned_second)

    def of_maps(self, first: Tensor, second: Tensor) -> Tensor:
        """As `forward`, for two large maps `(b, c, h, w)`, holding as little as possible in memory at once."""
        first_pyramid, second_pyramid = self.pyramid(first), self.pyramid(second)
        aligned_first = self.align_first.of_pyramids(first_pyramid, second_pyramid)
        aligned_second = self.align_second.of_pyramids(second_pyramid, first_pyramid)
        return conv_of_two(self.fuse, aligned_first, aligned_second)

    def offsets(self, first: Partner, second: Partner) -> tuple[Pyramid, Pyramid]:
        """The offsets at which the levels of each map are sampled; both alignments must be `PCDAlignment`."""
        align_first, align_second = (cast(PCDAlignment, align) for align in (self.align_first, self.align_second))
        first_offsets = align_first.offsets(first.in_first, second.in_first)
        return first_offsets, align_second.offsets(second.in_second, first.in_second)


def deformable_fusion(*, channels: int, deformable_groups: int) -> AlignedFusion:
    """An `AlignedFusion` that samples at learned offsets, with separate weights for the two directions."""
    first, second = (PCDAlignment(channels=channels, deformable_groups=deformable_groups) for _ in range(2))
    return AlignedFusion(channels=channels, align_first=first, align_second=second)
