"""Recomputes in the backward pass what would take too much memory to keep."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch.utils.checkpoint import checkpoint

Value = TypeVar("Value")


def recomputed(function: Callable[..., Value], *inputs: Any, may_draw: bool = False) -> Value:
    """The function's value; where gradients are enabled, its intermediate results are recomputed instead of kept.

    Args:
        function: what to compute.
        inputs: of the function; these are kept.
        may_draw: whether the function may draw random numbers, which are then the same the second time; saving the
            generators' state takes time, and is impossible while a CUDA graph is recorded.
    """
    if not torch.is_grad_enabled():
        return function(*inputs)
    draws = may_draw and not (torch.cuda.is_available() and torch.cuda.is_current_stream_capturing())
    return checkpoint(function, *inputs, use_reentrant=False, preserve_rng_state=draws)
