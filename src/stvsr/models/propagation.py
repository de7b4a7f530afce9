"""Propagation of features in time: the (deformable) ConvLSTM (Sec. 3.2, Eq. 5 and 6).

The second axis of the paper's Table 2. Every class maps `(b, t, c, h, w)` to the same shape. States start at
zero. `Bidirectional` runs one recurrence, with one set of weights, over a sequence and its reversal.

Limits: run over long sequences the recurrence loses quality; short windows are part of the method.
"""

import torch
from torch import Tensor, nn

from stvsr.models.alignment import Pyramid, deformable_fusion
from stvsr.models.blocks import conv3x3


class NoPropagation(nn.Module):
    """Every frame is reconstructed from its own features, variants (a) and (b)."""

    def forward(self, features: Tensor) -> Tensor:
        """`(b, t, c, h, w)`, unchanged."""
        return features


class ConvLSTMCell(nn.Module):
    """One step of Shi et al.'s ConvLSTM, without peepholes; gates in the order input, forget, output, candidate."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gates = conv3x3(2 * channels, 4 * channels)

    def forward(self, features: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        """Features and two states, all `(b, c, h, w)`, to the next hidden and cell state."""
        i, f, o, g = self.gates(torch.cat([features, hidden], dim=1)).chunk(4, dim=1)
        cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
        return o.sigmoid() * cell.tanh(), cell


class ConvLSTM(nn.Module):
    """A plain ConvLSTM, forward in time (Eq. 5), variant (c)."""

    def __init__(self, *, channels: int) -> None:
        super().__init__()
        self.cell = ConvLSTMCell(channels)

    def forward(self, features: Tensor) -> Tensor:
        """`(b, t, c, h, w)` to the hidden states, of the same shape."""
        hidden = cell = torch.zeros_like(features[:, 0])
        states = []
        for current in features.unbind(dim=1):
            hidden, cell = self.cell(current, hidden, cell)
            states.append(hidden)
        return torch.stack(states, dim=1)


class DeformableConvLSTM(nn.Module):
    """A ConvLSTM whose states are aligned with the current frame before each step (Eq. 6), variant (d)."""

    def __init__(self, *, channels: int, deformable_groups: int) -> None:
        super().__init__()
        self.align_hidden = deformable_fusion(channels=channels, deformable_groups=deformable_groups)
        self.align_cell = deformable_fusion(channels=channels, deformable_groups=deformable_groups)
        self.cell = ConvLSTMCell(channels)

    def forward(self, features: Tensor) -> Tensor:
        """`(b, t, c, h, w)` to the hidden states, of the same shape."""
        b, t = features.shape[:2]
        # The pyramids of the frames do not depend on the states: all steps at once.
        frames = features.flatten(0, 1)
        for_hidden, for_cell = (
            [level.unflatten(0, (b, t)).unbind(dim=1) for level in align.pyramid(frames)]
            for align in (self.align_hidden, self.align_cell)
        )
        hidden = cell = torch.zeros_like(features[:, 0])
        states = []
        for step in range(t):
            hidden = self.align_hidden(
                Pyramid(*(level[step] for level in for_hidden)), self.align_hidden.pyramid(hidden)
            )
            cell = self.align_cell(Pyramid(*(level[step] for level in for_cell)), self.align_cell.pyramid(cell))
            hidden, cell = self.cell(features[:, step], hidden, cell)
            states.append(hidden)
        return torch.stack(states, dim=1)


class Bidirectional(nn.Module):
    """A recurrence over the sequence and its reversal, blended by a 1x1 convolution, variant (e)."""

    def __init__(self, *, channels: int, recurrence: nn.Module) -> None:
        super().__init__()
        self.recurrence = recurrence
        self.fuse = nn.Conv2d(2 * channels, channels, kernel_size=1)

    def forward(self, features: Tensor) -> Tensor:
        """`(b, t, c, h, w)` to the same shape."""
        b, t = features.shape[:2]
        # Both directions share their weights and do not meet before the end: one batch for both.
        forward, backward = self.recurrence(torch.cat([features, features.flip(1)])).split(b)
        both = torch.cat([forward, backward.flip(1)], dim=2)
        fused: Tensor = self.fuse(both.flatten(0, 1))
        return fused.view(b, t, *fused.shape[1:])
