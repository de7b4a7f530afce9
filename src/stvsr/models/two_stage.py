"""Two-stage systems: frame interpolation, then super-resolution frame by frame (the paper's Table 1).

The missing frames are made first, between LR frames; then all frames are enlarged. Both stages are networks of their
own, trained apart, and know nothing of each other: what the paper's one stage is compared with. Any of the
interpolators goes with any of the upscalers.
"""

import math

import torch
from torch import Tensor

from stvsr.models.chunking import in_chunks
from stvsr.models.network import InputRequirements, Network, Stage


class FrameInterpolator(Stage):
    """Two frames to the one in the middle of them."""

    def forward(self, before: Tensor, after: Tensor) -> Tensor:
        """Pairs of frames; without gradients large ones one after the other: one pair's features exist at a time.

        Args:
            before: `(b, 3, h, w)`, RGB in [0, 1], of any height and width.
            after: the same shape.

        Returns:
            The same shape, not clamped.
        """
        return in_chunks(self.between, before, after)

    def between(self, before: Tensor, after: Tensor) -> Tensor:
        """What is in the middle of a batch of pairs; shapes as in `forward`."""
        raise NotImplementedError


class FrameUpscaler(Stage):
    """Frames to frames of four times the height and width.

    Attributes:
        reach: how many frames before and after a frame it looks at.
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
        upscaler: enlarges all frames. It sees pictures: frames that were made are clamped to [0, 1] before.
    """

    requirements = InputRequirements()

    def __init__(self, *, interpolator: FrameInterpolator, upscaler: FrameUpscaler) -> None:
        super().__init__()
        self.interpolator = interpolator
        self.upscaler = upscaler
        # Every other frame that the upscaler looks at was made.
        self.reach = math.ceil(upscaler.reach / 2)

    @property
    def stages(self) -> dict[str, Stage]:
        """Both, in the order they run."""
        return {"interpolator": self.interpolator, "upscaler": self.upscaler}

    def forward(self, lr: Tensor) -> Tensor:
        """Frames `(b, n, 3, h, w)` in [0, 1] to `(b, 2n-1, 3, 4h, 4w)`, not clamped.

        Raises:
            InvalidInput: fewer than 2 frames.
        """
        self.requirements.check(lr)
        b = len(lr)
        between = self.interpolator(lr[:, :-1].flatten(0, 1), lr[:, 1:].flatten(0, 1)).clamp(0, 1)
        pairs = torch.stack([lr[:, :-1], between.unflatten(0, (b, -1))], dim=2)
        frames: Tensor = self.upscaler(torch.cat([pairs.flatten(1, 2), lr[:, -1:]], dim=1))
        return frames
