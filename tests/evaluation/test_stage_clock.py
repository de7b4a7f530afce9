"""Seconds are measured for each stage, since the last reset."""

import pytest
import torch
from torch import Tensor, nn

from stvsr.evaluation.stage_clock import StageClock


class Slow(nn.Module):
    """Takes `seconds` on a simulated clock: on a busy machine, a real one would add time spent elsewhere."""

    now = 0.0

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds

    def forward(self, frames: Tensor) -> Tensor:
        Slow.now += self.seconds
        return frames


def test_each_stage_is_timed_by_itself_and_a_reset_starts_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stvsr.evaluation.stage_clock.time.perf_counter", lambda: Slow.now)
    first, second, between = Slow(0.02), Slow(0.08), Slow(0.5)
    clock = StageClock({"first": first, "second": second}, torch.device("cpu"))
    for _ in range(2):
        second(between(first(torch.ones(1))))
    assert clock.seconds == pytest.approx({"first": 0.04, "second": 0.16})
    clock.reset()
    assert clock.seconds == {"first": 0, "second": 0}
