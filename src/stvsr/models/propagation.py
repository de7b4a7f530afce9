"""Propagation of features in time: the (deformable) ConvLSTM (Sec. 3.2, Eq. 5 and 6).

The second axis of the paper's Table 2. Every class maps `(t, b, c, h, w)` to the same shape. States start at
zero. `Bidirectional` runs one recurrence, with one set of weights, over a sequence and its reversal.

Whatever depends on frames alone is computed for all of them together, once for both directions. The loop over time
computes the rest, with both directions in one batch. Large frames are processed one at a time instead, first in one
direction, then in the other (`models/chunking.py`).

Limits: over long sequences the recurrence loses quality; short windows are part of the method.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from stvsr.models.alignment import AlignedFusion, Partner, deformable_fusion
from stvsr.models.blocks import check_part, conv1x1, conv3x3, conv_of_two, conv_part
from stvsr.models.chunking import in_row_chunks, needs_chunks


class NoPropagation(nn.Module):
    """Every frame is reconstructed from its own features, variants (a) and (b)."""

    def forward(self, features: Tensor) -> Tensor:
        """Returns the features `(t, b, c, h, w)` unchanged."""
        return features


class ConvLSTMCell(nn.Module):
    """One step of Shi et al.'s ConvLSTM, without peepholes; gates in the order input, forget, output, candidate."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gates = conv3x3(2 * channels, 4 * channels)

    def share_of_frame(self, frame: Tensor) -> Tensor:
        """The contribution of a frame `(b, c, h, w)` to the gates, before activation: `(b, 4c, h, w)`."""
        return conv_part(self.gates, frame, 0)

    def forward(self, share_of_frame: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        """Maps a frame's share and the hidden and cell states `(b, c, h, w)` to the next two states."""
        i, f, o, g = conv_part(self.gates, hidden, hidden.shape[1]).add_(share_of_frame).chunk(4, dim=1)
        cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
        return o.sigmoid() * cell.tanh(), cell

    def by_rows(self, frame: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, ...]:
        """As `forward`, from a frame `(b, c, h, w)`, some rows at a time, as the gates are four times as large."""
        return in_row_chunks(
            lambda frame, hidden, cell: self(self.share_of_frame(frame), hidden, cell), frame, hidden, cell, reach=1
        )


class Recurrence(nn.Module):
    """A recurrence with a hidden and a cell state, carried from frame to frame."""

    def prepare(self, frames: Tensor) -> Any:
        """What `step` needs of frames `(b, c, h, w)`: tensors of the same batch size, alone or in (nested) tuples."""
        raise NotImplementedError

    def step(self, prepared: Any, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        """Maps a prepared frame and the states `(b, c, h, w)` before it to the hidden and cell states after it."""
        raise NotImplementedError

    def advance(self, frame: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, ...]:
        """As `step`, for a frame `(b, c, h, w)` not yet prepared; used for large frames, to save memory."""
        return self.step(self.prepare(frame), hidden, cell)

    def forward(self, features: Tensor) -> Tensor:
        """Maps features `(t, b, c, h, w)` to the hidden states, of the same shape."""
        if needs_chunks(features):
            return torch.stack([*self.hidden_states(features.unbind())])
        return self.scan(features, both_ways=False)

    def hidden_states(self, frames: Sequence[Tensor]) -> Iterator[Tensor]:
        """Yields the hidden state after each frame `(b, c, h, w)`; a frame is prepared only when it is reached."""
        hidden = cell = torch.zeros_like(frames[0])
        for frame in frames:
            hidden, cell = self.advance(frame, hidden, cell)
            yield hidden

    def scan(self, features: Tensor, *, both_ways: bool) -> Tensor:
        """The hidden states along one or both directions.

        Args:
            features: `(t, b, c, h, w)`.
            both_ways: whether the reversed sequences are run too, appended along the batch.

        Returns:
            `(t, b, c, h, w)` or `(t, 2b, c, h, w)`, each sequence in the order in which it was run.
        """
        t, b = features.shape[:2]
        tensors, structure = tree_flatten(self.prepare(features.flatten(0, 1)))
        # Split once: indexing in every step would give each slice a mostly zero gradient as large as all frames.
        by_step = [torch.split(tensor, b) for tensor in tensors]
        hidden = cell = torch.zeros_like(torch.cat([features[0], features[0]]) if both_ways else features[0])
        states = []
        for step in range(t):
            prepared = [torch.cat([part[step], part[t - 1 - step]]) if both_ways else part[step] for part in by_step]
            hidden, cell = self.step(tree_unflatten(prepared, structure), hidden, cell)
            states.append(hidden)
        return torch.unflatten(torch.cat(states), 0, (t, -1))


class ConvLSTM(Recurrence):
    """A plain ConvLSTM (Eq. 5), variant (c).

    Args:
        channels: width of every map.
    """

    def __init__(self, *, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.cell = ConvLSTMCell(channels)

    def prepare(self, frames: Tensor) -> Tensor:
        """See `Recurrence`."""
        return self.cell.share_of_frame(frames)

    def step(self, prepared: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        """See `Recurrence`."""
        states: tuple[Tensor, Tensor] = self.cell(prepared, hidden, cell)
        return states

    def advance(self, frame: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, ...]:
        """See `Recurrence`."""
        return self.cell.by_rows(frame, hidden, cell)


class AlignedStep(NamedTuple):
    """A frame as prepared for the steps of an `AlignedConvLSTM`."""

    gates: Tensor
    for_hidden: Partner
    for_cell: Partner


class AlignedConvLSTM(Recurrence):
    """A ConvLSTM whose states are aligned with the current frame before each step.

    As in the authors' release, an aligned state is a blend of the frame and the state, each sampled towards the other;
    Eq. 6 prints the state alone.

    Args:
        channels: width of every map.
        align_hidden: blends a frame (its first input) with the hidden state.
        align_cell: the same for the cell state.
    """

    def __init__(self, *, channels: int, align_hidden: AlignedFusion, align_cell: AlignedFusion) -> None:
        super().__init__()
        self.channels = channels
        self.align_hidden, self.align_cell = align_hidden, align_cell
        self.cell = ConvLSTMCell(channels)

    def prepare(self, frames: Tensor) -> AlignedStep:
        """See `Recurrence`."""
        for_hidden, for_cell = (align.as_first(align.pyramid(frames)) for align in (self.align_hidden, self.align_cell))
        return AlignedStep(self.cell.share_of_frame(frames), for_hidden, for_cell)

    def step(self, prepared: AlignedStep, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        """See `Recurrence`."""
        hidden = self._align(self.align_hidden, prepared.for_hidden, hidden)
        cell = self._align(self.align_cell, prepared.for_cell, cell)
        states: tuple[Tensor, Tensor] = self.cell(prepared.gates, hidden, cell)
        return states

    def advance(self, frame: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, ...]:
        """See `Recurrence`."""
        return self.cell.by_rows(frame, self.align_hidden.of_maps(frame, hidden), self.align_cell.of_maps(frame, cell))

    @staticmethod
    def _align(align: AlignedFusion, frame: Partner, state: Tensor) -> Tensor:
        aligned: Tensor = align(frame, align.as_second(align.pyramid(state)))
        return aligned


class DeformableConvLSTM(AlignedConvLSTM):
    """An `AlignedConvLSTM` that samples at learned offsets (Eq. 6), variant (d).

    Args:
        channels: width of every map.
        deformable_groups: number of channel groups, each sampled at its own offsets.

    Raises:
        InvalidInput: `deformable_groups` does not divide `channels`.
    """

    def __init__(self, *, channels: int, deformable_groups: int) -> None:
        hidden, cell = (deformable_fusion(channels=channels, deformable_groups=deformable_groups) for _ in range(2))
        super().__init__(channels=channels, align_hidden=hidden, align_cell=cell)


class Bidirectional(nn.Module):
    """A recurrence over the sequence and its reversal, blended by a 1x1 convolution, variant (e).

    Args:
        channels: width of every map.
        recurrence: runs in both directions, with the same weights.
    """

    def __init__(self, *, channels: int, recurrence: Recurrence) -> None:
        super().__init__()
        check_part("recurrence", recurrence, channels)
        self.channels = channels
        self.recurrence = recurrence
        self.fuse = conv1x1(2 * channels, channels)

    def forward(self, features: Tensor) -> Tensor:
        """`(t, b, c, h, w)` to the same shape."""
        if needs_chunks(features):
            return self._one_direction_at_a_time(features)
        t, b = features.shape[:2]
        states = self.recurrence.scan(features, both_ways=True)
        forward, backward = (torch.cat([*frames]) for frames in (states[:, :b], reversed([*states[:, b:]])))
        return torch.unflatten(conv_of_two(self.fuse, forward, backward), 0, (t, b))

    def _one_direction_at_a_time(self, features: Tensor) -> Tensor:
        """As `forward`, with less memory: of each direction only its contribution to the blend is kept."""
        frames = features.unbind()
        blended = [conv_part(self.fuse, hidden, 0) for hidden in self.recurrence.hidden_states(frames)]
        backward = self.recurrence.hidden_states(frames[::-1])
        for frame, hidden in zip(reversed(blended), backward, strict=True):
            frame.add_(conv_part(self.fuse, hidden, hidden.shape[1]))
        return torch.stack(blended)
