"""The convolutions, LeakyReLU and residual block that the networks share.

Residual blocks have no normalisation (paper Sec. 3.3, after EDSR). Their weights start at a tenth of Kaiming's,
so that a long trunk starts close to the identity.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stvsr.errors import InvalidInput

LEAKY_SLOPE = 0.1
"""Negative slope of every LeakyReLU in the method."""

RESIDUAL_WEIGHT_SCALE = 0.1


def conv3x3(in_channels: int, out_channels: int, *, stride: int = 1) -> nn.Conv2d:
    """The 3x3 convolution with bias that the whole method is made of."""
    return nn.Conv2d(in_channels, out_channels, kernel_size=3, stride=stride, padding=1)


def conv1x1(in_channels: int, out_channels: int) -> nn.Conv2d:
    """A 1x1 convolution with bias."""
    return nn.Conv2d(in_channels, out_channels, kernel_size=1)


def conv_of_two(conv: nn.Conv2d, first: Tensor, second: Tensor) -> Tensor:
    """A convolution of two maps concatenated along their channels, without concatenating them.

    Args:
        conv: takes `2c` channels.
        first: `(b, c, h, w)`.
        second: the same shape.

    Returns:
        `conv(torch.cat([first, second], dim=1))`, up to rounding.
    """
    return conv_part(conv, first, 0).add_(conv_part(conv, second, first.shape[1]))


def conv_part(conv: nn.Conv2d, part: Tensor, first: int) -> Tensor:
    """The contribution of one map to a convolution of several concatenated along their channels.

    Args:
        conv: takes the concatenated maps; stride 1.
        part: the map, `(b, c, h, w)`.
        first: its first channel among theirs; the map with channel 0 also adds the bias.
    """
    weight = conv.weight[:, first : first + part.shape[1]]
    return F.conv2d(part, weight, None if first else conv.bias, padding=conv.padding)


def exact_conv(conv: nn.Conv2d, part: Tensor, first: int = 0) -> Tensor:
    """As `conv_part` (`part` may be the whole input), in the precision of the weights even under autocast."""
    with torch.autocast(part.device.type, enabled=False):
        return conv_part(conv, part.to(conv.weight.dtype), first)


def exact_sum(features: Tensor, residual: Tensor, conv: nn.Conv2d) -> Tensor:
    """Adds a block's residual to its input, in the precision of its weights even under autocast.

    Residuals are small. Summed below float32, most of each would be rounded away, block after block.

    Args:
        features: the block's input.
        residual: the same shape; may be overwritten.
        conv: of the block; its weights have the precision wanted.
    """
    exact = torch.promote_types(features.dtype, conv.weight.dtype)
    return residual.add_(features) if residual.dtype == exact else features.to(exact) + residual


def check_part(name: str, part: object, channels: int) -> None:
    """Refuses a part whose width differs from its model's; a part without `channels` is accepted.

    Raises:
        InvalidInput: `part` is no module, or has another width; names the part and both widths.
    """
    if not isinstance(part, nn.Module):
        raise InvalidInput(f"{name}={part}; expected one of the parts in conf/model, such as model/propagation=none")
    width = getattr(part, "channels", channels)
    if width != channels:
        raise InvalidInput(
            f"{name}: {type(part).__name__} has channels={width}, its parent module channels={channels}; expected one "
            "width: set only model.channels"
        )


def start_at_zero(layer: nn.Module) -> None:
    """Sets all parameters of a layer to zero."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)


def start_as_he(conv: nn.Conv2d | nn.ConvTranspose2d, *, slope: float = 0.0) -> None:
    """Zeroes the bias and draws weights that keep a signal's scale through the convolution and a (leaky) ReLU (He)."""
    nn.init.kaiming_normal_(conv.weight, a=slope)
    assert conv.bias is not None
    nn.init.zeros_(conv.bias)


def leaky_relu(features: Tensor) -> Tensor:
    """LeakyReLU with the method's slope, in place: nothing else may use the input."""
    return F.leaky_relu(features, LEAKY_SLOPE, inplace=True)


class ResidualBlock(nn.Module):
    """conv, ReLU, conv, add: `(b, c, h, w)` to the same shape."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = conv3x3(channels, channels)
        self.conv2 = conv3x3(channels, channels)
        for conv in (self.conv1, self.conv2):
            start_as_he(conv)
            with torch.no_grad():
                conv.weight *= RESIDUAL_WEIGHT_SCALE

    def forward(self, features: Tensor) -> Tensor:
        return exact_sum(features, self.conv2(F.relu(self.conv1(features), inplace=True)), self.conv2)


def residual_blocks(count: int, channels: int) -> nn.Sequential:
    """A trunk of `count` residual blocks."""
    return nn.Sequential(*(ResidualBlock(channels) for _ in range(count)))
