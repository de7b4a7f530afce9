"""The Charbonnier loss is the authors' formula, not another one of that name."""

import pytest
import torch

from stvsr.training.losses import charbonnier


def test_it_is_the_sum_of_roots() -> None:
    prediction, target = torch.tensor([0.0, 0.5, 1.0]), torch.tensor([0.0, 0.2, 2.0])
    expected = 1e-3 + (0.3**2 + 1e-6) ** 0.5 + (1 + 1e-6) ** 0.5
    assert charbonnier(prediction, target).item() == pytest.approx(expected)


def test_gradient_at_equality_is_zero_and_not_undefined() -> None:
    prediction = torch.zeros(4, requires_grad=True)
    charbonnier(prediction, torch.zeros(4)).backward()
    assert torch.equal(prediction.grad, torch.zeros(4))
