"""Offsets of the interpolation held near optical flow while they are learned: a loss for short trainings.

Offsets start at zero and are slow to learn: after thousands of steps they can still be a fraction of a pixel where
things move by ten. Flow says at once where to sample. The loss is the offset-fidelity loss of Chan et al.,
"Understanding Deformable Alignment in Video Super-Resolution" (AAAI 2021), with the flow of the true HR frames; it is
not in the paper of Zooming Slow-Mo. Flow is computed on the CPU, some milliseconds a pair.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stvsr.data.clip import SCALE, to_8bit
from stvsr.data.optical_flow import optical_flow
from stvsr.models.alignment import AlignedFusion, DeformableSampling

TOLERANCE = 0.5
"""How far from the flow an offset may be for nothing, in pixels of its level: samples need not all be of one place."""


@contextmanager
def listening(fusion: AlignedFusion) -> Iterator[list[list[Tensor]]]:
    """Offsets of the next pass through a fusion: of its first map, then of its second, each finest level first.

    Empty for a fusion that does not sample at offsets.
    """
    heard: list[list[Tensor]] = [[], []]
    hooks = []
    for alignment, offsets in zip((fusion.align_first, fusion.align_second), heard, strict=True):

        def listen(module: nn.Module, given: Any, offset: Tensor, offsets: list[Tensor] = offsets) -> None:
            # Alignment goes from coarse to fine.
            offsets.insert(0, offset)

        samplings = [module for module in alignment.modules() if isinstance(module, DeformableSampling)]
        hooks += [sampling.offsets.register_forward_hook(listen) for sampling in samplings]
    try:
        yield heard
    finally:
        for hook in hooks:
            hook.remove()


def flow_from_missing(hr: Tensor) -> Tensor:
    """Where the pixels of the missing LR frames are in the given frames before and after them.

    Args:
        hr: clips `(b, 2n-1, 3, 4h, 4w)` in [0, 1].

    Returns:
        `(2, (n-1) b, 2, h, w)`: to the frame before, then after; pairs in order of time, each of all clips;
        down, then right, in LR pixels.
    """
    missing = range(1, hr.shape[1], 2)
    pairs = [(frame, frame + step) for step in (-1, 1) for frame in missing]
    # (b, 2 (n-1), 2, 4h, 4w)
    flow = torch.stack([optical_flow(frames, pairs, finest_scale=1) for frames in to_8bit(hr)])
    flow = torch.unflatten(flow.flip(2), 1, (2, len(missing))).permute(1, 2, 0, 3, 4, 5).flatten(1, 2)
    return torch.stack([F.avg_pool2d(way, SCALE) / SCALE for way in flow])


def offset_fidelity(offsets: Tensor, flow: Tensor) -> Tensor:
    """Distance of offsets from flow beyond what is for nothing, summed over everything.

    Places whose flow leads out of the frame are left out: nobody knows what is there.

    Args:
        offsets: `(b, 2 k, h, w)`, down and right by turns, in pixels.
        flow: `(b, 2, h', w')` of the same or a finer level, down and right, in pixels of that level.

    Returns:
        A scalar.
    """
    h, w = offsets.shape[-2:]
    finer = flow.shape[-1] // w
    flow = F.avg_pool2d(flow, finer) / finer
    places = torch.stack(torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")).to(flow)
    target, last = places + flow, flow.new_tensor([h - 1, w - 1]).view(2, 1, 1)
    inside = ((target >= 0) & (target <= last)).all(dim=1)  # (b, h, w)
    distance = (torch.unflatten(offsets, 1, (-1, 2)) - flow[:, None]).abs()
    return (F.relu(distance - TOLERANCE) * inside[:, None, None]).sum()
