"""Measures how much a clip moves, so that any video gets the paper's slow / medium / fast table.

The measure is the mean length of the optical flow (`optical_flow.py`) between consecutive HR frames, in HR pixels per
frame. On generated scenes, whose true motion is known, it is accurate to about 5 % on average
(`tests/data/test_motion_measure.py`).
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from torch import Tensor

from stvsr.data.optical_flow import optical_flow
from stvsr.errors import InvalidInput


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
        """The split of a clip that moves this much."""
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
    flow = optical_flow(frames, list(pairwise(range(len(frames)))), finest_scale=1)
    return [float(np.linalg.norm(field, axis=0).mean()) for field in flow.numpy()]
