"""Enlargement without learning, by MATLAB's bicubic, with which LR frames are made as well."""

from torch import Tensor

from stvsr.data.clip import SCALE
from stvsr.data.degradation import bicubic
from stvsr.models.two_stage import FrameUpscaler


class Bicubic(FrameUpscaler):
    """Enlarges every frame by itself."""

    title = "Bicubic"

    def forward(self, frames: Tensor) -> Tensor:
        """See `FrameUpscaler`."""
        return bicubic(frames, factor=SCALE)
