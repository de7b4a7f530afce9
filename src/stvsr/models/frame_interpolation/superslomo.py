"""Super SloMo: frame interpolation by optical flow and visibility (Jiang et al., CVPR 2018).

One U-Net estimates the flow between the given frames; from it the flow from the middle frame to each of them is
derived, assuming uniform linear motion (Eq. 4). A second U-Net corrects these flows and estimates how visible each
frame's content is in the middle; the frames, warped by the corrected flows, are blended accordingly (Eq. 1 and 5).

Flows are in pixels, x then y, positive right and down. Only the middle frame (t = 0.5) is made; there the two
visibilities add up to 1, so that the general formula's division is not needed.

The authors released no weights; the published ones are of an independent reimplementation, trained on Adobe240fps.
The network here follows it: the mean colour is subtracted from frames; the sampling grid is scaled by
`(side - 1) / side`, so that content comes from up to a pixel nearer to the top left than the flow says; the last
convolutions, too, are followed by LeakyReLU (slope 0.1). Sides are padded to multiples of 32 by reflection (the
reimplementation's scripts resize the frames instead, which blurs them).
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stvsr.models.alignment import upsample2
from stvsr.models.blocks import conv3x3, conv_of_two, exact_conv, leaky_relu
from stvsr.models.network import pad_to_multiple
from stvsr.models.two_stage import FrameInterpolator
from stvsr.models.weight_files import WeightFile
from stvsr.ops.sampling import pixel_positions, sample_at

MEAN_COLOUR = (0.429, 0.431, 0.397)
"""RGB, subtracted from all frames; sampling outside a frame gives this colour."""

KERNEL_SIZES = (7, 5, 3, 3, 3, 3)
"""Kernel sizes of the encoder's levels, from full resolution down."""


class Synthesis(NamedTuple):
    """A middle frame and its inputs; frames `(b, 3, h, w)` minus the mean colour, flows `(b, 2, h, w)`."""

    frame: Tensor
    forward_flow: Tensor  # from the frame before to the one after
    backward_flow: Tensor
    warped_before: Tensor  # the frame before, warped by the uncorrected flow from the middle frame
    warped_after: Tensor


def warp(frames: Tensor, flow: Tensor) -> Tensor:
    """Warps frames by a flow, on the sampling grid that the published weights were trained with.

    Args:
        frames: `(b, c, h, w)`; taken as 0 outside.
        flow: `(b, 2, h, w)`, from each pixel of the output to where it is sampled.

    Returns:
        `(b, c, h, w)`.
    """
    h, w = frames.shape[-2:]
    scale = flow.new_tensor([(w - 1) / w, (h - 1) / h]).view(1, 2, 1, 1)
    return sample_at(frames, (pixel_positions(h, w, like=flow) + flow) * scale)


class EncoderBlock(nn.Module):
    """Two convolutions, each followed by LeakyReLU."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = (
            nn.Conv2d(channels, out_channels, kernel_size, padding=kernel_size // 2)
            for channels in (in_channels, out_channels)
        )

    def forward(self, features: Tensor) -> Tensor:
        """`(b, in_channels, h, w)` to `(b, out_channels, h, w)`."""
        return leaky_relu(self.conv2(leaky_relu(self.conv1(features))))


class DecoderBlock(nn.Module):
    """Bilinear x2 and two convolutions, the second of which also takes the encoder's features."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = conv3x3(in_channels, out_channels), conv3x3(2 * out_channels, out_channels)

    def forward(self, features: Tensor, encoded: Tensor) -> Tensor:
        """`(b, in_channels, h, w)` and the encoder's `(b, out_channels, 2h, 2w)` to the shape of the latter."""
        features = leaky_relu(self.conv1(upsample2(features)))
        return leaky_relu(conv_of_two(self.conv2, features, encoded))


