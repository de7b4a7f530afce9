"""Bilinear sampling: positions are pixels, what lies outside is zero, gradients are those of the formula."""

import math

import pytest
import torch
from torch import Tensor

from stvsr.ops.sampling import follow, pixel_positions, sample_at


def read_slowly(features: Tensor, positions: Tensor) -> Tensor:
    """`sample_at` pixel by pixel."""
    b, c, h, w = features.shape
    output = features.new_zeros(b, c, *positions.shape[-2:])
    for i, row, column in torch.cartesian_prod(*map(torch.arange, (b, *positions.shape[-2:]))).tolist():
        x, y = positions[i, :, row, column].tolist()
        for j in (math.floor(y), math.floor(y) + 1):
            for k in (math.floor(x), math.floor(x) + 1):
                if 0 <= j < h and 0 <= k < w:
                    output[i, :, row, column] += (1 - abs(y - j)) * (1 - abs(x - k)) * features[i, :, j, k]
    return output


def scattered(b: int, h: int, w: int, *, within: tuple[int, int]) -> Tensor:
    """Random positions in features of size `within` and up to 2.5 pixels outside."""
    sides = torch.tensor([within[1], within[0]], dtype=torch.float64).view(2, 1, 1)
    return torch.rand(b, 2, h, w, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * (sides + 4) - 2.5


def test_positions_are_x_then_y() -> None:
    positions = pixel_positions(2, 3, like=torch.zeros(1, dtype=torch.float64))
    assert positions.dtype == torch.float64
    assert positions.tolist() == [[[[0, 1, 2], [0, 1, 2]], [[0, 0, 0], [1, 1, 1]]]]


@pytest.mark.parametrize(("h", "w"), [(6, 9), (5, 2), (32, 33), (1, 5), (5, 1), (1, 1)])
def test_every_pixel_at_its_own_position_is_itself(h: int, w: int) -> None:
    features = torch.rand(2, 3, h, w) + 1
    positions = pixel_positions(h, w, like=features).expand(2, -1, -1, -1)
    torch.testing.assert_close(sample_at(features, positions), features, rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [(6, 9), (2, 2), (7, 3)])
@pytest.mark.parametrize("output", [(4, 5), (1, 12)])
def test_values_are_those_of_the_formula_inside_at_the_border_and_outside(
    size: tuple[int, int], output: tuple[int, int]
) -> None:
    features = torch.rand(2, 3, *size, dtype=torch.float64)
    positions = scattered(2, *output, within=size)
    torch.testing.assert_close(sample_at(features, positions), read_slowly(features, positions))


def test_far_outside_is_zero_and_nothing_comes_in_from_the_other_side() -> None:
    positions = pixel_positions(4, 4, like=torch.zeros(1)) + torch.tensor([4.0, 0.0]).view(1, 2, 1, 1)
    assert not sample_at(torch.ones(1, 1, 4, 4), positions).any()


def test_gradients_are_those_of_the_formula() -> None:
    features = torch.rand(1, 2, 5, 6, dtype=torch.float64, requires_grad=True)
    positions = scattered(1, 3, 4, within=(5, 6)).requires_grad_()
    assert torch.autograd.gradcheck(sample_at, (features, positions))


def test_flow_leads_to_positions_of_which_those_on_the_outermost_pixels_are_inside() -> None:
    flow = torch.zeros(1, 2, 3, 4)
    flow[0, :, 1, 2] = torch.tensor([1.0, -1.0])  # to the upper right corner
    flow[0, :, 0, 0] = torch.tensor([0.0, 2.5])  # half a pixel below the last row
    flow[0, :, 2, 3] = torch.tensor([0.25, 0.0])  # a quarter of a pixel to the right of the last column
    positions, inside = follow(flow)
    assert positions[0, :, 1, 2].tolist() == [3, 0]
    assert (~inside[0, 0]).nonzero().tolist() == [[0, 0], [2, 3]]
