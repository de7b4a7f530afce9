"""Frame interpolation without learning: the mean of two frames."""

from torch import Tensor

from stvsr.models.two_stage import FrameInterpolator


class Blend(FrameInterpolator):
    """The mean of two frames."""

    title = "blend"

    def between(self, before: Tensor, after: Tensor) -> Tensor:
        """See `FrameInterpolator`."""
        return (before + after) / 2
