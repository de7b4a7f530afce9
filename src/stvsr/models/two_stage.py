"""Two-stage systems: frame interpolation, then super-resolution frame by frame (the paper's Table 1).

First the missing LR frames are interpolated, then all frames are enlarged. The two stages are independent networks,
trained separately; the paper compares its one-stage network with such systems. Any interpolator can be combined with
any upscaler.
"""

import math

import torch
from torch import Tensor

from stvsr.models.chunking import in_chunks
from stvsr.models.network import InputRequirements, Network, Stage


class FrameInterpolator(Stage):
    """Interpolates the frame in the middle of two."""

    def forward(self, before: Tensor, after: Tensor) -> Tensor:
        """Interpolates pairs of frames; without gradients, large pairs one at a time, to save memory.

        Args:
            before: `(b, 3, h, w)`, RGB in [0, 1], of any height and width.
            after: the same shape.

        Returns:
            The same shape, not clamped.
        """
        return in_chunks(self.between, before, after)

    def between(self, before: Tensor, after: Tensor) -> Tensor:
        """Interpolates a batch of pairs; shapes as in `forward`."""
        raise NotImplementedError


class FrameUpscaler(Stage):
    """Enlarges frames to four times the height and width.

    Attributes:
        reach: how many frames before and after a frame its output depends on.
    """

    reach: int = 0

    def forward(self, frames: Tensor) -> Tensor:
        """Enlarges frames.

        Args:
            frames: `(b, t, 3, h, w)`, RGB in [0, 1], of any `t`, height and width.

        Returns:
            `(b, t, 3, 4h, 4w)`, not clamped.
        """
        raise NotImplementedError


class TwoStage(Network):
    """A frame interpolator and a frame upscaler, one after the other.

    Args:
        interpolator: makes the missing LR frames.
        upscaler: enlarges all frames; interpolated ones are clamped to [0, 1] first.
    """

    requirements = InputRequirements()

    def __init__(self, *, interpolator: FrameInterpolator, upscaler: FrameUpscaler) -> None:
        super().__init__()
        self.interpolator = interpolator
        self.upscaler = upscaler
        # Every other frame that the upscaler uses is interpolated.
        self.reach = math.ceil(upscaler.reach / 2)

    @property
    def stages(self) -> dict[str, Stage]:
        """Both stages, in the order they run."""
        return {"interpolator": self.interpolator, "upscaler": self.upscaler}

    def forward(self, lr: Tensor) -> Tensor:
        """Frames `(b, n, 3, h, w)` in [0, 1] to `(b, 2n-1, 3, 4h, 4w)`, not clamped.

        Raises:
            InvalidInput: as `InputRequirements.check`: among others, fewer than 2 frames.
        """
        self.requirements.check(lr)
        b = len(lr)
        between = self.interpolator(lr[:, :-1].flatten(0, 1), lr[:, 1:].flatten(0, 1)).clamp(0, 1)
        pairs = torch.stack([lr[:, :-1], between.unflatten(0, (b, -1))], dim=2)
        frames: Tensor = self.upscaler(torch.cat([pairs.flatten(1, 2), lr[:, -1:]], dim=1))
        return frames
