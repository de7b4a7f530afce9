"""Bilinear sampling of frames and feature maps at positions in pixels, as optical flow needs it."""

import torch
import torch.nn.functional as F
from torch import Tensor


def pixel_positions(height: int, width: int, *, like: Tensor) -> Tensor:
    """The position of every pixel: `(1, 2, h, w)`, x (columns) then y (rows), in pixels."""
    y, x = (torch.arange(side, dtype=like.dtype, device=like.device) for side in (height, width))
    return torch.stack(torch.meshgrid(x, y, indexing="xy"))[None]


def follow(flow: Tensor) -> tuple[Tensor, Tensor]:
    """Where flow leads from every pixel.

    Args:
        flow: `(b, 2, h, w)`, x then y, in pixels.

    Returns:
        The positions, shaped as the flow, and which are inside the frame, `(b, 1, h, w)`.
    """
    height, width = flow.shape[-2:]
    positions = pixel_positions(height, width, like=flow) + flow
    farthest = flow.new_tensor([width - 1, height - 1]).view(1, 2, 1, 1)
    return positions, ((positions >= 0) & (positions <= farthest)).all(dim=1, keepdim=True)


def sample_at(features: Tensor, positions: Tensor) -> Tensor:
    """Reads features bilinearly; what lies outside is zero.

    Args:
        features: `(b, c, h, w)`, both sides at least 2.
        positions: `(b, 2, h', w')`, x then y, in pixels of the features.

    Returns:
        `(b, c, h', w')`.
    """
    height, width = features.shape[-2:]
    # grid_sample expects the outermost pixels at -1 and 1.
    scale = positions.new_tensor([max(width - 1, 1), max(height - 1, 1)]).view(1, 2, 1, 1)
    grid = (2 * positions / scale - 1).permute(0, 2, 3, 1)
    return F.grid_sample(features, grid, mode="bilinear", padding_mode="zeros", align_corners=True)