class UNet(nn.Module):
    """`(b, in_channels, h, w)`, sides multiples of 32, to `(b, out_channels, h, w)`; `channels` as in `SuperSloMo`."""

    def __init__(self, in_channels: int, out_channels: int, *, channels: Sequence[int]) -> None:
        super().__init__()
        widths = zip(pairwise([in_channels, *channels]), KERNEL_SIZES, strict=True)
        self.encoder = nn.ModuleList(EncoderBlock(*width, kernel_size) for width, kernel_size in widths)
        self.decoder = nn.ModuleList(DecoderBlock(*width) for width in pairwise(reversed(channels)))
        self.last = conv3x3(channels[0], out_channels)

    def forward(self, features: Tensor) -> Tensor:
        levels = [self.encoder[0](features)]
        for encode in self.encoder[1:]:
            levels.append(encode(F.avg_pool2d(levels[-1], 2)))
        features = levels.pop()
        for decode in self.decoder:
            features = decode(features, levels.pop())
        # Flows are in pixels: below float32, large ones would be rounded visibly.
        return leaky_relu(exact_conv(self.last, features))


class SuperSloMo(FrameInterpolator):
    """Interpolates the middle frame: flow, corrected flow, visibility, blend.

    Args:
        channels: widths of both U-Nets' six levels, from full resolution down.
    """

    title = "SuperSloMo"
    weight_files = (
        WeightFile(
            name="SuperSloMo.ckpt",
            project="github.com/avinashpaliwal/Super-SloMo",
            signature="state_dictFC.conv1.weight",
            renaming=(
                (r"^state_dictFC\.", "flow."),
                (r"^state_dictAT\.", "correction."),
                (r"^(\w+)\.(conv[12])\.", r"\1.encoder.0.\2."),
                (r"\.down(\d)\.", r".encoder.\1."),
                *((rf"\.up{number}\.", f".decoder.{number - 1}.") for number in range(1, 6)),
                (r"\.conv3\.", ".last."),
            ),
        ),
    )

    notes = (
        "39.6 M parameters in two U-Nets, of which the paper's table counts one (19.8 M)",
        "weights of an independent training; frames are padded to multiples of 32, where its scripts resize them",
    )

    mean_colour: Tensor

    def __init__(self, *, channels: Sequence[int] = (32, 64, 128, 256, 512, 512)) -> None:
        super().__init__()
        self.flow = UNet(6, 4, channels=channels)
        self.correction = UNet(20, 5, channels=channels)
        self.register_buffer("mean_colour", torch.tensor(MEAN_COLOUR).view(3, 1, 1), persistent=False)

    def between(self, before: Tensor, after: Tensor) -> Tensor:
        """See `FrameInterpolator`."""
        frames = self.synthesise(self.prepare(before), self.prepare(after)).frame
        return frames[..., : before.shape[-2], : before.shape[-1]] + self.mean_colour

    def prepare(self, frames: Tensor) -> Tensor:
        """Prepares frames for the network: pads sides to multiples of 32, subtracts the mean colour."""
        return pad_to_multiple(frames, 32) - self.mean_colour

    def synthesise(self, before: Tensor, after: Tensor) -> Synthesis:
        """The network itself, on frames that `prepare` returned."""
        forward_flow, backward_flow = self.flow(torch.cat([before, after], dim=1)).chunk(2, dim=1)
        to_before = (backward_flow - forward_flow) / 4
        to_after = -to_before
        warped_before, warped_after = warp(before, to_before), warp(after, to_after)
        # The published weights expect this order.
        flows, warped = (forward_flow, backward_flow, to_after, to_before), (warped_after, warped_before)
        correction = self.correction(torch.cat([before, after, *flows, *warped], dim=1))
        before_correction, after_correction, visibility = torch.split(correction, [2, 2, 1], dim=1)
        frame = torch.lerp(
            warp(after, to_after + after_correction), warp(before, to_before + before_correction), visibility.sigmoid()
        )
        return Synthesis(frame, forward_flow, backward_flow, warped_before, warped_after)
