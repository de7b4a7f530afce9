"""The record of a batch: counts, sizes and times, from which the costs of a network are computed."""

import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor

from conftest import Repeat, moving_frames
from stvsr.data.clip_sets import ClipInfo, Excerpt
from stvsr.errors import InvalidInput
from stvsr.evaluation.protocols import Protocol
from stvsr.evaluation.scoring import Scorer
from stvsr.evaluation.shown import ShownClips
from stvsr.evaluation.windows import Windows, plan
from stvsr.models.frame_interpolation.blend import Blend
from stvsr.models.frame_upscaling.bicubic import Bicubic
from stvsr.models.network import Network
from stvsr.models.two_stage import TwoStage

PAUSE = 0.02
"""Seconds that one pass through the slow network takes."""


@dataclass
class Clips:
    """Clips of one window each, of the given sizes; each frame has a black pixel."""

    sizes: list[tuple[int, int]]

    def __len__(self) -> int:
        return len(self.sizes)

    def describe(self, index: int) -> ClipInfo:
        return ClipInfo("set", f"clip{index}", 7, 1, None)

    def excerpt(self, index: int, first: int, count: int) -> Excerpt:
        frames = moving_frames(count, self.sizes[index], seed=index)
        frames[..., 0, 0] = 0
        return Excerpt(hr=frames)

    def files(self, index: int, first: int, count: int) -> list[Path]:
        return []


class SlowBicubic(Bicubic):
    def forward(self, frames: Tensor) -> Tensor:
        time.sleep(PAUSE)
        return super().forward(frames)


class Raising(Repeat):
    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def forward(self, lr: Tensor) -> Tensor:
        raise self.error


class OnePixelThatIsNoNumber(Repeat):
    def forward(self, lr: Tensor) -> Tensor:
        frames = super().forward(lr)
        frames[0, 3, 1, 2, 2] = float("nan")
        return frames


def scorer(network: Network, sizes: list[tuple[int, int]], *batches: range) -> Scorer:
    clips = Clips(sizes)
    tasks = plan(clips, Protocol("paper", True, False))
    return Scorer(
        windows=Windows(clips=clips, tasks=tasks, predictions=None, motion={}, reach=0),
        batches=list(batches),
        network=network.eval(),
        device=torch.device("cpu"),
        extras={},
        shown=ShownClips(folder=Path("unused"), clips=0, tasks=tasks),
        save_to=None,
        workers=0,
    )


def test_a_batch_is_warm_after_one_of_as_many_windows_of_its_size() -> None:
    records = list(scorer(Repeat(), [(16, 24)] * 5, range(2), range(2, 4), range(4, 5)).run([0, 1, 2]))
    assert [record.warm for record in records] == [False, True, False]
    assert [record.network_frames for record in records] == [14, 14, 7]
    assert {record.lr_size for record in records} == {(4, 6)}
    assert not any(black for record in records for window in record.windows for black in window.black)


class Longer(Clips):
    """Clips of two windows each."""

    def describe(self, index: int) -> ClipInfo:
        return ClipInfo("set", f"clip{index}", 13, 1, None)


def test_frames_that_are_made_around_a_window_count_in_the_time_of_each() -> None:
    """Otherwise networks that look beyond the window would seem slower per frame than they are."""
    scoring, clips = scorer(Repeat(), [(16, 24)], range(1)), Longer([(16, 24)])
    tasks = plan(clips, Protocol("paper", True, False))
    scoring.windows = Windows(clips=clips, tasks=tasks, predictions=None, motion={}, reach=1)
    (record,) = scoring.run([0])
    assert record.network_frames == 9


def test_times_are_those_of_all_passes_of_a_batch_and_of_no_other_batch() -> None:
    """Each batch holds two frame sizes, and so needs two passes."""
    slow = TwoStage(interpolator=Blend(), upscaler=SlowBicubic())
    scoring = scorer(slow, [(16, 24), (24, 16)] * 2, range(2), range(2, 4))
    started = time.perf_counter()
    records = list(scoring.run([0, 1]))
    whole = time.perf_counter() - started
    for record in records:
        assert 2 * PAUSE <= sum(record.stage_seconds.values()) <= record.network_seconds
    assert sum(r.network_seconds + r.scoring_seconds + r.waiting_seconds for r in records) <= whole


def test_an_answer_with_one_pixel_that_is_no_number_is_refused() -> None:
    with pytest.raises(InvalidInput, match="clip clip0: the network's output is not finite"):
        list(scorer(OnePixelThatIsNoNumber(), [(16, 24)], range(1)).run([0]))


def test_one_window_that_is_too_large_cannot_be_helped_by_a_smaller_batch() -> None:
    says = r"has too little memory for 1 window\(s\) of 6x4 LR pixels at once; choose a machine with more"
    with pytest.raises(InvalidInput, match=says):
        list(scorer(Raising(torch.OutOfMemoryError("CUDA out of memory")), [(16, 24)], range(1)).run([0]))


def test_a_metric_that_cannot_measure_frames_so_small_is_named() -> None:
    def perceptual(prediction: Tensor, target: Tensor, before: Tensor) -> list[float]:
        raise RuntimeError("Output size is too small")

    scoring = scorer(Repeat(), [(16, 24)], range(1))
    scoring.extras = {"lpips": perceptual}
    with pytest.raises(InvalidInput, match=r"extras=\[lpips\]: cannot measure frames of 24x16 \(Output size is too"):
        list(scoring.run([0]))


def test_a_bug_of_a_network_is_not_taken_for_a_lack_of_memory() -> None:
    with pytest.raises(RuntimeError, match="sizes do not match"):
        list(scorer(Raising(RuntimeError("sizes do not match")), [(16, 24)], range(1)).run([0]))
