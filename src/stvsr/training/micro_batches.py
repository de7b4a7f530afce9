"""The loss and the gradients of a batch, computed in micro-batches, in the memory that a few clips need.

Clips do not depend on each other, and objectives sum over them, so the gradients of micro-batches add up to those of
the whole batch, up to rounding. On a CPU this is faster, too: the maps of a few clips stay in its caches. A GPU needs
large batches: micro-batches would launch more kernels, each with less work.
"""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm

from stvsr.data.clip import Batch

PIXELS_AT_ONCE = 2**13
"""LR pixels, of all given frames, that a CPU trains on at once, but at least one clip: two of the paper's size."""


def loss_in_micro_batches(loss_of: Callable[[Batch], Tensor], batch: Batch, network: nn.Module) -> Tensor:
    """The loss of a batch; its gradients are computed with it, not in its backward pass.

    Args:
        loss_of: the loss of some clips: a sum over them.
        batch: at least one clip.
        network: has the parameters; the loss need not depend on all of them.

    Returns:
        `loss_of(batch)`, up to rounding. Its backward pass gives gradients to the network's parameters alone.
    """
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    losses: list[Tensor] = []
    sums: dict[nn.Parameter, Tensor] = {}
    for part in [batch] if _clips_depend_on_each_other(network) else micro_batches(batch):
        loss = loss_of(part)
        losses.append(loss.detach())
        for parameter, gradient in zip(
            parameters, torch.autograd.grad(loss, parameters, allow_unused=True), strict=True
        ):
            if gradient is not None:
                # Not in place: parameters may share a gradient tensor.
                sums[parameter] = sums[parameter] + gradient if parameter in sums else gradient
    # Parameters that the loss does not use stay out of the graph, so that processes which share a batch
    # (`find_unused_parameters`) do not wait for their gradients.
    whole: Tensor = _GradientsKnown.apply(torch.stack(losses).sum(), list(sums.values()), *sums)
    return whole


def micro_batches(batch: Batch) -> list[Batch]:
    """A batch's clips in groups of nearly the same size, as few as `PIXELS_AT_ONCE` allows."""
    count = math.ceil(len(batch) / max(1, PIXELS_AT_ONCE // batch.lr[0, :, 0].numel()))
    bounds = [len(batch) * group // count for group in range(count + 1)]
    return [
        Batch(batch.lr[first:end], batch.hr[first:end], batch.names[first:end], batch.motions[first:end])
        for first, end in pairwise(bounds)
    ]


def _clips_depend_on_each_other(network: nn.Module) -> bool:
    return any(isinstance(part, _BatchNorm) and part.training for part in network.modules())


class _GradientsKnown(torch.autograd.Function):
    """A value with the gradients that were computed along with it."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, gradients: list[Tensor], *parameters: Tensor) -> Tensor:
        ctx.gradients = gradients
        return value.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, *(known * gradient for known in ctx.gradients)
