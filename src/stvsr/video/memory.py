"""How much memory a network takes, and so into how many tiles a frame must be divided.

What a network holds at once is proportional to the pixels of its input, and is found without computing anything: it
runs on tensors that have shapes but no content, and what is alive at the same time is added up.
"""

import weakref
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from stvsr.data.clip import GIVEN
from stvsr.errors import InvalidInput
from stvsr.models.requirements import Network
from stvsr.ops.deformable import use_backend
from stvsr.video.tiles import Grid, coarsest_grid, finest_grid

PROBE = 128
"""Height and width of the input that is tried; no tile is smaller, and above it networks take frames one by one
where they can."""

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


def bytes_per_pixel(network: Network) -> float:
    """Memory that a window of four frames takes, for each pixel of an LR frame, in float32."""
    device = next((parameter.device for parameter in network.parameters()), None)
    # The blocks of the other take no memory to speak of, but seconds to try; and this one is never recorded as a graph.
    before = use_backend("torchvision")
    try:
        with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad(), _Alive() as alive:
            network(torch.empty(1, GIVEN, 3, PROBE, PROBE, device=device))
    finally:
        use_backend(before)
    most: int = alive.most
    return most / PROBE**2


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
    each = OVERHEAD * bytes_per_pixel(network)
    multiple = network.requirements.multiple_of
    height, width = (-(-side // multiple) * multiple for side in (height, width))
    grid = coarsest_grid(height, width, most=int(memory / each), multiple=multiple)
    if grid is None:
        least = finest_grid(height, width, multiple=multiple).largest(height, width, multiple=multiple) * each
        raise InvalidInput(
            f"{limit}, of which {max(memory, 0) / 2**30:.1f} GiB remain for the network; the smallest tiles of frames "
            f"of {width}x{height} need {least / 2**30:.1f} GiB: allow more, or use smaller frames"
        )
    return grid
