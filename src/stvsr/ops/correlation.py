"""Correlation of two feature maps: how similar each pixel of one is to the pixels around it in the other.

The cost volume of FlowNet and PWC-Net (Sun et al., "PWC-Net: CNNs for optical flow using pyramid, warping, and cost
volume", CVPR 2018, Sec. 3).
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def correlation(first: Tensor, second: Tensor, *, reach: int) -> Tensor:
    """The mean product of the channels of two maps, for every displacement of the second.

    Args:
        first: `(b, c, h, w)`.
        second: the same shape; outside of it there are zeros.
        reach: the largest displacement, in pixels.

    Returns:
        `(b, (2 * reach + 1)^2, h, w)`. Channel `(2 * reach + 1) * (dy + reach) + dx + reach` compares a pixel of the
        first map with the one `dx` to the right of it and `dy` below it in the second.
    """
    height, width = first.shape[-2:]
    # Every row of the second map at all displacements along it: (b, c, h + 2 * reach, 2 * reach + 1, w), not copied.
    windows = F.pad(second, [reach] * 4).unfold(3, width, 1)
    # One row of displacements at a time: the products of all would be `(2 * reach + 1)^2` times as large as a map.
    rows = [(first[:, :, :, None] * windows[:, :, dy : dy + height]).mean(dim=1) for dy in range(2 * reach + 1)]
    return torch.stack(rows, dim=1).transpose(2, 3).flatten(1, 2)
