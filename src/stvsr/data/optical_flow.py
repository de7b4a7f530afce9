"""Optical flow between frames of a clip: OpenCV's DIS (Kroeger et al., ECCV 2016), preset "medium", on grey images.

Conventions: flow is in pixels, x (to the right) then y (down). What is at `p` in the first frame of a pair is at
`p + flow(p)` in the second.

Flow is computed on the CPU, one pair after the other, without gradients. Each pair starts from zero flow, whatever was
computed before, and the number of OpenCV's threads changes nothing. It is registered as a torch operator, so that a
network that uses it also runs on tensors without content (`video/memory.py`).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from stvsr.data.opencv import cv2

MIN_SIDE = 32
"""Shorter sides are padded to this by repeating the border."""


def optical_flow(frames: Tensor, pairs: Sequence[tuple[int, int]], *, finest_scale: int) -> Tensor:
    """Flow from one frame of a clip to another.

    Args:
        frames: `(t, 3, h, w)`, uint8 RGB, on any device.
        pairs: indices of a first and a second frame; flow from a frame to itself is zero.
        finest_scale: level of the pyramid at which DIS ends and whose flow it enlarges; 0 is the frames' own size,
            OpenCV's preset has 1.

    Returns:
        `(len(pairs), 2, h, w)`, float32, on the device of the frames.
    """
    firsts, seconds = [first for first, _ in pairs], [second for _, second in pairs]
    flow: Tensor = _optical_flow(frames, firsts, seconds, finest_scale)
    return flow


@torch.library.custom_op("stvsr::optical_flow", mutates_args=())
def _optical_flow(frames: Tensor, firsts: list[int], seconds: list[int], finest_scale: int) -> Tensor:
    dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    dis.setFinestScale(finest_scale)
    h, w = frames.shape[-2:]
    images = {}
    for number in {*firsts, *seconds}:
        grey = cv2.cvtColor(frames[number].permute(1, 2, 0).contiguous().cpu().numpy(), cv2.COLOR_RGB2GRAY)
        # OpenCV 5.0 crashes on sides of fewer than 16 pixels; repeated borders do not move.
        bottom, right = max(0, MIN_SIDE - h), max(0, MIN_SIDE - w)
        images[number] = cv2.copyMakeBorder(grey, 0, bottom, 0, right, cv2.BORDER_REPLICATE)
    flow = torch.zeros(len(firsts), 2, h, w)
    for field, first, second in zip(flow, firsts, seconds, strict=True):
        if first != second:
            found = torch.from_numpy(dis.calc(images[first], images[second], None))
            field.copy_(found[:h, :w].permute(2, 0, 1))
    return flow.to(frames.device)


@_optical_flow.register_fake
def _(frames: Tensor, firsts: list[int], seconds: list[int], finest_scale: int) -> Tensor:
    return frames.new_empty((len(firsts), 2, *frames.shape[-2:]), dtype=torch.float32)
