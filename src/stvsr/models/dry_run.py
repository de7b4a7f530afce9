"""A network run on frames that have shapes but no content: nothing is computed, but what it would do can be watched."""

from contextlib import AbstractContextManager, suppress
from copy import deepcopy
from itertools import chain
from threading import Lock
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call

from stvsr.data.clip import GIVEN
from stvsr.ops.deformable import use_backend

_RUNS = Lock()


def dry_run(network: nn.Module, height: int, width: int, watch: AbstractContextManager[Any]) -> None:
    """Runs a window of four LR frames of `height` x `width` through a network, without gradients.

    A deformable convolution is one operation of torchvision: blocks of it would be hundreds, each of which takes time.

    Args:
        network: on any device; left as it was.
        height: of the LR frames.
        width: of the LR frames.
        watch: what sees the operations, entered around them.

    Raises:
        Exception: whatever a network raises that looks at the values of tensors; here they have none.
    """
    # The back end is that of the process: two runs at once would leave another than they found.
    with _RUNS:
        # Some networks keep what they compute for a size, which here has no content. Few cannot be copied.
        with suppress(Exception):
            network = deepcopy(network)
        device = next((parameter.device for parameter in network.parameters()), None)
        before = use_backend("torchvision")
        try:
            with FakeTensorMode(allow_non_fake_inputs=True) as empty, torch.no_grad():
                # Once, not in each operation: that would take as long as everything else.
                tensors = chain(network.named_parameters(), network.named_buffers())
                weights: dict[str, Tensor] = {name: empty.from_tensor(tensor) for name, tensor in tensors}
                frames = torch.empty(1, GIVEN, 3, height, width, device=device)
                with watch:
                    functional_call(network, weights, frames)
        finally:
            use_backend(before)
