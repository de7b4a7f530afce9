"""Optical flow by PWC-Net: pyramid, warping, cost volume (Sun et al., CVPR 2018), in DAIN's version.

From coarse to fine, each level warps the second frame's features by the coarser level's flow, correlates them with the
first frame's, and predicts the flow anew by a densely connected decoder; finally a context network of dilated
convolutions corrects it. On every level flow is predicted in units of 20 pixels of the frame.

Untrained, it predicts no motion.

Limits: height and width must be multiples of 64 (six stride-2 levels).
"""

from itertools import accumulate, pairwise

import torch
from torch import Tensor, nn

from stvsr.models.blocks import LEAKY_SLOPE, conv3x3, leaky_relu, start_as_he, start_at_zero
from stvsr.ops.correlation import correlation
from stvsr.ops.sampling import pixel_positions, sample_at

UNIT = 20
"""Pixels of the frame that a predicted flow of 1 stands for."""

REACH = 4
"""Largest displacement in the cost volume, in pixels of the level."""

LEVELS = (6, 5, 4, 3, 2)
"""Coarse to fine: level `l` has 1 / 2^l of the frame's height and width."""

DILATIONS = (1, 2, 4, 8, 16, 1, 1)
"""Dilations in the context network."""

FULLY_SEEN = 0.9999
"""The share of a bilinear sample that must lie inside the map; otherwise it is set to 0."""

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
"""From tensor names in the authors' file, within this network, to ours."""


class PWCNet(nn.Module):
    """Optical flow between two frames, in both directions.

    Args:
        channels: width of the first level; all other widths are in proportion to it.
    """

    def __init__(self, *, channels: int) -> None:
        super().__init__()
        c = channels
        widths = (3, c, 2 * c, 4 * c, 6 * c, 8 * c, 196 * c // 16)
        dense = (8 * c, 8 * c, 6 * c, 4 * c, 2 * c)
        displacements = (2 * REACH + 1) ** 2
        in_widths = {level: displacements + (widths[level] + 4 if level != LEVELS[0] else 0) for level in LEVELS}
        out_widths = {level: in_widths[level] + sum(dense) for level in LEVELS}

        self.pyramid = nn.ModuleDict(
            {str(level): _pyramid_level(*widths[level - 1 : level + 1]) for level in range(1, 7)}
        )
        self.decoders = nn.ModuleDict({str(level): DenseDecoder(in_widths[level], dense) for level in LEVELS})
        self.enlarge_flow = nn.ModuleDict({str(level): _bilinear_enlargement() for level in LEVELS})
        # Unused, but in the published file. Distributed training would wait for its gradient.
        self.enlarge_flow[str(LEVELS[-1])].requires_grad_(False)
        self.enlarge_features = nn.ModuleDict(
            {str(level): nn.ConvTranspose2d(out_widths[level], 2, 4, stride=2, padding=1) for level in LEVELS[:-1]}
        )
        steps = zip(pairwise((out_widths[2], 8 * c, 8 * c, 8 * c, 6 * c, 4 * c, 2 * c, 2)), DILATIONS, strict=True)
        self.context = _chain(*(nn.Conv2d(i, o, 3, padding=d, dilation=d) for (i, o), d in steps))[:-1]
        start_at_zero(self.context[-1])

    def forward(self, before: Tensor, after: Tensor) -> tuple[Tensor, Tensor]:
        """Estimates the flow between two frames `(b, 3, h, w)`, RGB in [0, 1].

        Returns:
            Flow from `before` to `after` and flow back: `(b, 2, h/4, w/4)` each, x then y, in pixels of the frame.
        """
        features = [torch.cat([before, after])]
        for level in range(1, 7):
            features.append(self.pyramid[str(level)](features[-1]))
        flow_forward, flow_back = self._flow(features, [maps.roll(len(before), 0) for maps in features]).chunk(2)
        return flow_forward, flow_back

    def _flow(self, first: list[Tensor], second: list[Tensor]) -> Tensor:
        """Flow from the first pyramid to the second; entry 0 of each is the frames themselves."""
        x = leaky_relu(correlation(first[LEVELS[0]], second[LEVELS[0]], reach=REACH))
        x, flow = self.decoders[str(LEVELS[0])](x)
        for coarser, level in pairwise(LEVELS):
            flow, features = self.enlarge_flow[str(coarser)](flow), self.enlarge_features[str(coarser)](x)
            aligned = _warp(second[level], flow * (UNIT / 2**level))
            cost_volume = leaky_relu(correlation(first[level], aligned, reach=REACH))
            x, flow = self.decoders[str(level)](torch.cat([cost_volume, first[level], flow, features], dim=1))
        corrected: Tensor = flow + self.context(x)
        return UNIT * corrected


class DenseDecoder(nn.Module):
    """Densely connected convolutions (newest features first), and one that predicts flow from all of their features."""

    def __init__(self, in_channels: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        in_widths = list(accumulate(widths, initial=in_channels))
        self.convs = nn.ModuleList(_he_initialised(conv3x3(i, o)) for i, o in zip(in_widths, widths, strict=False))
        self.flow = conv3x3(in_widths[-1], 2)
        start_at_zero(self.flow)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """`(b, in_channels, h, w)` to `(b, in_channels + sum(widths), h, w)` and the flow `(b, 2, h, w)`."""
        for conv in self.convs:
            x = torch.cat([leaky_relu(conv(x)), x], dim=1)
        return x, self.flow(x)


def _chain(*convs: nn.Conv2d) -> nn.Sequential:
    """Convolutions, each followed by LeakyReLU."""
    return nn.Sequential(
        *(layer for conv in convs for layer in (_he_initialised(conv), nn.LeakyReLU(LEAKY_SLOPE, inplace=True)))
    )


def _he_initialised(conv: nn.Conv2d) -> nn.Conv2d:
    """Initialises a convolution so that features keep their scale (He et al.)."""
    # PyTorch's default halves it: after 18 convolutions the correlation, a product of features, would vanish.
    start_as_he(conv, slope=LEAKY_SLOPE)
    return conv


def _pyramid_level(in_channels: int, channels: int) -> nn.Sequential:
    """A level of the pyramid."""
    first = conv3x3(in_channels, channels, stride=2)
    return _chain(first, conv3x3(channels, channels), conv3x3(channels, channels))


def _bilinear_enlargement() -> nn.ConvTranspose2d:
    """A learned x2 enlargement of flow, initialised as bilinear interpolation."""
    conv = nn.ConvTranspose2d(2, 2, 4, stride=2, padding=1)
    start_at_zero(conv)
    profile = torch.tensor([0.25, 0.75, 0.75, 0.25])
    with torch.no_grad():
        for axis in range(2):
            conv.weight[axis, axis] = torch.outer(profile, profile)
    return conv


def _warp(features: Tensor, flow: Tensor) -> Tensor:
    """Samples features at a flow in pixels of their level; 0 where a sample lies partly outside."""
    height, width = features.shape[-2:]
    positions = pixel_positions(height, width, like=flow) + flow
    inside = sample_at(torch.ones_like(features[:, :1]), positions.detach()) >= FULLY_SEEN
    return sample_at(features, positions) * inside
