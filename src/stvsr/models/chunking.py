"""Frames so large that one at a time is work enough for a machine, and all at once more than its memory holds.

Where gradients are wanted everything is kept for them anyway. Where not, the stages of a network take large frames,
pairs of neighbours and directions in time in turns, and the widest layers some rows at a time. The result is the same,
for a few per cent more work: what two pairs, both directions or two strips share is computed twice. What is held at
once is less than a fifth.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

LARGEST_WHOLE = 2**15
"""Largest map, in pixels, that is processed whole. Vid4's frames are smaller: on those a GPU waits for launches, so
batching pays."""


def needs_chunks(features: Tensor) -> bool:
    """Whether maps `(…, h, w)` are taken one by one: large ones, where no gradients are wanted."""
    return not torch.is_grad_enabled() and features.shape[-2] * features.shape[-1] > LARGEST_WHOLE


def frames_per_chunk(features: Tensor) -> int:
    """How many of the maps `(n, c, h, w)` are taken together: all where gradients are wanted, at least one."""
    if torch.is_grad_enabled():
        return len(features)
    return min(len(features), max(1, LARGEST_WHOLE // (features.shape[-2] * features.shape[-1])))


def in_chunks(layers: Callable[..., Tensor], *maps: Tensor) -> Tensor:
    """Applies layers to maps `(n, c, h, w)`, to as many at a time as `frames_per_chunk` allows."""
    parts = (torch.split(each, frames_per_chunk(each)) for each in maps)
    return torch.cat([layers(*together) for together in zip(*parts, strict=True)])


def rows_per_chunk(features: Tensor, *, reach: int) -> int:
    """How many rows of a map `(…, h, w)` are taken together.

    Args:
        features: the maps.
        reach: rows above and below that are needed as well; they are computed twice, at most an eighth more.
    """
    return max(16 * reach, LARGEST_WHOLE // features.shape[-1])


def in_row_chunks(
    layers: Callable[..., tuple[Tensor, ...]], *maps: Tensor, reach: int, scale: int = 1
) -> tuple[Tensor, ...]:
    """Applies layers to some rows of maps after the others.

    Args:
        layers: maps `(b, …, h, w)` to others `(b, …, scale*h, scale*w)`.
        maps: what they are applied to, all of one height and width.
        reach: rows that the layers look up and down.
        scale: how many times as large as their input their outputs are.

    Returns:
        What the layers make of whole maps.
    """
    height, together = maps[0].shape[-2], rows_per_chunk(maps[0], reach=reach)
    whole: tuple[Tensor, ...] = ()
    for start in range(0, height, together):
        above, rows = min(start, reach), min(together, height - start)
        strips = layers(*(each[..., start - above : start + rows + reach, :] for each in maps))
        whole = whole or tuple(_of_height(strip, scale * height) for strip in strips)
        for each, strip in zip(whole, strips, strict=True):
            each.narrow(-2, scale * start, scale * rows).copy_(strip.narrow(-2, scale * above, scale * rows))
    return whole


def _of_height(strip: Tensor, height: int) -> Tensor:
    """Uninitialised, as high as that, with channels last in memory, and otherwise as the strip."""
    shape = (*strip.shape[:-2], height, strip.shape[-1])
    return torch.empty(shape, dtype=strip.dtype, device=strip.device, memory_format=torch.channels_last)


@contextmanager
def unchunked() -> Iterator[None]:
    """Takes everything whole."""
    global LARGEST_WHOLE
    before, LARGEST_WHOLE = LARGEST_WHOLE, sys.maxsize
    try:
        yield
    finally:
        LARGEST_WHOLE = before
