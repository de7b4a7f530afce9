"""The projection of flow against its definition, pixel by pixel; holes; its gradient."""

import pytest
import torch
from torch import Tensor

from stvsr.ops.flow_projection import fill_holes, project_flow

SHAPES = [(2, 6, 9), (1, 7, 4), (1, 1, 5), (1, 1, 1)]


def arguments(shape: tuple[int, ...], reach: float) -> tuple[Tensor, Tensor]:
    b, h, w = shape
    generator = torch.Generator().manual_seed(0)
    flow = reach * torch.randn(b, 2, h, w, generator=generator, dtype=torch.float64)
    return flow, 0.1 + torch.rand(b, 1, h, w, generator=generator, dtype=torch.float64)


def by_definition(flow: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Projected flow, 0 in holes, and the weight that arrived at each pixel."""
    b, _, h, w = flow.shape
    total, sums = torch.zeros(b, 1, h, w, dtype=flow.dtype), torch.zeros_like(flow)
    for n in range(b):
        for y in range(h):
            for x in range(w):
                to_x, to_y = x + flow[n, 0, y, x].item(), y + flow[n, 1, y, x].item()
                if not (0 <= to_x <= w - 1 and 0 <= to_y <= h - 1):
                    continue
                left, top = int(to_x), int(to_y)
                for row in (top, min(top + 1, h - 1)):
                    for column in (left, min(left + 1, w - 1)):
                        sums[n, :, row, column] -= weight[n, 0, y, x] * flow[n, :, y, x]
                        total[n, 0, row, column] += weight[n, 0, y, x]
    return torch.where(total > 0, sums / total, 0), total


def filled_by_definition(values: Tensor, known: Tensor) -> Tensor:
    filled = values.clone()
    b, c, h, w = values.shape
    for n in range(b):
        for y in range(h):
            for x in range(w):
                if known[n, 0, y, x]:
                    continue
                rays = [
                    [(y, column) for column in range(x - 1, -1, -1)],
                    [(y, column) for column in range(x + 1, w)],
                    [(row, x) for row in range(y - 1, -1, -1)],
                    [(row, x) for row in range(y + 1, h)],
                ]
                nearest = [next((at for at in ray if known[n, 0, *at]), None) for ray in rays]
                found = [values[n, :, *at] for at in nearest if at is not None]
                filled[n, :, y, x] = torch.stack(found).mean(dim=0) if found else torch.zeros(c)
    return filled


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("reach", [0.0, 0.4, 3.0, 30.0], ids=lambda reach: f"flow{reach}")
def test_projection_is_the_weighted_mean_of_what_arrives_and_then_fills_holes(
    shape: tuple[int, ...], reach: float
) -> None:
    """Flow that leaves the frame is dropped and does not re-enter at the other side."""
    flow, weight = arguments(shape, reach)
    with_holes, total = by_definition(flow, weight)
    torch.testing.assert_close(project_flow(flow, weight), filled_by_definition(with_holes, total > 0))
    torch.testing.assert_close(project_flow(flow.requires_grad_(), weight).detach(), with_holes)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
def test_holes_take_the_mean_of_the_nearest_values_in_their_row_and_column(share: float) -> None:
    values, _ = arguments((2, 7, 5), 1.0)
    known = torch.rand(2, 1, 7, 5, generator=torch.Generator().manual_seed(1)) < share
    torch.testing.assert_close(fill_holes(values * known, known), filled_by_definition(values * known, known))


def test_projected_flow_points_back() -> None:
    flow = torch.zeros(1, 2, 8, 8)
    flow[:, 0] = 2.0
    projected = project_flow(flow, torch.ones(1, 1, 8, 8))
    torch.testing.assert_close(projected, -flow)


def test_where_two_pixels_meet_the_heavier_one_counts_more() -> None:
    flow = torch.full((1, 2, 1, 9), 100.0)
    flow[0, :, 0, 2], flow[0, :, 0, 6] = torch.tensor([2.0, 0.0]), torch.tensor([-2.0, 0.0])
    weight = torch.ones(1, 1, 1, 9)
    weight[..., 6] = 3.0
    assert project_flow(flow, weight)[0, 0, 0, 4] == (3 * 2.0 - 2.0) / 4


@pytest.mark.parametrize("reach", [0.4, 2.0])
def test_gradient_is_that_of_the_values(reach: float) -> None:
    flow, weight = arguments((2, 4, 5), reach)
    assert torch.autograd.gradcheck(project_flow, (flow.requires_grad_(), weight.requires_grad_()))
