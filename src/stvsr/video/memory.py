"""How much memory a network takes, and so into how many tiles a frame must be divided.

What a network holds at once is found without computing anything: it runs on tensors that have shapes but no content,
and what is alive at the same time is added up.
"""

import math
import sys
import weakref
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from stvsr.data.clip import FRAMES, SCALE
from stvsr.errors import InvalidInput, UserError, one_line
from stvsr.models import chunking
from stvsr.models.dry_run import dry_run
from stvsr.models.network import Network
from stvsr.video.tiles import MARGIN, Grid, grids

OVERHEAD = 1.45
"""A run's memory as a multiple of its live tensors': scratch space and the like. Measured by benchmarks/memory.py."""

ANSWER_BYTES = 4 * FRAMES * 3 * SCALE**2
"""Bytes per LR pixel of a window's finished frames, before rounding to 8 bits."""


class _LiveMemory(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the memory of tensors that are alive."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.current = self.peak = 0
        self.keys: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._add(tensor.untyped_storage())
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key not in self.keys:
            self.keys.add(key)
            self.current += size
            self.peak = max(self.peak, self.current)
            weakref.finalize(storage, self._remove, key, size)

    def _remove(self, key: int, size: int) -> None:
        self.keys.discard(key)
        self.current -= size


def bytes_taken(network: nn.Module, height: int, width: int) -> int:
    """Bytes that a window of four LR frames takes, in float32, in a network that is not `Replayed`.

    0, with a warning, if the network fails without content, as when it looks at the values of tensors.
    """
    live = _LiveMemory()
    try:
        dry_run(network, height, width, live)
    except UserError:
        raise
    except Exception as error:
        reason = f"{type(network).__name__}: {type(error).__name__}: {one_line(error)[:200]}"
        print(
            f"warning: the memory needed is unknown ({reason}); frames are divided into tiles only if it runs out",
            file=sys.stderr,
        )
        return 0
    return live.peak


def grid_within(memory: float, network: Network, height: int, width: int, *, limited_by: str) -> Grid:
    """The division of frames with the least work that fits into the memory.

    Args:
        memory: bytes that the network and the tiles it has finished may use.
        network: what runs.
        height: of the LR frames.
        width: of the LR frames.
        limited_by: what limits the memory, for messages.

    Raises:
        InvalidInput: none fits.
    """
    height, width = network.requirements.padded_size(height, width)
    least, bytes_per_pixel = math.inf, dict[bool, float]()
    for grid in grids(height, width, multiple=network.requirements.multiple_of):
        tiles = _most_demanding(grid.sizes(height, width, multiple=network.requirements.multiple_of))
        finished = _finished_bytes(grid, height, width, network)
        # Dry runs take seconds; bytes per pixel of earlier tiles of the same kind tell which are worth one.
        need = finished + max(bytes_per_pixel.get(chunked, 0.0) * math.prod(tile) for chunked, tile in tiles.items())
        if need <= memory or not bytes_per_pixel:
            tile_bytes = _bytes_by_tile(network, tiles)
            need = finished + max(tile_bytes.values())
            if need <= memory:
                return grid
            bytes_per_pixel |= {chunked: tile_bytes[chunked] / math.prod(tile) for chunked, tile in tiles.items()}
        least = min(least, need)
    raise InvalidInput(
        f"{limited_by}, but frames of {width}x{height} need {(least - memory) / 2**30:.1f} GiB more, even in tiles: "
        "allow more, or use smaller frames"
    )


def bytes_needed(grid: Grid, network: Network, height: int, width: int) -> float:
    """Bytes that LR frames take in the tiles of `grid`: the network's, and those of finished tiles."""
    height, width = network.requirements.padded_size(height, width)
    tiles = _most_demanding(grid.sizes(height, width, multiple=network.requirements.multiple_of))
    return max(_bytes_by_tile(network, tiles).values()) + _finished_bytes(grid, height, width, network)


def _most_demanding(tiles: set[tuple[int, int]]) -> dict[bool, tuple[int, int]]:
    """The largest tile that a network processes in chunks (True), and the largest that it processes whole (False)."""
    largest: dict[bool, tuple[int, int]] = {}
    for tile in sorted(tiles, key=math.prod):
        largest[math.prod(tile) > chunking.LARGEST_WHOLE] = tile
    return largest


def _bytes_by_tile(network: Network, tiles: dict[bool, tuple[int, int]]) -> dict[bool, float]:
    """Bytes that each of the most demanding tiles takes, `OVERHEAD` included."""
    return {chunked: OVERHEAD * bytes_taken(network, *tile) for chunked, tile in tiles.items()}


def _finished_bytes(grid: Grid, height: int, width: int, network: Network) -> int:
    """Bytes of finished tiles while one is made: their row, and what is shared with the next tile and row."""
    tiles = grid.sizes(height, width, multiple=network.requirements.multiple_of)
    tallest = max(height for height, _ in tiles)
    row = tallest * (width + 2 * MARGIN) if grid.columns > 1 else 0
    return ANSWER_BYTES * (row + (2 * MARGIN * width if grid.rows > 1 else 0))
