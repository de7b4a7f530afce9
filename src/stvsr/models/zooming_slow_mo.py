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

from torch import Tensor, nn

from stvsr.models.features import FeatureExtraction
from stvsr.models.reconstruction import Reconstruction
from stvsr.models.requirements import InputRequirements, Network


class ZoomingSlowMo(Network):
    """The one-stage space-time video super-resolution network.

    Args:
        channels: width of every feature map; 64 in the paper.
        feature_blocks: residual blocks of the feature extraction, the paper's k1 = 5.
        reconstruction_blocks: residual blocks of the reconstruction, the paper's k2 = 40.
        interpolation: `(b, n, c, h, w)` to `(b, 2n-1, c, h, w)`.
        propagation: `(b, t, c, h, w)` to the same shape.
    """

    requirements = InputRequirements(multiple_of=4, minimum_frames=2)

    def __init__(
        self,
        *,
        channels: int,
        feature_blocks: int,
        reconstruction_blocks: int,
        interpolation: nn.Module,
        propagation: nn.Module,
    ) -> None:
        super().__init__()
        self.features = FeatureExtraction(channels=channels, residual_blocks_count=feature_blocks)
        self.interpolation = interpolation
        self.propagation = propagation
        self.reconstruction = Reconstruction(channels=channels, residual_blocks_count=reconstruction_blocks)

    def forward(self, lr: Tensor) -> Tensor:
        """Frames `(b, n, 3, h, w)` in [0, 1] to `(b, 2n-1, 3, 4h, 4w)`, not clamped.

        Raises:
            InvalidInput: fewer than 2 frames, or a height or width that is not a multiple of 4.
        """
        self.requirements.check(lr)
        b, n = lr.shape[:2]
        features = self.features(lr.flatten(0, 1)).unflatten(0, (b, n))
        features = self.interpolation(features)  # (b, 2n-1, c, h, w)
        features = self.propagation(features)
        frames: Tensor = self.reconstruction(features.flatten(0, 1))
        return frames.view(b, 2 * n - 1, *frames.shape[1:])
