"""Losses: that of the authors' release, after the paper's Eq. 7, and one that baselines were trained with.

Each is a sum over everything. Its gradient grows with the batch and the patch, which matters to gradient clipping but
not to Adam.
"""

import torch
from torch import Tensor

EPSILON = 1e-3
"""The paper's epsilon, for values in [0, 1]."""


def charbonnier(prediction: Tensor, target: Tensor) -> Tensor:
    """Charbonnier penalty, summed over everything: `sum sqrt((prediction - target)^2 + 1e-6)`.

    The root is taken of each value, as in the authors' release; Eq. 7 prints one root of a frame's squared norm. The
    epsilon is squared. Libraries differ in both.

    Args:
        prediction: any shape, values about [0, 1].
        target: the same shape.

    Returns:
        A scalar.
    """
    return torch.sqrt((prediction - target).square() + EPSILON**2).sum()


def l1(prediction: Tensor, target: Tensor) -> Tensor:
    """Sum of absolute differences; arguments as `charbonnier`. SepConv, RCAN and RBPN were trained with it."""
    return (prediction - target).abs().sum()
