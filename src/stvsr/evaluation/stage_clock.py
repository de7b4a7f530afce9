"""How long each stage of a network takes."""

import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from stvsr.devices import synchronise


class StageClock:
    """Adds up the seconds that each stage runs.

    Args:
        stages: by name.
        device: where they run; it is synchronised before and after each.
    """

    def __init__(self, stages: Mapping[str, nn.Module], device: torch.device) -> None:
        self.seconds = dict.fromkeys(stages, 0.0)
        self.device = device
        for name, stage in stages.items():
            self._listen(name, stage)

    def reset(self) -> None:
        """Starts from zero."""
        self.seconds = dict.fromkeys(self.seconds, 0.0)

    def _listen(self, name: str, stage: nn.Module) -> None:
        started = 0.0

        def before(*_: Any) -> None:
            nonlocal started
            synchronise(self.device)
            started = time.perf_counter()

        def after(*_: Any) -> None:
            synchronise(self.device)
            self.seconds[name] += time.perf_counter() - started

        stage.register_forward_pre_hook(before)
        stage.register_forward_hook(after)
