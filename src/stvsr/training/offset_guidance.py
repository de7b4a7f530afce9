"""Optical flow as the target for the interpolation's offsets, so that a short training can learn them.

Offsets start at zero and learn slowly from what is sampled: after thousands of steps they can still be a fraction of a
pixel where things move by ten. Flow says at once where to sample. The distance from it is the offset-fidelity loss of
Chan et al., "Understanding Deformable Alignment in Video Super-Resolution" (AAAI 2021), with the flow of the true HR
frames; it is not in the paper of Zooming Slow-Mo. Flow is computed on the CPU, some milliseconds per pair.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from stvsr.data.clip import SCALE, to_8bit
from stvsr.data.optical_flow import optical_flow
from stvsr.ops.sampling import follow

TOLERANCE = 0.5
"""Distance from the flow, in pixels of the finest level, within which an offset costs nothing, so that samples need
not all fall on one spot."""


def flow_from_missing(hr: Tensor) -> Tensor:
    """Where the pixels of the missing LR frames are in the given frames before and after them.

    Args:
        hr: clips `(b, 2n-1, 3, 4h, 4w)` in [0, 1].

    Returns:
        `(2, (n-1) b, 2, h, w)`: to the frame before, then after; ordered by time, then by clip; down, then right, in
        LR pixels.
    """
    missing = range(1, hr.shape[1], 2)
    pairs = [(frame, frame + step) for step in (-1, 1) for frame in missing]
    # (b, 2 (n-1), 2, 4h, 4w)
    flow = torch.stack([optical_flow(frames, pairs, finest_scale=1) for frames in to_8bit(hr)])
    flow = torch.unflatten(flow.flip(2), 1, (2, len(missing))).permute(1, 2, 0, 3, 4, 5).flatten(1, 2)
    return torch.stack([F.avg_pool2d(direction, SCALE) / SCALE for direction in flow])


def offset_fidelity(offsets: Tensor, flow: Tensor) -> Tensor:
    """Distance of offsets from flow beyond `TOLERANCE`, summed over everything.

    Distances are in pixels of the finest level, and each level has the same weight as the finest. Positions whose flow
    leads out of the frame are left out: their true flow is unknown.

    Args:
        offsets: `(b, 2 k, h, w)`, down and right alternating, in pixels of their level.
        flow: `(b, 2, h', w')`, down and right, at the finest level and in its pixels.

    Returns:
        A scalar.
    """
    finer = flow.shape[-1] // offsets.shape[-1]
    _, inside = follow(flow.flip(1))
    flow, known = F.avg_pool2d(flow, finer), F.avg_pool2d(inside.to(flow), finer)
    distance = (finer * torch.unflatten(offsets, 1, (-1, 2)) - flow[:, None]).abs()
    return finer**2 * (F.relu(distance - TOLERANCE) * known[:, None]).sum()
