"""Depth-aware flow projection: from the flow of a frame to the flow at the time its pixels arrive.

From Bao et al., "Depth-aware video frame interpolation" (DAIN, CVPR 2019). Every pixel travels along its flow
and leaves the way back at the four pixels around the place where it arrives. Where several meet, their mean counts,
weighted by `weight` alone (DAIN's is larger for what is nearer to the camera), not by how close to the pixel they
arrive. Where none arrives, there is a hole.
"""

import torch
from torch import Tensor

from stvsr.ops.sampling import follow, pixel_positions


def project_flow(flow: Tensor, weight: Tensor) -> Tensor:
    """Flow as seen from where it leads: from there back to where it came from.

    Holes take the mean of the nearest values to the left, to the right, above and below, but, as in the authors' code,
    only where no gradient is required: in training they are 0.

    Args:
        flow: `(b, 2, h, w)`, x then y, in pixels. What leaves the frame is dropped.
        weight: `(b, 1, h, w)`, positive: how much a pixel counts where several arrive.

    Returns:
        `(b, 2, h, w)`, x then y, in pixels.
    """
    height, width = flow.shape[-2:]
    target, inside = follow(flow.detach())
    left, top = torch.where(inside, target, pixel_positions(height, width, like=flow)).long().chunk(2, dim=1)

    weight = torch.where(inside, weight, 0)
    arriving = torch.cat([torch.where(inside, -flow, 0) * weight, weight], dim=1).flatten(2)
    sums = torch.zeros_like(arriving)
    for y in (top, (top + 1).clamp(max=height - 1)):
        for x in (left, (left + 1).clamp(max=width - 1)):
            sums = sums.scatter_add_(2, (y * width + x).flatten(2).expand_as(arriving), arriving)
    weighted, total = torch.split(sums.view(len(flow), 3, height, width), [2, 1], dim=1)
    reached = total > 0
    projected = weighted / torch.where(reached, total, 1)
    return projected if projected.requires_grad else fill_holes(projected, reached)


def fill_holes(values: Tensor, known: Tensor) -> Tensor:
    """Gives unknown values the mean of the nearest known ones in their row and column.

    Args:
        values: `(b, c, h, w)`.
        known: `(b, 1, h, w)`, boolean.

    Returns:
        The same shape as `values`; 0 where nothing is known in a row and a column.
    """
    total, count = torch.zeros_like(values), torch.zeros_like(values[:, :1])
    for axis in (-1, -2):
        for axes in ([], [axis]):
            nearest, exists = _latest_known(values.flip(axes), known.flip(axes), axis)
            total += nearest.flip(axes)
            count += exists.flip(axes)
    return torch.where(known, values, total / count.clamp(min=1))


def _latest_known(values: Tensor, known: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """For each place the last known value up to it along an axis, 0 if there is none; and whether there is one."""
    shape = [1, 1, 1, 1]
    shape[axis] = -1
    places = torch.arange(values.shape[axis], device=values.device).view(shape)
    latest = torch.where(known, places, -1).cummax(dim=axis).values
    exists = latest >= 0
    nearest = values.gather(axis, latest.clamp(min=0).expand_as(values))
    return torch.where(exists, nearest, 0), exists
