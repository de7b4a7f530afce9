"""The correlation against its definition, pixel by pixel; its gradient."""

import pytest
import torch
from torch import Tensor

from stvsr.ops.correlation import correlation


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_definition(first: Tensor, second: Tensor, reach: int) -> Tensor:
    b, _, h, w = first.shape
    side = 2 * reach + 1
    output = first.new_zeros(b, side * side, h, w)
    for y in range(h):
        for x in range(w):
            for dy in range(-reach, reach + 1):
                for dx in range(-reach, reach + 1):
                    if 0 <= y + dy < h and 0 <= x + dx < w:
                        products = first[:, :, y, x] * second[:, :, y + dy, x + dx]
                        output[:, side * (dy + reach) + dx + reach, y, x] = products.mean(dim=1)
    return output


@pytest.mark.parametrize(("shape", "reach"), [((2, 3, 5, 7), 4), ((1, 2, 6, 3), 1), ((1, 1, 1, 1), 2)])
def test_correlation_is_the_mean_product_for_each_displacement(shape: tuple[int, ...], reach: int) -> None:
    first, second = draw(*shape, seed=0), draw(*shape, seed=1)
    torch.testing.assert_close(correlation(first, second, reach=reach), by_definition(first, second, reach))


def test_gradient_is_that_of_the_values() -> None:
    maps = [draw(1, 2, 3, 4, seed=seed).requires_grad_() for seed in range(2)]
    assert torch.autograd.gradcheck(lambda first, second: correlation(first, second, reach=1), maps)


def test_a_map_moved_right_is_found_to_the_right() -> None:
    features = draw(1, 64, 8, 8, seed=0)
    likeness = correlation(features, features.roll(2, dims=3), reach=4)[0, :, 4, 4]
    assert likeness.argmax() == 9 * 4 + 6
