"""Frames too big for the memory there is, in tiles that overlap.

A network's answer near the border of a tile lacks what lies beyond it, so each tile is computed with a margin, of which
nothing is kept. Tiles begin at multiples of what the network declares (`InputRequirements.multiple_of`): its strided
levels then sample the same pixels as in the whole frame. `benchmarks/tiles.py` shows what a margin costs and what it
is good for.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise, product

MARGIN = 32
"""LR pixels around a tile that are computed and thrown away."""

SMALLEST = 32
"""LR pixels: a side of the smallest tile, without its margin; below, nearly all work would be thrown away."""


@dataclass(frozen=True)
class Span:
    """A tile in one dimension, in LR pixels.

    Attributes:
        start: first pixel that is computed.
        stop: one behind the last that is computed.
        keep_start: first pixel that is kept.
        keep_stop: one behind the last that is kept.
    """

    start: int
    stop: int
    keep_start: int
    keep_stop: int

    @property
    def computed(self) -> slice:
        """What is computed, in the frame."""
        return slice(self.start, self.stop)

    def kept(self, scale: int) -> slice:
        """What is kept, in the frame, `scale` times as large."""
        return slice(self.keep_start * scale, self.keep_stop * scale)

    def inside(self, scale: int) -> slice:
        """What is kept, in the computed tile, `scale` times as large."""
        return slice((self.keep_start - self.start) * scale, (self.keep_stop - self.start) * scale)


def spans(size: int, parts: int, *, margin: int, multiple: int) -> list[Span]:
    """A side of `size` pixels in so many parts, as equal as multiples allow; fewer where the side is too short.

    Args:
        size: a multiple of `multiple`.
        parts: at least 1.
        margin: pixels computed beyond what is kept, on each side where there are any.
        multiple: every computed span starts at a multiple of this and has one as its length.
    """
    units = size // multiple
    margin = math.ceil(margin / multiple) * multiple
    edges = sorted({round(part * units / parts) * multiple for part in range(parts + 1)})
    return [Span(max(0, start - margin), min(size, stop + margin), start, stop) for start, stop in pairwise(edges)]


@dataclass(frozen=True)
class Grid:
    """How a frame is divided.

    Attributes:
        rows: parts of its height.
        columns: parts of its width.
    """

    rows: int = 1
    columns: int = 1

    def tiles(self, height: int, width: int, *, multiple: int) -> Iterator[tuple[Span, Span]]:
        """The tiles of a frame, row by row."""
        vertical = spans(height, self.rows, margin=MARGIN, multiple=multiple)
        horizontal = spans(width, self.columns, margin=MARGIN, multiple=multiple)
        yield from product(vertical, horizontal)

    def largest(self, height: int, width: int, *, multiple: int) -> int:
        """LR pixels of the largest tile, margin included."""
        tiles = self.tiles(height, width, multiple=multiple)
        return max((y.stop - y.start) * (x.stop - x.start) for y, x in tiles)

    def computed(self, height: int, width: int, *, multiple: int) -> int:
        """LR pixels of all tiles together, margins included: what the work is proportional to."""
        tiles = self.tiles(height, width, multiple=multiple)
        return sum((y.stop - y.start) * (x.stop - x.start) for y, x in tiles)


def finer(grid: Grid, height: int, width: int) -> Grid | None:
    """Tiles of half the size, cut across their longer side; None where they would be too small."""
    if height * grid.columns >= width * grid.rows:
        halved = Grid(2 * grid.rows, grid.columns)
    else:
        halved = Grid(grid.rows, 2 * grid.columns)
    return halved if min(height / halved.rows, width / halved.columns) >= SMALLEST else None


def coarsest_grid(height: int, width: int, *, most: int, multiple: int) -> Grid | None:
    """The division with the least work whose tiles have no more than `most` pixels; None where there is none."""
    choices = [
        Grid(rows, columns)
        for rows in range(1, max(1, height // SMALLEST) + 1)
        for columns in range(1, max(1, width // SMALLEST) + 1)
    ]
    fitting = [grid for grid in choices if grid.largest(height, width, multiple=multiple) <= most]
    return min(
        fitting,
        key=lambda grid: (grid.computed(height, width, multiple=multiple), grid.rows * grid.columns),
        default=None,
    )
