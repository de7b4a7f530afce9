"""Enlargement without learning: MATLAB's bicubic, the inverse of how LR frames are made."""

from torch import Tensor

from stvsr.data.clip import SCALE
from stvsr.data.degradation import bicubic
from stvsr.models.two_stage import FrameUpscaler


class Bicubic(FrameUpscaler):
    """Every frame by itself."""

    title = "Bicubic"

    def forward(self, frames: Tensor) -> Tensor:
        """See `FrameUpscaler`."""
        return bicubic(frames, factor=SCALE)
