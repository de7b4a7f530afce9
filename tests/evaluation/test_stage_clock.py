"""Seconds are told apart by stage, and are those of what was run since the last reset."""

import time

import torch
from torch import Tensor, nn

from stvsr.evaluation.stage_clock import StageClock


class Slow(nn.Module):
    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds

    def forward(self, frames: Tensor) -> Tensor:
        time.sleep(self.seconds)
        return frames


def test_each_stage_is_timed_by_itself_and_a_reset_starts_anew() -> None:
    first, second = Slow(0.02), Slow(0.08)
    clock = StageClock({"first": first, "second": second}, torch.device("cpu"))
    for _ in range(2):
        second(first(torch.ones(1)))
    assert 0.04 <= clock.seconds["first"] < clock.seconds["second"]
    assert clock.seconds["second"] >= 0.16
    clock.reset()
    assert clock.seconds == {"first": 0, "second": 0}
