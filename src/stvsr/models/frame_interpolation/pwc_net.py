"""Optical flow by PWC-Net: pyramid, warping, cost volume (Sun et al., CVPR 2018), as DAIN has it.

Coarse to fine. On each level the second frame's features are sampled where the flow so far leads, correlated with the
first frame's, and a decoder whose convolutions all see what came before predicts the flow anew; at the end a context
network of dilated convolutions corrects it. Flows are predicted in units of 20 pixels of the frame on every level.

Untrained it predicts no motion.

Limits: height and width must be multiples of 64 (six stride-2 levels).
"""

from itertools import accumulate, pairwise

import torch
from torch import Tensor, nn

from stvsr.models.blocks import LEAKY_SLOPE, conv3x3, leaky_relu, start_as_he, start_at_zero
from stvsr.ops.correlation import correlation
from stvsr.ops.sampling import pixel_positions, sample_at

UNIT = 20
"""Pixels that a predicted flow of 1 stands for."""

REACH = 4
"""The farthest displacement that is correlated, in pixels of a level."""

LEVELS = (6, 5, 4, 3, 2)
"""Coarse to fine: level `l` has 1 / 2^l of the frame's height and width."""

DILATIONS = (1, 2, 4, 8, 16, 1, 1)
"""Of the context network."""

FULLY_SEEN = 0.9999
"""How much of a bilinear sample must lie inside a map to count."""

RENAMING = (
    # Level 6 is named out of order.
    (r"conv6aa\.0", "pyramid.6.0"),
    (r"conv6a\.0", "pyramid.6.2"),
    (r"conv(\d)a\.0", r"pyramid.\1.0"),
    (r"conv(\d)aa\.0", r"pyramid.\1.2"),
    (r"conv(\d)b\.0", r"pyramid.\1.4"),
    (r"conv(\d)_(\d)\.0", r"decoders.\1.convs.\2"),
    (r"predict_flow(\d)", r"decoders.\1.flow"),
    (r"deconv(\d)", r"enlarge_flow.\1"),
    (r"upfeat(\d)", r"enlarge_features.\1"),
    *((rf"dc_conv{n}(\.0)?", f"context.{2 * (n - 1)}") for n in range(1, 8)),
)
"""Names of the authors' file, within this network, to ours."""


