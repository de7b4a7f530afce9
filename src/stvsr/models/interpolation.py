"""Feature temporal interpolation: features of the missing frames from those of their two neighbours (Sec. 3.1).

The first axis of the paper's Table 2. Both classes map the features of `n` frames to those of `2n-1`; the given
frames keep theirs. All pairs of a clip go through the network together.
"""

import torch
from torch import Tensor, nn

from stvsr.models.alignment import AlignedFusion, Pyramid, deformable_fusion, naive_fusion


def interpolate_features(features: Tensor, fusion: AlignedFusion) -> Tensor:
    """Puts a synthesised feature map between any two neighbours.

    Args:
        features: `(b, n, c, h, w)`.
        fusion: blends the features of two neighbours.

    Returns:
        `(b, 2n-1, c, h, w)`, the given maps at even indices.
    """
    b, n = features.shape[:2]
    pyramid = [level.unflatten(0, (b, n)) for level in fusion.pyramid(features.flatten(0, 1))]
    before = Pyramid(*(level[:, :-1].flatten(0, 1) for level in pyramid))
    after = Pyramid(*(level[:, 1:].flatten(0, 1) for level in pyramid))
    between = fusion(before, after).unflatten(0, (b, n - 1))

    pairs = torch.stack([features[:, :-1], between], dim=2)  # (b, n-1, 2, c, h, w)
    return torch.cat([pairs.flatten(1, 2), features[:, -1:]], dim=1)


class DeformableInterpolation(nn.Module):
    """Interpolation by deformable sampling, variants (b) to (e)."""

    def __init__(self, *, channels: int, deformable_groups: int) -> None:
        super().__init__()
        self.fusion = deformable_fusion(channels=channels, deformable_groups=deformable_groups)

    def forward(self, features: Tensor) -> Tensor:
        """`(b, n, c, h, w)` to `(b, 2n-1, c, h, w)`."""
        return interpolate_features(features, self.fusion)


class NaiveInterpolation(nn.Module):
    """Interpolation by ordinary convolutions, variant (a)."""

    def __init__(self, *, channels: int) -> None:
        super().__init__()
        self.fusion = naive_fusion(channels=channels)

    def forward(self, features: Tensor) -> Tensor:
        """`(b, n, c, h, w)` to `(b, 2n-1, c, h, w)`."""
        return interpolate_features(features, self.fusion)
