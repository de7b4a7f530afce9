"""Feature extraction from each frame by itself (paper Sec. 3; `k1` residual blocks, Sec. 3.4)."""

from torch import Tensor, nn

from stvsr.models.blocks import conv3x3, exact_conv, leaky_relu, residual_blocks


class FeatureExtraction(nn.Module):
    """Maps RGB frames to feature maps of the same height and width.

    Args:
        channels: width of the maps.
        residual_blocks_count: how many follow the first convolution.
    """

    def __init__(self, *, channels: int, residual_blocks_count: int) -> None:
        super().__init__()
        self.head = conv3x3(3, channels)
        self.trunk = residual_blocks(residual_blocks_count, channels)

    def forward(self, frames: Tensor) -> Tensor:
        """`(b, 3, h, w)` in [0, 1] to `(b, c, h, w)`."""
        # In full precision: a convolution of only three channels gains next to nothing from less.
        features: Tensor = self.trunk(leaky_relu(exact_conv(self.head, frames)))
        return features
