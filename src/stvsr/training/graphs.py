"""A network's forward and backward pass of a training step, recorded once as CUDA graphs and replayed.

At the paper's training size a kernel runs for microseconds, less than Python takes to launch it: a step waits for its
launches. A graph launches all of them at once. It holds for one shape of input, which training has.
"""

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from stvsr.errors import InvalidInput
from stvsr.ops.deformable import backend_on


def recorded(network: nn.Module, lr: Tensor) -> Callable[[Tensor], Tensor]:
    """The network as CUDA graphs, for training on inputs shaped like `lr`, under the autocast that is active now.

    Hooks inside the network, and anything else in it that is Python, do not run when a graph is replayed.

    Args:
        network: in training mode.
        lr: `(b, n, 3, h, w)`, on a GPU.

    Raises:
        InvalidInput: `lr` is not on a GPU, or deformable convolutions are torchvision's, whose kernels run on
            the default stream, outside of any recording: replays would compute with what lies in memory.
    """
    if not lr.is_cuda:
        raise InvalidInput("cuda_graphs=true on a CPU; expected a GPU: add trainer=gpu, or cuda_graphs=false")
    if backend_on("cuda") == "torchvision":
        raise InvalidInput(
            "cuda_graphs=true with torchvision's deformable convolution, which cannot be recorded; expected "
            "deformable=triton: install Triton, or add cuda_graphs=false"
        )
    autocast = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else None
    with torch.autocast("cuda", enabled=False):
        graphs = cast(nn.Module, torch.cuda.make_graphed_callables(_Autocast(network, autocast), (lr,)))
    # Not the module itself, which whoever keeps it would own with all its weights.
    return graphs.forward


class _Autocast(nn.Module):
    """A network under an autocast of its own."""

    def __init__(self, network: nn.Module, dtype: torch.dtype | None) -> None:
        super().__init__()
        self.network = network
        self.dtype = dtype

    def forward(self, lr: Tensor) -> Tensor:
        # Weights that were cast before the recording would never be cast again, and those cast in it belong to it.
        torch.clear_autocast_cache()
        with torch.autocast("cuda", self.dtype, enabled=self.dtype is not None):
            prediction: Tensor = self.network(lr)
        torch.clear_autocast_cache()
        return prediction
