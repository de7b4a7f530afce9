"""Adaptive warping: every pixel has its own 4x4 kernel, laid over the place where the pixel's flow points.

From Bao et al., "MEMC-Net" (TPAMI 2019), as used in DAIN (CVPR 2019). A kernel is not normalised and may be negative;
each of its quarters is weighted like the corner of the bilinear cell that it belongs to. A kernel that is 1 in its
four inner taps and 0 elsewhere gives bilinear sampling.

Flows and kernels are read once (`taps_of`); then any number of maps is warped by them (`adaptive_warping`).
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from stvsr.ops.sampling import follow, pixel_positions

SIDE = 4
"""Rows and columns of a kernel."""

AT_ITS_PIXEL = SIDE + 1
"""Index of the upper left one of the four inner taps, which lies on the pixel itself where its flow is 0."""


class Taps(NamedTuple):
    """What every pixel reads, and with what weight; pixels of the whole batch are numbered row by row."""

    pixels: Tensor  # (b * h * w, 16), int32
    weights: Tensor  # (b * h * w, 16)


def taps_of(flow: Tensor, kernel: Tensor) -> Taps:
    """Where kernels lie, and their weights there.

    Args:
        flow: `(b, 2, h, w)`, x then y, in pixels: where each pixel's kernel is laid.
        kernel: `(b, 16, h, w)`, row by row.

    Returns:
        Taps, clamped to the frame. A pixel whose flow leaves the frame, or is at least half of its width or height,
        reads itself, whatever its kernel.
    """
    height, width = flow.shape[-2:]
    target, inside = follow(flow)
    half = flow.new_tensor([width, height]).view(1, 2, 1, 1) / 2
    inside = inside & (flow.abs() < half).all(dim=1, keepdim=True)
    target = torch.where(inside, target, pixel_positions(height, width, like=flow))
    corner = target.detach().floor()
    fraction = target - corner

    steps = torch.arange(SIDE, dtype=torch.int32, device=flow.device).view(-1, 1, 1) - 1
    x, y = ((corner[:, [axis]].int() + steps).clamp(0, side - 1) for axis, side in enumerate((width, height)))
    x_weights, y_weights = (torch.cat([1 - part, 1 - part, part, part], dim=1) for part in fraction.chunk(2, dim=1))

    frames = torch.arange(len(flow), dtype=torch.int32, device=flow.device).view(-1, 1, 1, 1)
    pixels = ((frames * height + y) * width)[:, :, None] + x[:, None]
    weights = kernel * (y_weights[:, :, None] * x_weights[:, None]).flatten(1, 2)
    identity = F.one_hot(torch.tensor(AT_ITS_PIXEL, device=flow.device), SIDE**2).view(1, -1, 1, 1)
    weights = torch.where(inside, weights, identity.to(weights.dtype))
    return Taps(pixels=_by_pixel(pixels.flatten(1, 2)), weights=_by_pixel(weights))


def adaptive_warping(features: Tensor, taps: Taps) -> Tensor:
    """Reads a map through taps, all channels alike.

    Args:
        features: `(b, c, h, w)`.
        taps: of a flow and a kernel of the same `b`, `h` and `w`.

    Returns:
        The same shape, in the precision of the taps.
    """
    b, _, height, width = features.shape
    # An "embedding bag" never holds all that the 16 taps read, and does not keep it for the gradient either.
    table = _by_pixel(features.to(taps.weights.dtype))
    warped = F.embedding_bag(taps.pixels, table, per_sample_weights=taps.weights, mode="sum")
    return warped.view(b, height, width, -1).permute(0, 3, 1, 2)


def _by_pixel(values: Tensor) -> Tensor:
    """`(b, c, h, w)` to `(b * h * w, c)`, each pixel contiguous: read fifteen times as fast."""
    return values.permute(0, 2, 3, 1).flatten(0, 2).contiguous()
