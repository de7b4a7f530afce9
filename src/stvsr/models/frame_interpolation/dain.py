"""DAIN: depth-aware video frame interpolation (Bao et al., CVPR 2019).

Both frames are warped to the moment between them, by optical flow projected to that moment (where several pixels
arrive, near ones count more than far ones) and by a kernel for each pixel. The mean of the warped frames is corrected
by a network that takes all these results and context features warped in the same way. The parts:

    flow       PWC-Net (pwc_net.py)
    depth      MegaDepth's hourglass (megadepth.py)
    filter     a U-Net that predicts the kernels
    context    features of a frame, at its own resolution
    rectify    the correction

Untrained, it returns the mean of the frames: no motion, kernels of bilinear sampling, no correction.

Where no pixel arrives, flow is 0 in training; without gradients such holes are filled (`stvsr.ops.flow_projection`).
Both are as in the authors' code.

Frames may be of any size: they are padded as in the authors' programs. Without gradients large pairs are processed one
at a time, and the input of the correction, 437 channels at full resolution, is produced piece by piece: for a pair at
most 500 such channels exist at once, 1.3 GB at 960x540.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stvsr.models.alignment import upsample2
from stvsr.models.blocks import conv3x3, conv_part, start_at_zero
from stvsr.models.frame_interpolation import megadepth, pwc_net
from stvsr.models.two_stage import FrameInterpolator
from stvsr.models.weight_files import WeightFile
from stvsr.ops.adaptive_warping import SIDE, adaptive_warping, taps_of
from stvsr.ops.flow_projection import project_flow

MIDDLE = 0.5
"""The time to interpolate; the given frames are at 0 and 1."""

MULTIPLE = 128
"""Sides are padded to multiples of this; one that is a multiple already grows by half of it, as with the authors."""

FARTHEST_WEIGHT = 1e-6
"""The weight of an infinitely far pixel in flow projection."""

RESIDUAL_NET = (
    (r"block1\.0", "head"),
    *((f"block{n}", f"blocks.{n - 2}") for n in (2, 3, 4)),
    (r"block5\.0", "tail"),
)
FILTER_NET = (
    (r"0\.", "head."),
    *((rf"{2 + 3 * n}\.", f"encoder.{n}.") for n in range(5)),
    (r"17\.", "bottom."),
    *((rf"{20 + 3 * n}\.", f"decoder.{n}.") for n in range(5)),
)
"""From tensor names in the authors' file, within a part, to ours."""


def _renaming(published: str, name: str, inner: Iterable[tuple[str, str]] = ()) -> list[tuple[str, str]]:
    """Renaming pairs for a part of the network, given those for the names within it."""
    within = ((rf"^{name}\.{pattern}", f"{name}.{replacement}") for pattern, replacement in inner)
    return [(rf"^{published}\.", f"{name}."), *within]


def padding(size: int) -> tuple[int, int]:
    """Pixels by which a height or width is padded before and after it."""
    if missing := -size % MULTIPLE:
        return missing // 2, missing - missing // 2
    return MULTIPLE // 4, MULTIPLE // 4


class DAIN(FrameInterpolator):
    """Interpolates the frame in the middle of two.

    Args:
        channels: the unit to which all widths are proportional; 16 in the paper.
    """

    title = "DAIN"
    weight_files = (
        WeightFile(
            name="best.pth",
            project="github.com/baowenbo/DAIN",
            signature="initScaleNets_filter.0.weight",
            renaming=(
                *_renaming("flownets", "flow_net", pwc_net.RENAMING),
                *_renaming("depthNet", "depth_net", megadepth.RENAMING),
                *_renaming("initScaleNets_filter", "filter_net", FILTER_NET),
                *_renaming("initScaleNets_filter1", "filter_net.kernel_before"),
                *_renaming("initScaleNets_filter2", "filter_net.kernel_after"),
                *_renaming("ctxNet", "context_net", RESIDUAL_NET),
                *_renaming("rectifyNet", "rectify_net", RESIDUAL_NET),
            ),
            optional=r"num_batches_tracked$",
        ),
    )

    def __init__(self, *, channels: int = 16) -> None:
        super().__init__()
        self.flow_net = pwc_net.PWCNet(channels=channels)
        self.depth_net = megadepth.MegaDepth(channels=channels)
        self.filter_net = FilterNet(channels=channels)
        self.context_net = ContextNet(channels=4 * channels)
        # The mean; for each frame, twice the warped frame, flow, kernel, three context maps and depth.
        in_channels = 3 + 2 * (3 + 2 + SIDE**2 + 3 + 3 * 4 * channels + 1)
        self.rectify_net = RectifyNet(in_channels=in_channels, channels=8 * channels)

    def between(self, before: Tensor, after: Tensor) -> Tensor:
        """See `FrameInterpolator`."""
        height, width = before.shape[-2:]
        (left, right), (top, bottom) = padding(width), padding(height)
        padded = (F.pad(frames, [left, right, top, bottom], mode="replicate") for frames in (before, after))
        return self.synthesise(*padded)[..., top : top + height, left : left + width]

    def synthesise(self, before: Tensor, after: Tensor) -> Tensor:
        """The network without padding: as `forward`, for sides that are multiples of 64."""
        frames = (before, after)
        depths = self.depth_net(torch.cat(frames)).chunk(2)
        flows = self._projected_flows(before, after, depths)
        kernels = self.filter_net(before, after)
        taps = [taps_of(flow, kernel) for flow, kernel in zip(flows, kernels, strict=True)]
        warped = [adaptive_warping(frame, frame_taps) for frame, frame_taps in zip(frames, taps, strict=True)]
        mean = (warped[0] + warped[1]) / 2

        def clues() -> Iterator[Tensor]:
            yield torch.cat([mean, *warped, *flows, *kernels], dim=1)
            for frame, warped_frame, depth, frame_taps in zip(frames, warped, depths, taps, strict=True):
                yield warped_frame
                for features in self.context_net(frame):
                    yield adaptive_warping(features, frame_taps)
                yield adaptive_warping(depth, frame_taps)

        correction: Tensor = self.rectify_net(clues())
        return mean + correction

    def _projected_flows(self, before: Tensor, after: Tensor, depths: Sequence[Tensor]) -> list[Tensor]:
        """Flows from the middle to both frames: `(b, 2, h, w)` each, x then y, in pixels."""
        # Flow is in pixels: below float32, a large one would be rounded to a sixteenth of a pixel.
        with torch.autocast(before.device.type, enabled=False):
            return [
                project_flow(
                    F.interpolate(MIDDLE * flow, scale_factor=4, mode="bilinear", align_corners=False),
                    FARTHEST_WEIGHT + torch.exp(-log_depth.to(flow.dtype)),
                )
                for flow, log_depth in zip(self.flow_net(before, after), depths, strict=True)
            ]


