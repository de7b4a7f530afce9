"""A network's kernels, recorded once as CUDA graphs and replayed.

On small frames, such as those of the paper's training or of Vid4, a kernel runs for microseconds, less than Python
takes to launch it: launches limit the speed. A graph launches all kernels at once; it is valid for one input shape.
Hooks inside the network, and all other Python code in it, do not run when a graph is replayed.
"""

import gc
import inspect
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from stvsr.devices import check_answering
from stvsr.errors import InvalidInput, one_line
from stvsr.models.alignment import DeformableSampling
from stvsr.models.network import Forward, Network
from stvsr.ops.deformable import Sizes, backend_on, computed_in

MOST_PIXELS = 2**18
"""LR pixels in a batch, over all its frames, above which launches no longer limit a GPU."""

MOST_FORMS = 8
"""At most this many forms of input are recorded, as each recording keeps an input and an output."""

CAPTURE_ERROR_MODE = "thread_local"
"""Lets other threads decode, encode or fill pinned memory while one records."""


class Replayed(Network):
    """A network for inference whose passes over small inputs on a GPU are replayed.

    The first pass over inputs of a form (a shape and a precision) is recorded, and the recording is at once compared
    with the network on other frames. If they disagree, or nothing can be recorded, the network itself runs.

    Args:
        network: in evaluation mode, in which it must stay.
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network
        self.requirements = network.requirements
        self._sizes = _deformable_sizes(network)
        self._passes: dict[tuple[Any, ...], Forward] = {}
        self._pool: Any = None
        self._failed = False

    def forward(self, lr: Tensor) -> Tensor:
        """`(b, n, 3, h, w)` to `(b, 2n-1, 3, 4h, 4w)`, as the network does."""
        if not self._is_worth_recording(lr):
            return cast(Tensor, self.network(lr))
        form = (lr.shape, lr.dtype, lr.device, _autocast_dtype())
        if form not in self._passes and len(self._passes) < MOST_FORMS:
            self._passes[form] = self._replay(lr) or self.network
        return self._passes.get(form, self.network)(lr)

    def forget(self) -> None:
        """Frees the memory of all recordings, for when inputs of another size follow."""
        self._passes.clear()
        self._pool = None

    def _is_worth_recording(self, lr: Tensor) -> bool:
        return (
            lr.is_cuda
            and self.network.replayable
            and not self._failed
            and not torch.is_grad_enabled()
            and lr.numel() <= 3 * MOST_PIXELS
            and _can_be_recorded(self._sizes, lr)
        )

    def _replay(self, lr: Tensor) -> Forward | None:
        """A recorded pass over inputs shaped like `lr`; None if recording fails or the recording is wrong."""
        # Other frames than those recorded, whose results are still in memory and would hide kernels not recorded.
        other = (1 - lr).flip(-1)
        expected = self.network(other)
        try:
            self._pool = self._pool or torch.cuda.graph_pool_handle()
            replay = recorded_pass(self.network, lr, pool=self._pool)
            error, change = (_distance(replay(frames), expected) for frames in (other, lr))
            # Not exactly 0: other kernels may be chosen, which round differently.
            if error <= 1e-2 * change:
                return replay
            reason = f"its output differs by {error:.2g}"
        except RuntimeError as failure:  # of CUDA, its libraries or its memory
            check_answering(lr.device)
            reason = one_line(failure)[:200]
            # In older versions of torch, a failed recording makes the next one fail too.
            self._failed = True
        warnings.warn(
            f"no CUDA graph for inputs of shape {tuple(lr.shape)}: {reason}; the network runs without it", stacklevel=2
        )
        return None


def recorded_pass(network: nn.Module, lr: Tensor, *, pool: Any) -> Forward:
    """Records a forward pass as a CUDA graph, for inputs shaped like `lr`, under the current autocast.

    Args:
        network: has run on such inputs before, so that no compilation or tuning is recorded.
        lr: `(b, n, 3, h, w)`, on a GPU.
        pool: the memory pool, shared by recordings that never run at the same time.

    Returns:
        A function of such inputs, whose results later calls do not overwrite.
    """
    autocast_network = _Autocast(network, _autocast_dtype())
    _forget_graphs()
    with _on_its_stream(lr), torch.inference_mode(), torch.autocast("cuda", enabled=False):
        static_input = lr.clone()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=pool, capture_error_mode=CAPTURE_ERROR_MODE):
            static_output = autocast_network(static_input)

    @torch.inference_mode()
    def replay(frames: Tensor) -> Tensor:
        static_input.copy_(frames)
        graph.replay()
        return cast(Tensor, static_output.clone())

    return replay


def recorded_step(network: nn.Module, lr: Tensor) -> Forward:
    """Records a network as CUDA graphs, for training on inputs shaped like `lr`, under the current autocast.

    Args:
        network: in training mode.
        lr: `(b, n, 3, h, w)`, on a GPU.

    Raises:
        InvalidInput: `lr` is not on a GPU, or deformable convolutions are torchvision's.
    """
    if not lr.is_cuda:
        raise InvalidInput("cuda_graphs=true on a CPU; expected a GPU: add trainer=gpu, or cuda_graphs=false")
    if not _can_be_recorded(_deformable_sizes(network), lr):
        raise InvalidInput(
            "cuda_graphs=true with torchvision's deformable convolution, which cannot be recorded; expected "
            "deformable=triton, which needs Triton and a GPU of compute capability 8.0 or newer: add cuda_graphs=false"
        )
    autocast_network = _Autocast(network, _autocast_dtype())
    make_graphed: Callable[..., Any] = torch.cuda.make_graphed_callables
    mode = {"capture_error_mode": CAPTURE_ERROR_MODE}
    _forget_graphs()
    with _on_its_stream(lr), torch.autocast("cuda", enabled=False):
        # Older versions of torch lack this argument.
        supported = inspect.signature(make_graphed).parameters.keys()
        graphs = make_graphed(autocast_network, (lr,), **(mode if mode.keys() <= supported else {}))

    # A plain function: a module to which `graphs` itself is assigned would register its weights again.
    def step(lr: Tensor) -> Tensor:
        return cast(Tensor, graphs(lr))

    return step


def _deformable_sizes(network: nn.Module) -> set[Sizes]:
    """The sizes of every `DeformableSampling` in a network; direct calls of `deform_conv2d` cannot be found."""
    return {part.sizes for part in network.modules() if isinstance(part, DeformableSampling)}


def _can_be_recorded(sizes: set[Sizes], lr: Tensor) -> bool:
    """Whether no deformable convolution is torchvision's.

    Its kernels run on the default stream and are not recorded: replays would compute with stale memory.
    """
    return all(backend_on(lr.device, computed_in(lr), each) != "torchvision" for each in sizes)


@contextmanager
def _on_its_stream(lr: Tensor) -> Iterator[None]:
    """Makes the device of `lr` current, and restores its stream, which in older torch a failed recording does not."""
    with torch.cuda.device(lr.device), torch.cuda.stream(torch.cuda.current_stream(lr.device)):
        yield


def _forget_graphs() -> None:
    """Frees unused recordings: freed during another recording, they would abort it."""
    gc.collect()


def _distance(found: Tensor, expected: Tensor) -> float:
    return (found.float() - expected.float()).square().mean().sqrt().item()


def _autocast_dtype() -> torch.dtype | None:
    return torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else None


class _Autocast(nn.Module):
    """A network under an autocast of its own."""

    def __init__(self, network: nn.Module, dtype: torch.dtype | None) -> None:
        super().__init__()
        self.network = network
        self.dtype = dtype

    def forward(self, lr: Tensor) -> Tensor:
        # Weights cast before the recording would never be cast again; those cast in it are in the graph's own memory.
        torch.clear_autocast_cache()
        with torch.autocast("cuda", self.dtype, enabled=self.dtype is not None):
            prediction: Tensor = self.network(lr)
        torch.clear_autocast_cache()
        return prediction
