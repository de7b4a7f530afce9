"""Tiles cover a frame without gaps, fade into each other, and respect a network's multiple."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stvsr.video.tiles import MARGIN, Grid, finer, grids, join, spans

SIDES = st.integers(1, 160).map(lambda units: 4 * units)


@given(SIDES, st.integers(1, 9))
def test_spans_cover_a_side_with_margins_and_on_the_grid_of_the_network(size: int, parts: int) -> None:
    found = spans(size, parts, multiple=4)
    assert len(found) == min(parts, max(1, size // (2 * MARGIN)))
    assert (found[0].start, found[-1].stop, found[0].shared) == (0, size, 0)
    for before, span in pairwise(found):
        assert before.start < span.start < before.stop <= span.stop
        assert span.shared == before.stop - span.start == 2 * MARGIN
    for before, _, after in zip(found, found[1:], found[2:], strict=False):
        assert before.stop <= after.start, "no three overlap"
    assert all(span.start % 4 == 0 and span.stop % 4 == 0 for span in found)


@given(SIDES, SIDES, st.integers(1, 5), st.integers(1, 5), st.sampled_from([2, 4]), st.integers(0, 2**31))
def test_tiles_of_a_picture_make_the_picture_again(
    height: int, width: int, rows: int, columns: int, scale: int, seed: int
) -> None:
    picture = torch.rand(1, 1, scale * height, scale * width, generator=torch.Generator().manual_seed(seed))
    vertical, horizontal = Grid(rows, columns).spans(height, width, multiple=4)
    strips = []
    for y in vertical:
        strip = picture[..., scale * y.start : scale * y.stop, :]
        tiles = [strip[..., scale * x.start : scale * x.stop] for x in horizontal]
        strips.append(torch.cat(list(join(horizontal, tiles, dim=-1, scale=scale)), dim=-1))
    whole = torch.cat(list(join(vertical, strips, dim=-2, scale=scale)), dim=-2)
    torch.testing.assert_close(whole, picture, rtol=0, atol=1e-6)


@pytest.mark.parametrize("dim", [-1, -2])
def test_one_tile_fades_into_the_next_and_edges_are_thrown_away(dim: int) -> None:
    first, second = spans(4 * MARGIN, 2, multiple=4)
    pieces = [
        torch.full((1, 1, span.stop - span.start, span.stop - span.start), value)
        for span, value in ((first, 1.0), (second, 2.0))
    ]
    row = (
        torch.cat(list(join([first, second], pieces, dim=dim, scale=1)), dim=dim).select(-3 - dim, 0).flatten().tolist()
    )
    assert row == sorted(row)
    quarter = second.shared // 4
    assert set(row[: second.start + quarter]) == {1.0}, "the border of the second tile is not used"
    assert set(row[first.stop - quarter :]) == {2.0}, "nor that of the first"
    assert max(after - before for before, after in pairwise(row)) <= 1 / (2 * quarter) + 1e-6


@given(SIDES, SIDES)
def test_all_divisions_are_given_those_with_the_least_work_first(height: int, width: int) -> None:
    found = grids(height, width, multiple=4)
    assert found[0] == Grid()
    assert len(set(found)) == len(found) == max(1, height // (2 * MARGIN)) * max(1, width // (2 * MARGIN))
    work = [grid.computed(height, width, multiple=4) for grid in found]
    assert work == sorted(work)


def test_finer_halves_the_longer_side_until_tiles_are_small() -> None:
    grid: Grid | None = Grid()
    found = []
    while grid is not None:
        found.append((grid.rows, grid.columns))
        grid = finer(grid, 4 * MARGIN, 8 * MARGIN, multiple=4)
    assert found == [(1, 1), (1, 2), (2, 2), (2, 4)]
    assert finer(Grid(), 40, 40, multiple=4) is None


@pytest.mark.parametrize("multiple", [1, 4, 32])
def test_any_multiple_that_a_network_declares_is_kept(multiple: int) -> None:
    for parts in (3, 9):
        found = spans(640, parts, multiple=multiple)
        assert all(span.start % multiple == span.stop % multiple == 0 for span in found)
        assert all(span.shared >= 2 * MARGIN for span in found[1:])
        assert all(first.stop <= third.start for first, third in zip(found, found[2:], strict=False))
