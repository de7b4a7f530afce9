"""Feature temporal interpolation: features of the missing frames from those of their two neighbours (Sec. 3.1).

The first axis of the paper's Table 2. Both classes map the features of `n` frames to those of `2n-1`; the given
frames keep theirs. All pairs of neighbours are processed as one batch, those of large frames one by one.
"""

from itertools import chain, pairwise

import torch
from torch import Tensor, nn

from stvsr.models.alignment import AlignedFusion, NaiveAlignment, Partner, Pyramid, deformable_fusion
from stvsr.models.chunking import needs_chunks


def neighbours(features: Tensor, fusion: AlignedFusion) -> tuple[Partner, Partner]:
    """Prepares all pairs of neighbours for a fusion.

    Args:
        features: `(n, b, c, h, w)`, time first.
        fusion: blends the features of two neighbours.

    Returns:
        The first maps of all pairs, and the second ones: each a batch of `(n-1) * b` maps, time first.
    """
    b = features.shape[1]
    pyramid = fusion.pyramid(features.flatten(0, 1))
    before, after = (Pyramid(*(level[pairs] for level in pyramid)) for pairs in (slice(None, -b), slice(b, None)))
    return fusion.as_first(before), fusion.as_second(after)


class FusedInterpolation(nn.Module):
    """Inserts a synthesised feature map between any two neighbours.

    Args:
        fusion: blends the features of two neighbours.
    """

    def __init__(self, fusion: AlignedFusion) -> None:
        super().__init__()
        self.fusion = fusion

    def forward(self, features: Tensor) -> Tensor:
        """Maps `(n, b, c, h, w)`, time first, to `(2n-1, b, c, h, w)` with the given maps at even indices."""
        n, b = features.shape[:2]
        if needs_chunks(features):
            between = [self.fusion.of_maps(before, after) for before, after in pairwise(features)]
        else:
            between = list(torch.split(self.fusion(*neighbours(features, self.fusion)), b))
        *given, last = features
        return torch.unflatten(torch.cat([*chain(*zip(given, between, strict=True)), last]), 0, (2 * n - 1, b))


class DeformableInterpolation(FusedInterpolation):
    """Interpolation by deformable sampling, variants (b) to (e).

    Args:
        channels: width of every map.
        deformable_groups: number of channel groups, each sampled at its own offsets.

    Raises:
        InvalidInput: `deformable_groups` does not divide `channels`.
    """

    def __init__(self, *, channels: int, deformable_groups: int) -> None:
        super().__init__(deformable_fusion(channels=channels, deformable_groups=deformable_groups))
        self.channels = channels


class NaiveInterpolation(FusedInterpolation):
    """Interpolation by ordinary convolutions, variant (a).

    Args:
        channels: width of every map.
    """

    def __init__(self, *, channels: int) -> None:
        first, second = (NaiveAlignment(channels=channels) for _ in range(2))
        super().__init__(AlignedFusion(channels=channels, align_first=first, align_second=second))
        self.channels = channels