class FilterNet(nn.Module):
    """A U-Net that predicts a kernel for each pixel of each of two frames."""

    def __init__(self, *, channels: int) -> None:
        super().__init__()
        steps = list(pairwise(channels * 2**level for level in range(6)))
        self.head = conv3x3(6, channels)
        self.encoder = nn.ModuleList(conv3x3(finer, coarser) for finer, coarser in steps)
        self.bottom = conv3x3(32 * channels, 32 * channels)
        self.decoder = nn.ModuleList(conv3x3(coarser, finer) for finer, coarser in reversed(steps))
        self.kernel_before, self.kernel_after = (
            nn.Sequential(conv3x3(channels, channels), nn.ReLU(inplace=True), _bilinear_kernel(channels))
            for _ in range(2)
        )

    def forward(self, before: Tensor, after: Tensor) -> tuple[Tensor, Tensor]:
        """Frames `(b, 3, h, w)`, sides multiples of 32, to unnormalised 4x4 kernels `(b, 16, h, w)`, row by row."""
        x = _relu(self.head(torch.cat([before, after], dim=1)))
        skips = []
        for conv in self.encoder:
            skips.append(_relu(conv(x)))
            x = F.max_pool2d(skips[-1], 2)
        x = _relu(self.bottom(x))
        for conv in self.decoder:
            x = _relu(conv(upsample2(x).add_(skips.pop())))
        return self.kernel_before(x), self.kernel_after(x)


class DilatedBlock(nn.Module):
    """conv, ReLU, conv, add, ReLU; the first convolution is dilated, neither has a bias."""

    def __init__(self, channels: int, *, dilation: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation, bias=False)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """`(b, c, h, w)` to the same shape."""
        residual: Tensor = self.conv2(_relu(self.conv1(features)))
        return _relu(residual.add_(features))


class ContextNet(nn.Module):
    """Features of a frame, with larger and larger receptive fields."""

    def __init__(self, *, channels: int) -> None:
        super().__init__()
        self.head = nn.Conv2d(3, channels, 7, padding=3, bias=False)
        self.blocks = nn.ModuleList(DilatedBlock(channels, dilation=dilation) for dilation in (4, 8))

    def forward(self, frame: Tensor) -> Iterator[Tensor]:
        """Yields three feature maps `(b, channels, h, w)` of a frame `(b, 3, h, w)`, each computed on demand."""
        yield (features := _relu(self.head(frame)))
        for block in self.blocks:
            yield (features := block(features))


class RectifyNet(nn.Module):
    """Predicts the correction of the warped frames' mean."""

    def __init__(self, *, in_channels: int, channels: int) -> None:
        super().__init__()
        self.head = nn.Conv2d(in_channels, channels, 7, padding=3)
        self.blocks = nn.ModuleList(DilatedBlock(channels) for _ in range(3))
        self.tail = conv3x3(channels, 3)
        start_at_zero(self.tail)

    def forward(self, clues: Iterable[Tensor]) -> Tensor:
        """Computes `(b, 3, h, w)` from maps `(b, …, h, w)` that have `in_channels` channels in total."""
        # The convolution of the concatenated maps, without concatenating them.
        features, first = self.head.weight.new_zeros(()), 0
        for clue in clues:
            features = conv_part(self.head, clue, first).add_(features)
            first += clue.shape[1]
            # Freed before the next one, which is as large, is computed.
            del clue
        features = _relu(features)
        for block in self.blocks:
            features = block(features)
        correction: Tensor = self.tail(features)
        return correction


def _relu(features: Tensor) -> Tensor:
    """ReLU in place, for outputs that their layers do not need for gradients."""
    return F.relu(features, inplace=True)


def _bilinear_kernel(channels: int) -> nn.Conv2d:
    """A convolution that predicts kernels, initialised to bilinear sampling for any input."""
    conv = conv3x3(channels, SIDE**2)
    inner = torch.zeros(SIDE, SIDE)
    inner[1:3, 1:3] = 1
    nn.init.zeros_(conv.weight)
    conv.bias = nn.Parameter(inner.flatten())
    return conv
