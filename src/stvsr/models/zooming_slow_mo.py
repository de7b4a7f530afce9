"""Zooming Slow-Mo: the one-stage network of the paper and its ablations (Fig. 2).

`n` LR frames in, `2n-1` HR frames out, for any `n` of at least 2. The two axes of Table 2 are two arguments:

| variant | interpolation           | propagation                       |
|---------|-------------------------|-----------------------------------|
| (a)     | NaiveInterpolation      | NoPropagation                     |
| (b)     | DeformableInterpolation | NoPropagation                     |
| (c)     | DeformableInterpolation | ConvLSTM                          |
| (d)     | DeformableInterpolation | DeformableConvLSTM                |
| (e)     | DeformableInterpolation | Bidirectional(DeformableConvLSTM) |
"""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from stvsr.errors import InvalidInput
from stvsr.models.blocks import check_part
from stvsr.models.chunking import frames_per_chunk
from stvsr.models.features import FeatureExtraction
from stvsr.models.network import InputRequirements, Network
from stvsr.models.reconstruction import Reconstruction
from stvsr.ops.recomputation import recomputed


class ZoomingSlowMo(Network):
    """The one-stage space-time video super-resolution network.

    Inside, time comes first: neighbouring frames, and those of one time step, are then contiguous and form a batch
    without copying. Memory is channels-last, the layout in which convolutions are fastest.

    Args:
        channels: width of every feature map; 64 in the paper.
        feature_blocks: residual blocks of the feature extraction, the paper's k1 = 5.
        reconstruction_blocks: residual blocks of the reconstruction, the paper's k2 = 40.
        interpolation: `(n, b, c, h, w)` to `(2n-1, b, c, h, w)`.
        propagation: `(t, b, c, h, w)` to the same shape.
        checkpointing: whether training recomputes the activations of each stage in the backward pass instead of
            keeping them: less memory, about a third more work, the same gradients.

    Raises:
        InvalidInput: a number of residual blocks below 0, or a part whose width is not `channels`.
    """

    requirements = InputRequirements(multiple_of=4)
    replayable = True

    def __init__(
        self,
        *,
        channels: int,
        feature_blocks: int,
        reconstruction_blocks: int,
        interpolation: nn.Module,
        propagation: nn.Module,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        for name, count in (("feature_blocks", feature_blocks), ("reconstruction_blocks", reconstruction_blocks)):
            if count < 0:
                raise InvalidInput(f"{name}={count}; expected 0 or more")
        check_part("interpolation", interpolation, channels)
        check_part("propagation", propagation, channels)
        self.checkpointing = checkpointing
        self.features = FeatureExtraction(channels=channels, residual_blocks_count=feature_blocks)
        self.interpolation = interpolation
        self.propagation = propagation
        self.reconstruction = Reconstruction(channels=channels, residual_blocks_count=reconstruction_blocks)
        # The layout of the features: otherwise convolutions would reorder their weights in every pass.
        self.to(memory_format=torch.channels_last)

    def forward(self, lr: Tensor) -> Tensor:
        """Frames `(b, n, 3, h, w)` in [0, 1] to `(b, 2n-1, 3, 4h, 4w)`, not clamped.

        Raises:
            InvalidInput: as `InputRequirements.check`: among others, fewer than 2 frames, or a height or width that is
                not a multiple of 4.
        """
        self.requirements.check(lr)
        return self.reconstruct(self.propagate(lr))

    def propagate(self, lr: Tensor) -> Tensor:
        """Features of all output frames, before reconstruction: `(b, n, 3, h, w)` to `(2n-1, b, c, h, w)`."""
        return self._run(self.propagation, self._run(self.interpolation, self.extract(lr)))

    def reconstruct(self, features: Tensor) -> Tensor:
        """HR frames from propagated features: `(t, b, c, h, w)` to `(b, t, 3, 4h, 4w)`."""
        frames = torch.cat([self._run(self.reconstruction, group) for group in self._groups(features)])
        return torch.unflatten(frames, 0, features.shape[:2]).transpose(0, 1)

    def extract(self, lr: Tensor) -> Tensor:
        """Features of each frame by itself: `(b, n, 3, h, w)` in [0, 1] to `(n, b, c, h, w)`."""
        b, n = lr.shape[:2]
        frames = lr.transpose(0, 1).flatten(0, 1).contiguous(memory_format=torch.channels_last)
        return torch.unflatten(self._run(self.features, frames), 0, (n, b))

    def _run(self, stage: nn.Module, features: Tensor) -> Tensor:
        # may_draw: a custom stage may contain dropout.
        return cast(Tensor, recomputed(stage, features, may_draw=True) if self.checkpointing else stage(features))

    def _groups(self, features: Tensor) -> Sequence[Tensor]:
        """Frames `(t, b, c, h, w)` in groups `(…, c, h, w)` that are reconstructed together.

        HR features are the largest maps: groups are single time steps in training with checkpointing, otherwise what
        `frames_per_chunk` allows.
        """
        frames = features.flatten(0, 1)
        by_step = self.checkpointing and torch.is_grad_enabled()
        return torch.split(frames, features.shape[1] if by_step else frames_per_chunk(frames))
