"""RCAN: residual channel attention network, each frame by itself.

Ten groups of twenty residual blocks between a convolution and sub-pixel upscaling; a block weighs the channels of its
residual by their means over the frame. Inside, values are 0 to 255, as the published weights expect.

Limits: the means are over the given input. The authors' test program cuts every picture into quarters first, so its
results differ slightly from those of whole frames, and those in turn from those of tiles.

Reference: Y. Zhang et al., "Image Super-Resolution Using Very Deep Residual Channel Attention Networks", ECCV 2018.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stvsr.data.clip import PEAK
from stvsr.errors import InvalidInput
from stvsr.models.blocks import conv1x1, conv3x3, exact_conv, exact_sum
from stvsr.models.chunking import in_chunks
from stvsr.models.two_stage import FrameUpscaler
from stvsr.models.weight_files import WeightFile

MEAN = (0.4488, 0.4371, 0.4040)
"""Mean colour of DIV2K, RGB in [0, 1]."""

# Alternatives in a pattern: the authors' name | that of BasicSR.
RENAMING = (
    (r"^sub_mean", "subtract_mean"),
    (r"^(head\.0|conv_first)", "head"),
    (r"^body\.(\d+)\.(?:body|residual_group)\.(\d+)\.(?:body|rcab)\.", r"groups.\1.blocks.\2."),
    (r"(blocks\.\d+)\.0", r"\1.conv1"),
    (r"(blocks\.\d+)\.2", r"\1.conv2"),
    (r"(blocks\.\d+)\.3\.(conv_du\.0|attention\.1)", r"\1.attention.squeeze"),
    (r"(blocks\.\d+)\.3\.(conv_du\.2|attention\.3)", r"\1.attention.excite"),
    (r"^body\.(\d+)\.(body\.20|conv)", r"groups.\1.conv"),
    (r"^(body\.10|conv_after_body)", "conv"),
    (r"^(tail\.0|upsample)\.0", "up1"),
    (r"^(tail\.0|upsample)\.2", "up2"),
    (r"^(tail\.1|conv_last)", "tail"),
)


class RCAN(FrameUpscaler):
    """Residual channel attention network.

    Args:
        channels: width of every feature map.
        groups: residual groups.
        blocks: blocks in a group.
        reduction: factor by which attention reduces the channels.

    Raises:
        InvalidInput: `reduction` is not from 1 to `channels`.
    """

    title = "RCAN"
    weight_files = (
        WeightFile(
            "RCAN_BIX4.pt", "github.com/yulunzhang/RCAN", "body.0.body.0.body.3.conv_du.0.weight", renaming=RENAMING
        ),
        WeightFile(
            "RCAN_BIX4_official",
            "github.com/XPixelGroup/BasicSR",
            "body.0.residual_group.0.rcab.3.attention.1.weight",
            renaming=RENAMING,
            optional="_mean",
        ),
    )
    notes = (
        "15.59 M parameters, which the paper's table has in whole millions (16.0 M)",
        "of whole frames; the authors' program cuts them into quarters, over which its attention takes means",
    )

    def __init__(self, *, channels: int = 64, groups: int = 10, blocks: int = 20, reduction: int = 16) -> None:
        super().__init__()
        if not 0 < reduction <= channels:
            raise InvalidInput(f"reduction={reduction}; expected 1 to channels={channels}")
        self.subtract_mean, self.add_mean = MeanShift(-1), MeanShift(1)
        self.head = conv3x3(3, channels)
        self.groups = nn.Sequential(
            *(ResidualGroup(channels, blocks=blocks, reduction=reduction) for _ in range(groups))
        )
        self.conv = conv3x3(channels, channels)
        self.up1, self.up2 = conv3x3(channels, 4 * channels), conv3x3(channels, 4 * channels)
        self.tail = conv3x3(channels, 3)

    def forward(self, frames: Tensor) -> Tensor:
        """See `FrameUpscaler`."""
        images = PEAK * frames.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        return torch.unflatten(in_chunks(self.enlarge, images) / PEAK, 0, frames.shape[:2])

    def enlarge(self, images: Tensor) -> Tensor:
        """The network as published: `(b, 3, h, w)`, RGB in [0, 255], to `(b, 3, 4h, 4w)`."""
        head = self.head(self.subtract_mean(images))
        features = exact_sum(head, self.conv(self.groups(head)), self.conv)
        features = F.pixel_shuffle(self.up1(features), 2)
        features = F.pixel_shuffle(self.up2(features), 2)
        enlarged: Tensor = self.add_mean(exact_conv(self.tail, features))
        return enlarged


class MeanShift(nn.Conv2d):
    """Adds or subtracts the mean colour.

    A convolution, because the published files hold one; it is not trained.
    """

    def __init__(self, sign: int) -> None:
        super().__init__(3, 3, kernel_size=1)
        assert self.bias is not None
        self.weight.data = torch.eye(3)[:, :, None, None]
        self.bias.data = sign * PEAK * torch.tensor(MEAN)
        self.requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """`(b, 3, h, w)`, RGB in [0, 255], to the same shape."""
        # At 255, bfloat16 has steps of a whole grey level.
        with torch.autocast(images.device.type, enabled=False):
            return super().forward(images.to(self.weight.dtype))


class ResidualGroup(nn.Module):
    """Attention blocks and a convolution, plus the group's input: `(b, c, h, w)` to the same shape."""

    def __init__(self, channels: int, *, blocks: int, reduction: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(AttentionBlock(channels, reduction=reduction) for _ in range(blocks)))
        self.conv = conv3x3(channels, channels)

    def forward(self, features: Tensor) -> Tensor:
        return exact_sum(features, self.conv(self.blocks(features)), self.conv)


class AttentionBlock(nn.Module):
    """conv, ReLU, conv, scale by channel attention, add: `(b, c, h, w)` to the same shape."""

    def __init__(self, channels: int, *, reduction: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = conv3x3(channels, channels), conv3x3(channels, channels)
        self.attention = ChannelAttention(channels, reduction=reduction)

    def forward(self, features: Tensor) -> Tensor:
        residual = self.conv2(F.relu(self.conv1(features), inplace=True))
        return exact_sum(features, residual * self.attention(residual), self.conv2)


class ChannelAttention(nn.Module):
    """A weight for each channel, from the means of all: `(b, c, h, w)` to `(b, c, 1, 1)` in (0, 1)."""

    def __init__(self, channels: int, *, reduction: int) -> None:
        super().__init__()
        self.squeeze = conv1x1(channels, channels // reduction)
        self.excite = conv1x1(channels // reduction, channels)

    def forward(self, features: Tensor) -> Tensor:
        means = features.mean((2, 3), keepdim=True)
        return torch.sigmoid(self.excite(F.relu(self.squeeze(means))))
