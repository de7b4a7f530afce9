"""SepConv: frame interpolation by adaptive separable convolution (Niklaus et al., ICCV 2017).

For each pixel of the middle frame a U-Net predicts two filters of 51 x 51 taps, one for each given frame, each as a
column times a row of weights. The middle frame is the sum of both filtered frames. Filters need not be positive or
normalised. Motion of more than 25 pixels is out of their reach.

The authors' network takes BGR frames, padded at the right and bottom to multiples of 128 by repeating the border (their
mode "improved"). The network itself needs only multiples of 32, but its output depends on the padding. The authors'
weights may be used for academic purposes only.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stvsr.errors import InvalidInput
from stvsr.models.blocks import conv3x3
from stvsr.models.two_stage import FrameInterpolator
from stvsr.models.weight_files import WeightFile
from stvsr.ops.separable_convolution import separable_convolution

BGR = [2, 1, 0]
"""The authors' colour channels as indices of ours; the same indices convert back."""


def convolutions(*channels: int) -> list[nn.Module]:
    """3x3 convolutions between consecutive widths, each followed by ReLU."""
    return [
        layer
        for in_channels, out_channels in pairwise(channels)
        for layer in (conv3x3(in_channels, out_channels), nn.ReLU(inplace=True))
    ]


def upsampled(*channels: int) -> nn.Sequential:
    """Convolutions with ReLU, bilinear x2 (`align_corners=True`), and one more convolution, without ReLU."""
    upsample = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
    return nn.Sequential(*convolutions(*channels), upsample, conv3x3(channels[-1], channels[-1]))


class SepConv(FrameInterpolator):
    """Predicts a filter for each pixel and frame from both frames.

    Args:
        channels: widths of the five levels, from full resolution down.
        taps: height and width of the filters; odd.
        multiple_of: sides of frames are padded to multiples of it.

    Raises:
        InvalidInput: `multiple_of` is no multiple of 2 ** levels, or `taps` is not odd.
    """

    title = "SepConv"
    weight_files = (
        WeightFile(
            name="network-l1.pytorch",
            project="github.com/sniklaus/sepconv-slomo",
            signature="moduleConv1.0.weight",
            renaming=(
                *((rf"^moduleConv{level}\.", f"encoder.{level - 1}.") for level in range(1, 6)),
                *((rf"^moduleDeconv{level}\.", f"decoder.{5 - level}.") for level in range(5, 1, -1)),
                *((rf"^moduleUpsample{level}\.1\.", f"decoder.{5 - level}.7.") for level in range(5, 1, -1)),
                (r"^moduleVertical1\.", "vertical_before."),
                (r"^moduleHorizontal1\.", "horizontal_before."),
                (r"^moduleVertical2\.", "vertical_after."),
                (r"^moduleHorizontal2\.", "horizontal_after."),
            ),
        ),
    )

    def __init__(
        self, *, channels: Sequence[int] = (32, 64, 128, 256, 512), taps: int = 51, multiple_of: int = 128
    ) -> None:
        super().__init__()
        if multiple_of < 1 or multiple_of % 2 ** len(channels):
            raise InvalidInput(f"multiple_of={multiple_of}; expected a multiple of {2 ** len(channels)}")
        if taps < 1 or taps % 2 == 0:
            raise InvalidInput(f"taps={taps}; expected an odd number")
        self.multiple_of = multiple_of
        self.encoder = nn.ModuleList(nn.Sequential(*convolutions(a, b, b, b)) for a, b in pairwise([6, *channels]))
        decoder_widths = [channels[-1], *reversed(channels[1:])]
        self.decoder = nn.ModuleList(upsampled(a, b, b, b) for a, b in pairwise(decoder_widths))
        width = decoder_widths[-1]
        self.vertical_before, self.horizontal_before, self.vertical_after, self.horizontal_after = (
            upsampled(width, width, width, taps) for _ in range(4)
        )

    def between(self, before: Tensor, after: Tensor) -> Tensor:
        """See `FrameInterpolator`."""
        h, w = before.shape[-2:]
        margin = [0, -w % self.multiple_of, 0, -h % self.multiple_of]
        padded = (F.pad(frames[:, BGR], margin, mode="replicate") for frames in (before, after))
        return self.synthesise(*padded)[:, BGR, :h, :w]

    def synthesise(self, before: Tensor, after: Tensor) -> Tensor:
        """The authors' network: BGR frames `(b, 3, h, w)`, sides multiples of 32, to the same shape."""
        features = self._features(torch.cat([before, after], dim=1))
        # One frame after the other, as the filters are by far the largest maps.
        middle = separable_convolution(before, self.vertical_before(features), self.horizontal_before(features))
        middle += separable_convolution(after, self.vertical_after(features), self.horizontal_after(features))
        return middle

    def _features(self, features: Tensor) -> Tensor:
        """Both frames `(b, 6, h, w)` to features of half the height and width."""
        levels = []
        for encode in self.encoder:
            levels.append(encode(features))
            features = F.avg_pool2d(levels[-1], 2)
        for decode in self.decoder:
            features = F.relu(decode(features), inplace=True) + levels.pop()
        return features
