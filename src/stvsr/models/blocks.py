"""Convolutions, their LeakyReLU and the residual block, which the networks share.

Residual blocks have no normalisation (paper Sec. 3.3, after EDSR). Their weights start at a tenth of Kaiming's,
so that a long trunk starts close to the identity.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stvsr.errors import InvalidInput

LEAKY_SLOPE = 0.1
"""Slope of every LeakyReLU of the method."""

RESIDUAL_WEIGHT_SCALE = 0.1


def conv3x3(in_channels: int, out_channels: int, *, stride: int = 1) -> nn.Conv2d:
    """The 3x3 convolution with bias that the whole method is made of."""
    return nn.Conv2d(in_channels, out_channels, kernel_size=3, stride=stride, padding=1)


def conv1x1(in_channels: int, out_channels: int) -> nn.Conv2d:
    """A 1x1 convolution with bias."""
    return nn.Conv2d(in_channels, out_channels, kernel_size=1)


def conv_of_two(conv: nn.Conv2d, first: Tensor, second: Tensor) -> Tensor:
    """A convolution of two maps joined along their channels, without joining them.

    Args:
        conv: of `2c` channels.
        first: `(b, c, h, w)`.
        second: the same shape.

    Returns:
        `conv(torch.cat([first, second], dim=1))`, up to rounding.
    """
    return conv_part(conv, first, 0).add_(conv_part(conv, second, first.shape[1]))


def conv_part(conv: nn.Conv2d, part: Tensor, first: int) -> Tensor:
    """What one of several maps joined along their channels contributes to a convolution of them.

    Args:
        conv: of the joined maps, with stride 1.
        part: `(b, c, h, w)`.
        first: the channel of the joined maps at which it begins; the bias comes with channel 0.
    """
    weight = conv.weight[:, first : first + part.shape[1]]
    return F.conv2d(part, weight, None if first else conv.bias, padding=conv.padding)


def exact_conv(conv: nn.Conv2d, part: Tensor, first: int = 0) -> Tensor:
    """As `conv_part` (of all channels: the convolution itself), in the precision of its weights even under autocast."""
    with torch.autocast(part.device.type, enabled=False):
        return conv_part(conv, part.to(conv.weight.dtype), first)


def exact_sum(features: Tensor, residual: Tensor, conv: nn.Conv2d) -> Tensor:
    """Features plus what a block of a trunk adds to them, in the precision of its weights even under autocast.

    Residuals are small. Summed below float32, most of them would be rounded away, block after block.

    Args:
        features: what the block was given.
        residual: the same shape; may be overwritten.
        conv: of the block, with its weights.
    """
    exact = torch.promote_types(features.dtype, conv.weight.dtype)
    return residual.add_(features) if residual.dtype == exact else features.to(exact) + residual


def check_part(name: str, part: object, channels: int) -> None:
    """Refuses a part of a model for maps of another width than it; one without `channels` is taken as it is.

    Raises:
        InvalidInput: names the part, and both widths; or it is no module.
    """
    if not isinstance(part, nn.Module):
        raise InvalidInput(f"{name}={part}; expected one of the parts in conf/model, such as model/propagation=none")
    own = getattr(part, "channels", channels)
    if own != channels:
        raise InvalidInput(
            f"{name}: {type(part).__name__} has channels={own}, what it is a part of channels={channels}; expected one "
            "width: set model.channels alone"
        )


def start_at_zero(layer: nn.Module) -> None:
    """Weights and bias of zero."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)


def start_as_he(conv: nn.Conv2d | nn.ConvTranspose2d, *, slope: float = 0.0) -> None:
    """No bias, and weights with which a (leaky) ReLU's output is as large as the convolution's input (He et al.)."""
    nn.init.kaiming_normal_(conv.weight, a=slope)
    assert conv.bias is not None
    nn.init.zeros_(conv.bias)


def leaky_relu(features: Tensor) -> Tensor:
    """LeakyReLU with the method's slope, which overwrites its input: for what nothing else uses."""
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