class PWCNet(nn.Module):
    """Optical flow between two frames, both ways.

    Args:
        channels: of the first level; all others are multiples of it.
    """

    def __init__(self, *, channels: int) -> None:
        super().__init__()
        c = channels
        widths = (3, c, 2 * c, 4 * c, 6 * c, 8 * c, 196 * c // 16)
        dense = (8 * c, 8 * c, 6 * c, 4 * c, 2 * c)
        displacements = (2 * REACH + 1) ** 2
        known = {level: displacements + (widths[level] + 4 if level != LEVELS[0] else 0) for level in LEVELS}
        seen = {level: known[level] + sum(dense) for level in LEVELS}

        self.pyramid = nn.ModuleDict({str(level): _halving(*widths[level - 1 : level + 1]) for level in range(1, 7)})
        self.decoders = nn.ModuleDict({str(level): DenseDecoder(known[level], dense) for level in LEVELS})
        self.enlarge_flow = nn.ModuleDict({str(level): _bilinear_enlargement() for level in LEVELS})
        # Of no use, but in the published file. Training by several processes would wait for its gradient.
        self.enlarge_flow[str(LEVELS[-1])].requires_grad_(False)
        self.enlarge_features = nn.ModuleDict(
            {str(level): nn.ConvTranspose2d(seen[level], 2, 4, stride=2, padding=1) for level in LEVELS[:-1]}
        )
        steps = zip(pairwise((seen[2], 8 * c, 8 * c, 8 * c, 6 * c, 4 * c, 2 * c, 2)), DILATIONS, strict=True)
        self.context = _chain(*(nn.Conv2d(i, o, 3, padding=d, dilation=d) for (i, o), d in steps))[:-1]
        start_at_zero(self.context[-1])

    def forward(self, before: Tensor, after: Tensor) -> tuple[Tensor, Tensor]:
        """Two frames `(b, 3, h, w)`, RGB in [0, 1], to the flow of each towards the other.

        Returns:
            Flow from `before` to `after` and back: `(b, 2, h/4, w/4)`, x then y, in pixels of the frame.
        """
        features = [torch.cat([before, after])]
        for level in range(1, 7):
            features.append(self.pyramid[str(level)](features[-1]))
        there, back = self._flow(features, [maps.roll(len(before), 0) for maps in features]).chunk(2)
        return there, back

    def _flow(self, first: list[Tensor], second: list[Tensor]) -> Tensor:
        """Flow from one to the other of two pyramids, the frames themselves at their head."""
        x = leaky_relu(correlation(first[LEVELS[0]], second[LEVELS[0]], reach=REACH))
        x, flow = self.decoders[str(LEVELS[0])](x)
        for coarser, level in pairwise(LEVELS):
            flow, features = self.enlarge_flow[str(coarser)](flow), self.enlarge_features[str(coarser)](x)
            aligned = _warp(second[level], flow * (UNIT / 2**level))
            likeness = leaky_relu(correlation(first[level], aligned, reach=REACH))
            x, flow = self.decoders[str(level)](torch.cat([likeness, first[level], flow, features], dim=1))
        corrected: Tensor = flow + self.context(x)
        return UNIT * corrected


class DenseDecoder(nn.Module):
    """Convolutions that each see all that came before, newest first, and the flow that they see in it."""

    def __init__(self, in_channels: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        seen = list(accumulate(widths, initial=in_channels))
        self.convs = nn.ModuleList(_passing(conv3x3(i, o)) for i, o in zip(seen, widths, strict=False))
        self.flow = conv3x3(seen[-1], 2)
        start_at_zero(self.flow)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """`(b, in_channels, h, w)` to `(b, in_channels + sum(widths), h, w)` and the flow `(b, 2, h, w)`."""
        for conv in self.convs:
            x = torch.cat([leaky_relu(conv(x)), x], dim=1)
        return x, self.flow(x)


def _chain(*convs: nn.Conv2d) -> nn.Sequential:
    """Convolutions, LeakyReLU after each."""
    return nn.Sequential(
        *(layer for conv in convs for layer in (_passing(conv), nn.LeakyReLU(LEAKY_SLOPE, inplace=True)))
    )


def _passing(conv: nn.Conv2d) -> nn.Conv2d:
    """A convolution that starts so that features keep their size (He et al.)."""
    # PyTorch's start halves them: after 18 convolutions their products, the correlation, would be nothing.
    start_as_he(conv, slope=LEAKY_SLOPE)
    return conv


def _halving(in_channels: int, channels: int) -> nn.Sequential:
    """A level of the pyramid."""
    first = conv3x3(in_channels, channels, stride=2)
    return _chain(first, conv3x3(channels, channels), conv3x3(channels, channels))


def _bilinear_enlargement() -> nn.ConvTranspose2d:
    """Flow to twice the height and width; learned, but it starts as bilinear interpolation."""
    conv = nn.ConvTranspose2d(2, 2, 4, stride=2, padding=1)
    start_at_zero(conv)
    profile = torch.tensor([0.25, 0.75, 0.75, 0.25])
    with torch.no_grad():
        for axis in range(2):
            conv.weight[axis, axis] = torch.outer(profile, profile)
    return conv


def _warp(features: Tensor, flow: Tensor) -> Tensor:
    """Features where flow leads, in pixels of theirs; 0 where a part of a sample would lie outside."""
    height, width = features.shape[-2:]
    positions = pixel_positions(height, width, like=flow) + flow
    inside = sample_at(torch.ones_like(features[:, :1]), positions.detach()) >= FULLY_SEEN
    return sample_at(features, positions) * inside
