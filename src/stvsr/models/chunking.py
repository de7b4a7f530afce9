"""Processing in chunks, for frames so large that one occupies the hardware and all would exceed its memory.

With gradients everything has to be kept anyway. Without, the stages of a network process large frames, pairs of
neighbours and directions in time one after the other, and the widest layers some rows at a time. The result is the
same, for a few per cent more work (whatever two pairs, both directions or two strips share is computed twice) and less
than a fifth of the memory.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

LARGEST_WHOLE = 2**15
"""Largest map, in pixels, that is processed whole. Vid4's frames are smaller: there kernel launches limit a GPU, so
batching pays."""


def needs_chunks(features: Tensor) -> bool:
    """Whether maps `(…, h, w)` are processed one by one: if they are large and gradients are disabled."""
    return not torch.is_grad_enabled() and features.shape[-2] * features.shape[-1] > LARGEST_WHOLE


def frames_per_chunk(features: Tensor) -> int:
    """How many of the maps `(n, c, h, w)` to process together: all if gradients are enabled, at least one."""
    if torch.is_grad_enabled():
        return len(features)
    return min(len(features), max(1, LARGEST_WHOLE // (features.shape[-2] * features.shape[-1])))


def in_chunks(layers: Callable[..., Tensor], *maps: Tensor) -> Tensor:
    """Applies layers to maps `(n, c, h, w)`, as many at a time as `frames_per_chunk` allows."""
    parts = (torch.split(tensor, frames_per_chunk(tensor)) for tensor in maps)
    return torch.cat([layers(*chunk) for chunk in zip(*parts, strict=True)])


def rows_per_chunk(features: Tensor, *, reach: int) -> int:
    """How many rows of a map `(…, h, w)` to process together.

    Args:
        features: the maps.
        reach: rows needed above and below as well; these are computed twice, at most an eighth more work.
    """
    return max(16 * reach, LARGEST_WHOLE // features.shape[-1])


def in_row_chunks(
    layers: Callable[..., tuple[Tensor, ...]], *maps: Tensor, reach: int, scale: int = 1
) -> tuple[Tensor, ...]:
    """Applies layers to maps, some rows at a time.

    Args:
        layers: take maps `(b, c, h, w)` and return maps `(b, c', scale*h, scale*w)`.
        maps: the layers' inputs, all of one height and width.
        reach: rows above and below a row on which the layers' output depends.
        scale: ratio of output to input size.

    Returns:
        The layers' outputs for the whole maps.
    """
    height, chunk_rows = maps[0].shape[-2], rows_per_chunk(maps[0], reach=reach)
    outputs: tuple[Tensor, ...] = ()
    for start in range(0, height, chunk_rows):
        above, rows = min(start, reach), min(chunk_rows, height - start)
        strips = layers(*(tensor[..., start - above : start + rows + reach, :] for tensor in maps))
        outputs = outputs or tuple(_empty_of_height(strip, scale * height) for strip in strips)
        for output, strip in zip(outputs, strips, strict=True):
            output.narrow(-2, scale * start, scale * rows).copy_(strip.narrow(-2, scale * above, scale * rows))
    return outputs


def _empty_of_height(strip: Tensor, height: int) -> Tensor:
    """An uninitialised tensor like the strip, but of the given height and channels-last."""
    shape = (*strip.shape[:-2], height, strip.shape[-1])
    return torch.empty(shape, dtype=strip.dtype, device=strip.device, memory_format=torch.channels_last)


@contextmanager
def unchunked() -> Iterator[None]:
    """Disables chunking within the block."""
    global LARGEST_WHOLE
    before, LARGEST_WHOLE = LARGEST_WHOLE, sys.maxsize
    try:
        yield
    finally:
        LARGEST_WHOLE = before
