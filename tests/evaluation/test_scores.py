"""Scores of windows combined into clips: which frames count, which split, what is left out and why."""

import pytest

from stvsr.data.clip_sets import ClipInfo
from stvsr.data.motion_measure import MotionThresholds
from stvsr.evaluation.protocols import Protocol
from stvsr.evaluation.scores import WindowScore, clip_scores
from stvsr.evaluation.windows import Task

PAPER, RELEASED = Protocol("paper", True, False), Protocol("released", False, False)
THRESHOLDS = MotionThresholds(1.5, 4.0)


def tasks(frames: int, protocol: Protocol = PAPER, motion: str | None = None) -> list[Task]:
    info = ClipInfo("set", "clip", frames, 1, motion)
    return [Task(0, info, window, info.name) for window in protocol.windows(info)]


def score(position: int, task: Task, value: float = 30.0, **changes: object) -> WindowScore:
    count = len(task.numbers)
    arguments = {
        "metrics": {"psnr_y": [value + number for number in task.numbers], "ssim_y": [0.9] * count},
        "motion": [None if number == 1 else 2.0 for number in task.numbers],
        "pairs": [None if number == 1 else str(number) for number in task.numbers],
        "black": [False] * count,
        "size": (48, 32),
        "interruption": None,
    }
    return WindowScore(position=position, **(arguments | changes))  # type: ignore[arg-type]


def test_frames_come_in_order_with_their_numbers_and_kinds() -> None:
    plan = tasks(10)
    windows = [score(position, task) for position, task in enumerate(plan)]
    (clip,) = clip_scores(plan, reversed(windows), THRESHOLDS)
    assert [frame.number for frame in clip.frames] == list(range(1, 11))
    # The second window is moved back to frame 4: frames 4, 6, 8, 10 are given, and 8, 9, 10 count.
    assert [frame.number for frame in clip.frames if frame.given] == [1, 3, 5, 7, 8, 10]
    assert clip.mean("psnr_y", "") == pytest.approx(30 + 5.5)
    assert clip.mean("psnr_y", "_given") == pytest.approx(30 + 34 / 6)
    assert clip.mean("psnr_y", "_synthesised") == pytest.approx(30 + (2 + 4 + 6 + 9) / 4)
    assert clip.left_out is None
    assert clip.uncounted == {}


@pytest.mark.parametrize(("known", "split"), [(None, "medium"), ("fast", "fast")])
def test_the_split_is_what_the_data_tells_or_what_was_measured(known: str | None, split: str) -> None:
    plan = tasks(7, motion=known)
    (clip,) = clip_scores(plan, [score(0, plan[0])], THRESHOLDS)
    assert clip.split == split
    assert clip.motion == 2.0


def test_the_tail_that_released_does_not_cover_is_counted_as_left_out() -> None:
    plan = tasks(10, RELEASED)
    (clip,) = clip_scores(plan, [score(0, plan[0])], THRESHOLDS)
    assert len(clip.frames) == 7
    assert clip.uncounted == {"not covered by the protocol's windows": 3}


def test_an_interrupted_window_is_left_out_with_its_reason() -> None:
    plan = tasks(13)
    windows = [score(0, plan[0]), score(1, plan[1], metrics={}, black=[], interruption="scene cut")]
    (clip,) = clip_scores(plan, windows, THRESHOLDS)
    assert [frame.number for frame in clip.frames] == list(range(1, 8))
    assert clip.uncounted == {"scene cut": 6}
    jump = score(1, plan[1], metrics={}, black=[], interruption="scene cut", motion=[90.0] * 6)
    assert clip_scores(plan, [windows[0], jump], THRESHOLDS)[0].motion == 2.0, "a cut is no motion"
    nothing = [score(i, task, metrics={}, black=[], interruption="scene cut") for i, task in enumerate(plan)]
    assert clip_scores(plan, nothing, THRESHOLDS)[0].left_out == "no frame counts: scene cut"


@pytest.mark.parametrize(
    ("black", "reason"),
    [([True] * 7, "all black"), ([False] * 7, "infinite PSNR"), ([True, *[False] * 6], "infinite PSNR")],
    ids=["all", "none", "the first"],
)
def test_a_clip_with_infinite_psnr_is_left_out(black: list[bool], reason: str) -> None:
    """A clip that only begins with black is not all black."""
    plan = tasks(7)
    window = score(0, plan[0], value=float("inf"), black=black)
    assert clip_scores(plan, [window], THRESHOLDS)[0].left_out == reason


def test_what_is_cut_to_whole_lr_pixels_is_said() -> None:
    plan = tasks(7)
    assert clip_scores(plan, [score(0, plan[0], size=(49, 35))], THRESHOLDS)[0].cropped == "49x35 to 48x32"
    assert clip_scores(plan, [score(0, plan[0])], THRESHOLDS)[0].cropped == ""
