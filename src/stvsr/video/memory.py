"""How much memory a network takes, and so into how many tiles a frame must be divided.

What a network holds at once is found without computing anything: it runs on tensors that have shapes but no content,
and what is alive at the same time is added up.
"""

import math
import weakref
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from stvsr.data.clip import GIVEN
from stvsr.errors import InvalidInput
from stvsr.models.requirements import Network
from stvsr.ops.deformable import use_backend
from stvsr.video.tiles import Grid, coarsest_grid, finest_grid

OVERHEAD = 1.3
"""What a run takes beyond the tensors that are alive: scratch space, and what an allocator keeps."""

FRAME_BYTES = 160
"""For each output pixel: two windows of finished frames, and the frames in an encoder."""


class _Alive(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the memory of tensors that are alive."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.most = 0
        self.known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                self._add(tensor.untyped_storage())
        return made

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key not in self.known:
            self.known.add(key)
            self.now += size
            self.most = max(self.most, self.now)
            weakref.finalize(storage, self._remove, key, size)

    def _remove(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.now -= size


def bytes_taken(network: nn.Module, height: int, width: int) -> int:
    """Memory that a window of four LR frames takes, in float32."""
    device = next((parameter.device for parameter in network.parameters()), None)
    # The blocks of the other take no memory to speak of, but seconds to try; and this one is never recorded as a graph.
    before = use_backend("torchvision")
    try:
        with FakeTensorMode(allow_non_fake_inputs=True) as empty, torch.no_grad():
            # Once, not in each operation: that would take as long as everything else.
            tensors = chain(network.named_parameters(), network.named_buffers())
            weights: dict[str, Tensor] = {name: empty.from_tensor(tensor) for name, tensor in tensors}
            with _Alive() as alive:
                functional_call(network, weights, torch.empty(1, GIVEN, 3, height, width, device=device))
    finally:
        use_backend(before)
    most: int = alive.most
    return most


def grid_within(memory: float, network: Network, height: int, width: int, *, limit: str) -> Grid:
    """The division of frames whose tiles fit into the memory.

    Args:
        memory: bytes that the network may use.
        network: what runs.
        height: of the LR frames.
        width: of the LR frames.
        limit: what limits the memory, for messages.

    Raises:
        InvalidInput: not even the smallest tiles fit.
    """
    multiple = network.requirements.multiple_of
    height, width = (-(-side // multiple) * multiple for side in (height, width))

    def needed(grid: Grid) -> float:
        return OVERHEAD * bytes_taken(network, *grid.largest(height, width, multiple=multiple))

    grid: Grid | None = Grid()
    while grid is not None:
        least = needed(grid)
        if least <= memory:
            return grid
        # Nearly proportional to the pixels of a tile; where it is not, the next try is further off.
        pixels = math.prod(grid.largest(height, width, multiple=multiple))
        most = min(int(pixels * max(memory, 0) / least), pixels - 1)
        grid = coarsest_grid(height, width, most=most, multiple=multiple)
    least = needed(finest_grid(height, width, multiple=multiple))
    raise InvalidInput(
        f"{limit}, of which {max(memory, 0) / 2**30:.1f} GiB remain for the network; the smallest tiles of frames "
        f"of {width}x{height} need {least / 2**30:.1f} GiB: allow more, or use smaller frames"
    )
