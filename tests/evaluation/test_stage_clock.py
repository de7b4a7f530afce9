"""Seconds are told apart by stage, and are those of what was run since the last reset."""

import time

import pytest
import torch
from torch import Tensor, nn

from stvsr.evaluation.stage_clock import StageClock


class Slow(nn.Module):
    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds, self.slept = seconds, 0.0

    def forward(self, frames: Tensor) -> Tensor:
        started = time.perf_counter()
        time.sleep(self.seconds)
        self.slept += time.perf_counter() - started
        return frames


def test_each_stage_is_timed_by_itself_and_a_reset_starts_anew() -> None:
    first, second = Slow(0.02), Slow(0.04)
    clock = StageClock({"first": first, "second": second}, torch.device("cpu"))
    for _ in range(2):
        second(first(torch.ones(1)))
        time.sleep(0.02)
    # The time between the two is of neither.
    assert clock.seconds["first"] == pytest.approx(first.slept, rel=0.05)
    assert clock.seconds["second"] == pytest.approx(second.slept, rel=0.05)
    clock.reset()
    assert clock.seconds == {"first": 0, "second": 0}
