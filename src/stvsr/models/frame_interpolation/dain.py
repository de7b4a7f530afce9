"""DAIN: depth-aware video frame interpolation (Bao et al., CVPR 2019).

Both frames are warped to the moment between them, by optical flow that is projected there (where several pixels
arrive, near ones count more than far ones) and by a kernel for each pixel; their mean is corrected by a network that
sees everything the others found, context features warped alike among it. The parts:

    flow       PWC-Net (pwc_net.py)
    depth      MegaDepth's hourglass (megadepth.py)
    filter     a U-Net: the kernels
    context    features of a frame, at its own resolution
    rectify    the correction

Untrained it gives the mean of the frames: no motion, kernels of bilinear sampling, no correction.

In training, places where no pixel arrives take what lies at their own place; without gradients holes of the flow are
filled (`stvsr.ops.flow_projection`). Both are the authors'.

Frames may be of any size: they are padded as the authors' programs do. Without gradients large pairs are done one
after the other, and what the correction sees, 437 channels at full resolution, exists a piece at a time: all that there
ever is of a pair are 500 such channels, 1.3 GB at 960x540.
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
"""The moment between two frames, the time between them being 1."""

MULTIPLE = 128
"""Frames are padded to a multiple of this, and those that are one by half of it, as in the authors' programs."""

FARTHEST_WEIGHT = 1e-6
"""What even the farthest pixel counts."""

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
"""Names of the authors' file, within a part, to ours."""


def _renaming(theirs: str, ours: str, inner: Iterable[tuple[str, str]] = ()) -> list[tuple[str, str]]:
    """Pairs for a part of the network, from pairs for the names within it."""
    within = ((rf"^{ours}\.{pattern}", f"{ours}.{replacement}") for pattern, replacement in inner)
    return [(rf"^{theirs}\.", f"{ours}."), *within]


def padding(size: int) -> tuple[int, int]:
    """What a height or width is padded by, before and behind it."""
    if missing := -size % MULTIPLE:
        return missing // 2, missing - missing // 2
    return MULTIPLE // 4, MULTIPLE // 4


class DAIN(FrameInterpolator):
    """The frame in the middle of two.

    Args:
        channels: the unit that all widths are multiples of; 16 is the paper's.
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
        # The mean, both warped frames, flows, kernels and contexts (with the frame itself and its depth).
        seen = 3 + 2 * (3 + 2 + SIDE**2 + 3 + 3 * 4 * channels + 1)
        self.rectify_net = RectifyNet(in_channels=seen, channels=8 * channels)

    def between(self, before: Tensor, after: Tensor) -> Tensor:
        """See `FrameInterpolator`."""
        height, width = before.shape[-2:]
        (left, right), (top, bottom) = padding(width), padding(height)
        padded = (F.pad(frames, [left, right, top, bottom], mode="replicate") for frames in (before, after))
        return self.synthesise(*padded)[..., top : top + height, left : left + width]

    def synthesise(self, before: Tensor, after: Tensor) -> Tensor:
        """The network without padding: as `forward`, for heights and widths that are multiples of 64."""
        frames = (before, after)
        depths = self.depth_net(torch.cat(frames)).chunk(2)
        flows = self._projected_flows(before, after, depths)
        kernels = self.filter_net(before, after)
        taps = [taps_of(flow, kernel) for flow, kernel in zip(flows, kernels, strict=True)]
        warped = [adaptive_warping(frame, at) for frame, at in zip(frames, taps, strict=True)]
        mean = (warped[0] + warped[1]) / 2

        def clues() -> Iterator[Tensor]:
            yield torch.cat([mean, *warped, *flows, *kernels], dim=1)
            for frame, its_warped, depth, at in zip(frames, warped, depths, taps, strict=True):
                yield its_warped
                for features in self.context_net(frame):
                    yield adaptive_warping(features, at)
                yield adaptive_warping(depth, at)

        correction: Tensor = self.rectify_net(clues())
        return mean + correction

    def _projected_flows(self, before: Tensor, after: Tensor, depths: Sequence[Tensor]) -> list[Tensor]:
        """Flows from the middle to both frames: `(b, 2, h, w)` each, x then y, in pixels."""
        # Flow is pixels: below float32 a far one would be rounded to a sixteenth of a pixel.
        with torch.autocast(before.device.type, enabled=False):
            return [
                project_flow(
                    F.interpolate(MIDDLE * flow, scale_factor=4, mode="bilinear", align_corners=False),
                    FARTHEST_WEIGHT + torch.exp(-log_depth.to(flow.dtype)),
                )
                for flow, log_depth in zip(self.flow_net(before, after), depths, strict=True)
            ]


class FilterNet(nn.Module):
    """A kernel for each pixel of each of two frames, by a U-Net."""

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
        """Frames `(b, 3, h, w)`, multiples of 32, to kernels `(b, 16, h, w)`, row by row, not normalised."""
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
    """conv, ReLU, conv, add, ReLU; the first convolution is dilated, both have no bias."""

    def __init__(self, channels: int, *, dilation: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation, bias=False)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """`(b, c, h, w)` to the same shape."""
        residual: Tensor = self.conv2(_relu(self.conv1(features)))
        return _relu(residual.add_(features))


class ContextNet(nn.Module):
    """Features of a frame that see farther and farther."""

    def __init__(self, *, channels: int) -> None:
        super().__init__()
        self.head = nn.Conv2d(3, channels, 7, padding=3, bias=False)
        self.blocks = nn.ModuleList(DilatedBlock(channels, dilation=dilation) for dilation in (4, 8))

    def forward(self, frame: Tensor) -> Iterator[Tensor]:
        """`(b, 3, h, w)` to `(b, channels, h, w)`, three times, one made when the one before is done with."""
        yield (features := _relu(self.head(frame)))
        for block in self.blocks:
            yield (features := block(features))


class RectifyNet(nn.Module):
    """What to add to the mean of the warped frames."""

    def __init__(self, *, in_channels: int, channels: int) -> None:
        super().__init__()
        self.head = nn.Conv2d(in_channels, channels, 7, padding=3)
        self.blocks = nn.ModuleList(DilatedBlock(channels) for _ in range(3))
        self.tail = conv3x3(channels, 3)
        start_at_zero(self.tail)

    def forward(self, clues: Iterable[Tensor]) -> Tensor:
        """Maps of `in_channels` channels together, `(b, …, h, w)` each, to `(b, 3, h, w)`."""
        # The convolution of the maps joined, without joining them.
        features, first = self.head.weight.new_zeros(()), 0
        for clue in clues:
            features = conv_part(self.head, clue, first).add_(features)
            first += clue.shape[1]
            # It is large, and the next one is about to be made.
            del clue
        features = _relu(features)
        for block in self.blocks:
            features = block(features)
        correction: Tensor = self.tail(features)
        return correction


def _relu(features: Tensor) -> Tensor:
    """In place: it follows layers that do not need what they gave."""
    return F.relu(features, inplace=True)


def _bilinear_kernel(channels: int) -> nn.Conv2d:
    """A convolution to kernels that starts as bilinear sampling, whatever it sees."""
    conv = conv3x3(channels, SIDE**2)
    inner = torch.zeros(SIDE, SIDE)
    inner[1:3, 1:3] = 1
    nn.init.zeros_(conv.weight)
    conv.bias = nn.Parameter(inner.flatten())
    return conv
