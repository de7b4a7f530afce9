"""Back-projection between LR and HR feature maps, and the layers that RBPN is made of.

A projection moves a map to the other resolution and back, and corrects the result by the error of this round trip. Each
layer ends in a PReLU with a single slope. The two resolutions are a factor of 4 apart.

Reference: M. Haris, G. Shakhnarovich and N. Ukita, "Deep Back-Projection Networks For Super-Resolution", CVPR 2018.
"""

from collections import OrderedDict

from torch import Tensor, nn

from stvsr.data.clip import SCALE
from stvsr.models.blocks import conv1x1, conv3x3, conv_part


def activated(conv: nn.Module) -> nn.Sequential:
    """A convolution followed by PReLU."""
    return nn.Sequential(OrderedDict(conv=conv, act=nn.PReLU()))


def enlarging(in_channels: int, out_channels: int) -> nn.Sequential:
    """`(b, c, h, w)` to `(b, c', 4h, 4w)`."""
    return activated(nn.ConvTranspose2d(in_channels, out_channels, kernel_size=2 * SCALE, stride=SCALE, padding=2))


def reducing(in_channels: int, out_channels: int) -> nn.Sequential:
    """`(b, c, 4h, 4w)` to `(b, c', h, w)`."""
    return activated(nn.Conv2d(in_channels, out_channels, kernel_size=2 * SCALE, stride=SCALE, padding=2))


class PReLUBlock(nn.Module):
    """conv, PReLU, conv, add, the same PReLU: `(b, c, h, w)` to the same shape."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = conv3x3(channels, channels), conv3x3(channels, channels)
        self.act = nn.PReLU()

    def forward(self, features: Tensor) -> Tensor:
        output: Tensor = self.act(self.conv2(self.act(self.conv1(features))).add_(features))
        return output


class Projection(nn.Module):
    """Moves a map to the other resolution, and corrects it by the error of the way back.

    Args:
        there: moves a map to the other resolution.
        back: moves it back.
        correct: moves the error to the other resolution.
    """

    def __init__(self, *, there: nn.Module, back: nn.Module, correct: nn.Module) -> None:
        super().__init__()
        self.there, self.back, self.correct = there, back, correct

    def forward(self, features: Tensor) -> Tensor:
        """Features `(b, c, h, w)` to the shape of `there`'s output."""
        moved = self.there(features)
        correction: Tensor = self.correct(self.back(moved).sub_(features))
        return correction.add_(moved)


class BackProjection(nn.Module):
    """Alternating up- and down-projections; all HR maps are merged, the last one first.

    Args:
        in_channels: width of the LR input.
        channels: width of all other maps.
        stages: number of up-projections.
    """

    def __init__(self, *, in_channels: int, channels: int, stages: int) -> None:
        super().__init__()
        c = channels
        self.reduce = activated(conv1x1(in_channels, c))
        self.ups = nn.ModuleList(
            Projection(there=enlarging(c, c), back=reducing(c, c), correct=enlarging(c, c)) for _ in range(stages)
        )
        self.downs = nn.ModuleList(
            Projection(there=reducing(c, c), back=enlarging(c, c), correct=reducing(c, c)) for _ in range(stages - 1)
        )
        self.merge = conv1x1(stages * c, c)

    def forward(self, features: Tensor) -> Tensor:
        """`(b, in_channels, h, w)` to `(b, channels, 4h, 4w)`."""
        hr = self.ups[0](self.reduce(features))
        first = len(self.downs) * hr.shape[1]
        merged = conv_part(self.merge, hr, first)
        for down, up in zip(self.downs, self.ups[1:], strict=True):
            hr = up(down(hr))
            first -= hr.shape[1]
            merged.add_(conv_part(self.merge, hr, first))
        return merged
