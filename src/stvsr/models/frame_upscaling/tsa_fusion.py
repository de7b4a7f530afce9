"""Temporal and spatial attention (TSA): fuses the aligned frames of a window into one feature map (EDVR, Sec. 3.3).

Temporal attention weighs every frame, pixel by pixel, by its similarity to the middle frame. Spatial attention is
computed from the weighed frames on three levels, each half as high and wide as the one before; it scales and shifts
the map that the frames are fused into.

Limits: height and width must be multiples of 4.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stvsr.models.alignment import upsample2
from stvsr.models.blocks import conv1x1, conv3x3, conv_of_two, leaky_relu


def similarity(one: Tensor, other: Tensor) -> Tensor:
    """The dot product over channels of two maps `(b, c, h, w)`: `(b, 1, h, w)`, in at least float32."""
    exact = torch.promote_types(one.dtype, torch.float32)
    return (one.to(exact) * other.to(exact)).sum(dim=1, keepdim=True)


class TemporalAttention(nn.Module):
    """Weighs each frame by its similarity to the middle one."""

    def __init__(self, *, channels: int) -> None:
        super().__init__()
        self.embed_middle = conv3x3(channels, channels)
        self.embed = conv3x3(channels, channels)

    def forward(self, aligned: Sequence[Tensor]) -> Tensor:
        """`n` maps `(b, c, h, w)` to the weighed ones, concatenated: `(b, n*c, h, w)`."""
        middle = self.embed_middle(aligned[len(aligned) // 2])
        weights = (similarity(self.embed(frame), middle).sigmoid() for frame in aligned)
        return torch.cat([frame * weight.to(frame.dtype) for frame, weight in zip(aligned, weights, strict=True)], 1)


class SpatialAttention(nn.Module):
    """Computes spatial attention from the weighed frames, by a pyramid down to a quarter of the size and back."""

    def __init__(self, *, channels: int, frames: int) -> None:
        super().__init__()
        c = channels
        self.conv1 = conv1x1(frames * c, c)
        self.down2, self.conv2 = conv1x1(2 * c, c), conv1x1(c, c)
        self.down3, self.conv3 = conv3x3(2 * c, c), conv3x3(c, c)
        self.lateral2, self.merge2 = conv3x3(c, c), conv1x1(c, c)
        self.merge1 = conv3x3(c, c)

    def forward(self, weighed: Tensor) -> Tensor:
        """`(b, n*c, h, w)` to `(b, c, h, w)`, before the sigmoid."""
        level2 = self._halve(leaky_relu(self.conv1(weighed)), self.down2)
        level3 = leaky_relu(self.conv3(self._halve(leaky_relu(self.conv2(level2)), self.down3)))
        level2 = leaky_relu(self.lateral2(level2)) + upsample2(level3)
        attention: Tensor = self.merge1(upsample2(leaky_relu(self.merge2(level2))))
        return attention

    @staticmethod
    def _halve(features: Tensor, conv: nn.Conv2d) -> Tensor:
        largest, mean = (pool(features, kernel_size=3, stride=2, padding=1) for pool in (F.max_pool2d, F.avg_pool2d))
        return leaky_relu(conv_of_two(conv, largest, mean))


class TSAFusion(nn.Module):
    """Fuses the aligned frames of a window into one map, by both attentions."""

    def __init__(self, *, channels: int, frames: int) -> None:
        super().__init__()
        self.temporal = TemporalAttention(channels=channels)
        self.fuse = conv1x1(frames * channels, channels)
        self.spatial = SpatialAttention(channels=channels, frames=frames)
        self.shift1, self.shift2 = conv1x1(channels, channels), conv1x1(channels, channels)

    def forward(self, aligned: Sequence[Tensor]) -> Tensor:
        """The maps `(b, c, h, w)` of all frames, in order of time, to one of the same shape."""
        weighed = self.temporal(aligned)
        fused = leaky_relu(self.fuse(weighed))
        attention: Tensor = self.spatial(weighed)
        shift: Tensor = self.shift2(leaky_relu(self.shift1(attention)))
        # Doubled: an attention of 0, whose sigmoid is a half, changes nothing.
        return fused * attention.sigmoid() * 2 + shift
