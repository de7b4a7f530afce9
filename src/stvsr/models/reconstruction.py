"""Frame reconstruction: features to HR frames by residual blocks and sub-pixel upscaling (Sec. 3.3)."""

import torch.nn.functional as F
from torch import Tensor, nn

from stvsr.data.clip import SCALE
from stvsr.models.blocks import conv3x3, exact_conv, leaky_relu, residual_blocks
from stvsr.models.chunking import in_row_chunks, needs_chunks

REACH = 2
"""LR rows above and below that the layers after the trunk depend on: 1 + 1/2 + 1/4 + 1/4."""


class Reconstruction(nn.Module):
    """A trunk of `k2` residual blocks, twice PixelShuffle x2, two convolutions. No upsampled input is added.

    Args:
        channels: width of the features, up to twice their size.
        residual_blocks_count: depth of the trunk.
        hr_channels: width of the features at the output's size; defaults to `channels`.
    """

    def __init__(self, *, channels: int, residual_blocks_count: int, hr_channels: int | None = None) -> None:
        super().__init__()
        hr_channels = hr_channels or channels
        self.trunk = residual_blocks(residual_blocks_count, channels)
        self.up1 = conv3x3(channels, 4 * channels)
        self.up2 = conv3x3(channels, 4 * hr_channels)
        self.conv = conv3x3(hr_channels, hr_channels)
        self.tail = conv3x3(hr_channels, 3)

    def forward(self, features: Tensor) -> Tensor:
        """`(b, c, h, w)` to RGB `(b, 3, 4h, 4w)`, not clamped."""
        features = self.trunk(features)
        if not needs_chunks(features):
            return self._enlarge(features)
        # In strips, as the intermediate maps are 16 times as large as the features.
        (frames,) = in_row_chunks(lambda rows: (self._enlarge(rows),), features, reach=REACH, scale=SCALE)
        return frames

    def _enlarge(self, features: Tensor) -> Tensor:
        features = leaky_relu(F.pixel_shuffle(self.up1(features), 2))
        features = leaky_relu(F.pixel_shuffle(self.up2(features), 2))
        features = leaky_relu(self.conv(features))
        # In bfloat16, bright frames would have steps of a whole grey level.
        return exact_conv(self.tail, features)
