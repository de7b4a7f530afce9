"""Divides frames too big for the memory into overlapping tiles, and joins them again.

Near its border a tile lacks the context that a network uses. So tiles overlap by twice a margin: each tile's outermost
quarter of the overlap is discarded, and over the middle half one tile fades into the next. Tiles begin at multiples of
what the network declares (`InputRequirements.multiple_of`), so that its strided levels sample the same pixels as in the
whole frame. `benchmarks/tiles.py` measures what a margin costs and gains.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise, product

import torch
from torch import Tensor

MARGIN = 48
"""LR pixels by which a tile reaches beyond the middle of its overlap with the next."""


@dataclass(frozen=True)
class Span:
    """A tile in one dimension, in LR pixels.

    Attributes:
        start: first pixel.
        stop: one past the last.
        shared: how many of its first pixels belong to the span before, too.
    """

    start: int
    stop: int
    shared: int

    @property
    def pixels(self) -> slice:
        """Its pixels, as a slice."""
        return slice(self.start, self.stop)


def join(spans: list[Span], pieces: Iterable[Tensor], *, dim: int, scale: int) -> Iterator[Tensor]:
    """Turns overlapping pieces into consecutive ones without overlap.

    Args:
        spans: of a side.
        pieces: frames, floating point, of each span along `dim`.
        dim: along which they follow each other, counted from the end.
        scale: how many times as large as LR frames they are.
    """
    tail, remaining = None, iter(pieces)
    for span, following in zip(spans, [*spans[1:], None], strict=True):
        piece = next(remaining)
        shared = span.shared * scale
        if tail is not None:
            yield _fade(tail, piece.narrow(dim, 0, shared), dim=dim)
        # What the next span shares is kept for its fade.
        kept = piece.shape[dim] - (0 if following is None else following.shared * scale)
        tail = piece.narrow(dim, kept, piece.shape[dim] - kept).clone()
        yield piece.narrow(dim, shared, kept - shared)
        # Freed before the next one is made.
        del piece


def _fade(before: Tensor, after: Tensor, *, dim: int) -> Tensor:
    """Fades the pixels that two neighbouring spans share from the first to the second.

    Before rounding to 8 bits, since tiles differ by less than a grey level: afterwards nothing is left to fade.

    Args:
        before: frames, floating point: the shared pixels along `dim`, as in the first span.
        after: the same as in the second.
        dim: along which the spans follow each other, counted from the end.
    """
    shared = after.shape[dim]
    # 0 over the first quarter, 1 over the last.
    weight = ((torch.arange(shared, dtype=after.dtype, device=after.device) + 0.5) / shared * 2 - 0.5).clamp(0, 1)
    return torch.lerp(before, after, weight.view(-1, *[1] * (-dim - 1)))


def spans(size: int, parts: int, *, multiple: int) -> list[Span]:
    """Divides a side of `size` pixels into `parts`, as equal as multiples allow; into fewer if they would be too short.

    Args:
        size: a multiple of `multiple`.
        parts: at least 1.
        multiple: every span starts at a multiple of this and has one as its length.
    """
    units, margin = size // multiple, math.ceil(MARGIN / multiple)
    parts = min(parts, most_parts(size, multiple=multiple))
    edges = [round(part * units / parts) for part in range(parts + 1)]
    computed = [
        (multiple * max(0, start - margin), multiple * min(units, stop + margin)) for start, stop in pairwise(edges)
    ]
    ends = [0, *(stop for _, stop in computed)]
    return [Span(start, stop, end - start) for (start, stop), end in zip(computed, ends, strict=False)]


def most_parts(size: int, *, multiple: int) -> int:
    """The most spans that a side can be divided into: with more, three of them would overlap."""
    return max(1, size // multiple // (2 * math.ceil(MARGIN / multiple)))


@dataclass(frozen=True)
class Grid:
    """How a frame is divided.

    Attributes:
        rows: parts of its height.
        columns: parts of its width.
    """

    rows: int = 1
    columns: int = 1

    @property
    def tiles(self) -> int:
        """Number of tiles."""
        return self.rows * self.columns

    def spans(self, height: int, width: int, *, multiple: int) -> tuple[list[Span], list[Span]]:
        """The tiles of a frame, along its height and along its width."""
        return spans(height, self.rows, multiple=multiple), spans(width, self.columns, multiple=multiple)

    def sizes(self, height: int, width: int, *, multiple: int) -> set[tuple[int, int]]:
        """The heights and widths that tiles have."""
        rows, columns = self.spans(height, width, multiple=multiple)
        return set(product(map(_length, rows), map(_length, columns)))

    def computed(self, height: int, width: int, *, multiple: int) -> int:
        """LR pixels of all tiles together, to which the work is proportional."""
        return math.prod(sum(map(_length, side)) for side in self.spans(height, width, multiple=multiple))


def _length(span: Span) -> int:
    return span.stop - span.start


def finer(grid: Grid, height: int, width: int, *, multiple: int) -> Grid | None:
    """Tiles half the size, their longer side halved if it can be; None if they are the smallest."""
    rows, columns = (
        min(parts, most_parts(size, multiple=multiple))
        for parts, size in ((2 * grid.rows, height), (2 * grid.columns, width))
    )
    halved = [Grid(rows, grid.columns), Grid(grid.rows, columns)]
    if height * grid.columns < width * grid.rows:
        halved.reverse()
    return next((choice for choice in halved if choice != grid), None)


def grids(height: int, width: int, *, multiple: int) -> list[Grid]:
    """All divisions of a frame, those with the least work first."""
    choices = [
        Grid(rows, columns)
        for rows in range(1, most_parts(height, multiple=multiple) + 1)
        for columns in range(1, most_parts(width, multiple=multiple) + 1)
    ]
    return sorted(choices, key=lambda grid: (grid.computed(height, width, multiple=multiple), grid.tiles))
