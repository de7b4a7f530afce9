"""Runs a network on fake tensors, which have shapes but no content: its operations can be watched at no cost."""

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

_BACKEND_LOCK = Lock()


def dry_run(network: nn.Module, height: int, width: int, watch: AbstractContextManager[Any]) -> None:
    """Runs a window of four LR frames of `height` x `width` through a network, without gradients.

    Deformable convolutions run as torchvision's single operation; the blocked back end would dispatch hundreds, slowly.

    Args:
        network: on any device; left as it was.
        height: of the LR frames.
        width: of the LR frames.
        watch: a context manager that observes the operations; entered around them.

    Raises:
        Exception: whatever a network raises that reads values of tensors, as here they have none.
    """
    # The back end is global to the process: two runs at once could restore the wrong one.
    with _BACKEND_LOCK:
        # A copy, as some networks cache what they compute for a size, which here is empty; a few cannot be copied.
        with suppress(Exception):
            network = deepcopy(network)
        device = next((parameter.device for parameter in network.parameters()), None)
        before = use_backend("torchvision")
        try:
            with FakeTensorMode(allow_non_fake_inputs=True) as fake_mode, torch.no_grad():
                # Converted once: in each operation anew, this would double the time.
                tensors = chain(network.named_parameters(), network.named_buffers())
                weights: dict[str, Tensor] = {name: fake_mode.from_tensor(tensor) for name, tensor in tensors}
                frames = torch.empty(1, GIVEN, 3, height, width, device=device)
                with watch:
                    functional_call(network, weights, frames)
        finally:
            use_backend(before)
