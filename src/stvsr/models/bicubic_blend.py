"""The method without learning that every table starts from: bicubic enlargement and frame blending."""

import torch
from torch import Tensor

from stvsr.data.clip import SCALE
from stvsr.data.degradation import bicubic
from stvsr.models.requirements import InputRequirements, Network


class BicubicBlend(Network):
    """Enlarges with MATLAB's bicubic; a missing frame is the mean of its two neighbours."""

    requirements = InputRequirements(multiple_of=1, minimum_frames=2)

    def forward(self, lr: Tensor) -> Tensor:
        """Frames `(b, n, 3, h, w)` in [0, 1] to `(b, 2n-1, 3, 4h, 4w)`, not clamped.

        Raises:
            InvalidInput: fewer than 2 frames.
        """
        self.requirements.check(lr)
        given = bicubic(lr, factor=SCALE)
        between = (given[:, :-1] + given[:, 1:]) / 2
        pairs = torch.stack([given[:, :-1], between], dim=2)
        return torch.cat([pairs.flatten(1, 2), given[:, -1:]], dim=1)
