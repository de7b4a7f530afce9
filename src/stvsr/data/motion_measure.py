"""How much a clip moves, measured, so that any video gets the paper's slow / medium / fast table.

The measure is the mean length of OpenCV's DIS optical flow (Kroeger et al., ECCV 2016) between consecutive HR frames,
in HR pixels per frame. On generated scenes, whose true motion is known, it is right to about 5 % in the mean
(`tests/data/test_motion_measure.py`).
"""

from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np
from torch import Tensor

from stvsr.errors import InvalidInput

MIN_SIDE = 32
"""Smaller frames are enlarged by their border before DIS sees them."""


@dataclass(frozen=True)
class MotionThresholds:
    """Where slow ends and fast begins, HR pixels per frame.

    Attributes:
        medium: least motion of a medium clip.
        fast: least motion of a fast clip.
    """

    medium: float
    fast: float

    def __post_init__(self) -> None:
        if not 0 < self.medium < self.fast:
            raise InvalidInput(
                f"motion.medium={self.medium}, motion.fast={self.fast}; expected 0 < medium < fast, pixels per frame"
            )

    def split(self, motion: float) -> str:
        """The split of a clip that moves so much."""
        if motion < self.medium:
            return "slow"
        return "medium" if motion < self.fast else "fast"


def measure_motion(frames: Tensor) -> list[float]:
    """Mean displacement from each frame to the next.

    Args:
        frames: `(t, 3, H, W)`, uint8 RGB.

    Returns:
        `t - 1` values, HR pixels.
    """
    images = [cv2.cvtColor(frame.permute(1, 2, 0).contiguous().numpy(), cv2.COLOR_RGB2GRAY) for frame in frames]
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    # In frames of fewer than 16 pixels OpenCV 5.0 crashes; repeated borders do not move.
    h, w = images[0].shape
    if min(h, w) < MIN_SIDE:
        bottom, right = max(0, MIN_SIDE - h), max(0, MIN_SIDE - w)
        images = [cv2.copyMakeBorder(image, 0, bottom, 0, right, cv2.BORDER_REPLICATE) for image in images]
    # Each pair starts from zero flow, whatever was measured before.
    fields = [flow.calc(before, after, None) for before, after in pairwise(images)]
    return [float(np.linalg.norm(field[:h, :w], axis=-1).mean()) for field in fields]
