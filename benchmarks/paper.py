"""The paper's formulation of the network, for comparison: pair by pair, direction by direction, step by step.

It takes only the weights of our network. Each missing frame is interpolated by itself (Sec. 3.1); the recurrence runs
over the sequence, then over its reversal, and each step computes everything that it needs (Sec. 3.2, Eq. 6); maps are
concatenated before each convolution that takes two; the deformable convolution is torchvision's, in float32.
Features of all frames, and all reconstructed frames, are computed in one batch each, as every implementation does.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import deform_conv2d

from stvsr.models.alignment import AlignedFusion, DeformableSampling, FeaturePyramid, PCDAlignment
from stvsr.models.propagation import Bidirectional, ConvLSTMCell, DeformableConvLSTM
from stvsr.models.zooming_slow_mo import ZoomingSlowMo

SLOPE = 0.1

Levels = tuple[Tensor, Tensor, Tensor]


class PaperFormulation(nn.Module):
    """Variant (e) with the weights of our network: `(b, n, 3, h, w)` to `(b, 2n-1, 3, 4h, 4w)`."""

    def __init__(self, network: ZoomingSlowMo) -> None:
        super().__init__()
        self.network = network
        assert isinstance(network.propagation, Bidirectional)
        assert isinstance(network.propagation.recurrence, DeformableConvLSTM)

    def forward(self, lr: Tensor) -> Tensor:
        b, n = lr.shape[:2]
        network = self.network
        given = trunk(network.features.trunk, _lrelu(network.features.head(lr.flatten(0, 1)))).view(
            b, n, -1, *lr.shape[-2:]
        )
        frames = []
        fusion = network.interpolation.fusion
        for first in range(n - 1):
            before, after = (pyramid(fusion.pyramid, given[:, place]) for place in (first, first + 1))
            frames += [given[:, first], fuse(fusion, before, after)]
        frames.append(given[:, -1])
        forward = recurrence(network.propagation.recurrence, frames)
        backward = recurrence(network.propagation.recurrence, frames[::-1])[::-1]
        states = [network.propagation.fuse(torch.cat(both, dim=1)) for both in zip(forward, backward, strict=True)]
        return self._reconstruct(torch.stack(states, dim=1).flatten(0, 1)).unflatten(0, (b, 2 * n - 1))

    def _reconstruct(self, features: Tensor) -> Tensor:
        part = self.network.reconstruction
        features = trunk(part.trunk, features)
        features = _lrelu(F.pixel_shuffle(part.up1(features), 2))
        features = _lrelu(F.pixel_shuffle(part.up2(features), 2))
        return part.tail(_lrelu(part.conv(features)))


def trunk(blocks: nn.Sequential, features: Tensor) -> Tensor:
    """Residual blocks."""
    for block in blocks:
        features = features + block.conv2(F.relu(block.conv1(features)))
    return features


def recurrence(part: DeformableConvLSTM, frames: list[Tensor]) -> list[Tensor]:
    """The hidden states of one direction of the deformable ConvLSTM."""
    hidden = cell = torch.zeros_like(frames[0])
    states = []
    for frame in frames:
        aligned_hidden = align(part.align_hidden, frame, hidden)
        aligned_cell = align(part.align_cell, frame, cell)
        hidden, cell = step(part.cell, frame, aligned_hidden, aligned_cell)
        states.append(hidden)
    return states


def step(part: ConvLSTMCell, frame: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """Eq. 6 after the alignment."""
    i, f, o, g = torch.split(part.gates(torch.cat([frame, hidden], dim=1)), frame.shape[1], dim=1)
    cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(cell), cell


def align(part: AlignedFusion, frame: Tensor, state: Tensor) -> Tensor:
    """A state aligned with a frame."""
    return fuse(part, pyramid(part.pyramid, frame), pyramid(part.pyramid, state))


def pyramid(part: FeaturePyramid, level1: Tensor) -> Levels:
    """The three levels."""
    level2 = _lrelu(part.conv2(_lrelu(part.down2(level1))))
    return level1, level2, _lrelu(part.conv3(_lrelu(part.down3(level2))))


def fuse(part: AlignedFusion, first: Levels, second: Levels) -> Tensor:
    """Eq. 1 and 4."""
    assert isinstance(part.align_first, PCDAlignment)
    assert isinstance(part.align_second, PCDAlignment)
    return part.fuse(torch.cat([pcd(part.align_first, first, second), pcd(part.align_second, second, first)], dim=1))


def pcd(part: PCDAlignment, source: Levels, target: Levels) -> Tensor:
    """Eq. 2 and 3, coarse to fine."""
    (source1, source2, source3), (target1, target2, target3) = source, target
    offset3 = _lrelu(part.offset3[0](torch.cat([source3, target3], dim=1)))
    offset3 = _lrelu(part.offset3[1](offset3))
    aligned3 = _lrelu(sample(part.sample3, source3, offset3))

    offset2 = _offset(part.offset2, source2, target2, offset3)
    aligned2 = torch.cat([sample(part.sample2, source2, offset2), _upsample(aligned3)], dim=1)
    aligned2 = _lrelu(part.merge2(aligned2))

    offset1 = _offset(part.offset1, source1, target1, offset2)
    aligned1 = torch.cat([sample(part.sample1, source1, offset1), _upsample(aligned2)], dim=1)
    return part.merge1(aligned1)


def sample(part: DeformableSampling, features: Tensor, offset_features: Tensor) -> Tensor:
    """A modulated deformable convolution."""
    offset, mask = torch.tensor_split(part.offset_mask(offset_features), [part.offset_channels], dim=1)
    return deform_conv2d(features, offset, part.weight, part.bias, padding=1, mask=torch.sigmoid(mask))


def _offset(convs: nn.ModuleList, source: Tensor, target: Tensor, coarser: Tensor) -> Tensor:
    offset = _lrelu(convs[0](torch.cat([source, target], dim=1)))
    offset = _lrelu(convs[1](torch.cat([offset, _upsample(coarser) * 2], dim=1)))
    return _lrelu(convs[2](offset))


def _upsample(features: Tensor) -> Tensor:
    return F.interpolate(features, scale_factor=2, mode="bilinear", align_corners=False)


def _lrelu(features: Tensor) -> Tensor:
    return F.leaky_relu(features, SLOPE)
