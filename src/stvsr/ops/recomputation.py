"""Computing again in the backward pass what would take too much memory to keep."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch.utils.checkpoint import checkpoint

Value = TypeVar("Value")


def recomputed(function: Callable[..., Value], *inputs: Any) -> Value:
    """The function's value; where gradients are wanted, its inside is computed again for them instead of kept.

    Args:
        function: draws no random numbers: the second time they would be others.
        inputs: of the function; these are kept.
    """
    if not torch.is_grad_enabled():
        return function(*inputs)
    return checkpoint(function, *inputs, use_reentrant=False, preserve_rng_state=False)
