"""A row for each split and one for all: means by the protocol, what counted, what was left out and why."""

from dataclasses import replace

import pytest

from stvsr.data.clip_sets import ClipInfo
from stvsr.evaluation.protocols import Protocol
from stvsr.evaluation.rows import Row, summarise
from stvsr.evaluation.scores import ClipScore, FrameScore

PAPER, RSTT = Protocol("paper", True, False), Protocol("rstt", True, True)


def clip(name: str, split: str, psnr: float, left_out: str | None = None, clip_set: str = "set") -> ClipScore:
    frames = [
        FrameScore(i, i % 2 == 0, {"psnr_y": psnr + i, "ssim_y": 0.5, "psnr_rgb": psnr - 1}, 1.0) for i in range(7)
    ]
    return ClipScore(ClipInfo(clip_set, name, 7, 0, None), split, 1.0, frames, {}, "", left_out)


CLIPS = [clip("x/a", "slow", 30.0), clip("x/b", "slow", 32.0), clip("y/c", "fast", 20.0)]


def test_rows_are_the_splits_that_occur_and_all() -> None:
    rows = summarise(CLIPS, PAPER)
    assert [row.name for row in rows] == ["set/slow", "set/fast", "set/all"]
    assert [(row.clips, row.frames) for row in rows] == [(2, 14), (1, 7), (3, 21)]
    slow, _, every = rows
    assert slow.scores["psnr_y"] == pytest.approx(34.0)
    assert slow.scores["psnr_y_given"] == pytest.approx(34.0)
    assert slow.scores["frames_given"] == 8
    assert slow.scores["frames_synthesised"] == 6
    assert slow.scores["psnr_rgb"] == pytest.approx(30.0)
    assert every.scores["psnr_y"] == pytest.approx((33 + 35 + 23) / 3)


def test_further_metrics_are_told_from_the_three_and_from_counts() -> None:
    frames = [
        FrameScore(i, i % 2 == 0, {"psnr_y": 30.0, "ssim_y": 0.5, "psnr_rgb": 29.0, "vmaf": 80.0}, 1.0) for i in (0, 1)
    ]
    every = summarise([replace(CLIPS[0], frames=frames)], PAPER)[-1]
    assert every.metrics == ["psnr_y", "ssim_y", "psnr_rgb", "vmaf"]
    assert every.extras == ["vmaf"]


def test_folder_means_weigh_folders() -> None:
    every = summarise(CLIPS, RSTT)[-1]
    assert every.scores["psnr_y"] == pytest.approx((34 + 23) / 2)


def test_what_is_left_out_is_counted_and_explained() -> None:
    black = clip("x/black", "slow", float("inf"), left_out="all black")
    row = summarise([*CLIPS, black], PAPER)[0]
    assert (row.clips, row.clips_left_out, row.left_out) == (2, 1, "1 clip: all black")
    assert row.scores["psnr_y"] == pytest.approx(34.0)


def test_a_split_of_which_nothing_counts_has_a_row_without_scores() -> None:
    (slow, every) = summarise([clip("a", "slow", float("inf"), left_out="infinite PSNR")], PAPER)
    assert (slow.clips, slow.frames, slow.clips_left_out) == (0, 0, 1)
    assert slow.scores["psnr_y"] is None
    assert every.left_out == "1 clip: infinite PSNR"


def test_every_row_has_the_same_columns_whatever_counts_in_it() -> None:
    counted = clip("a", "fast", 30.0)
    for frame in counted.frames:
        frame.metrics["lpips"] = 0.1
    black = clip("b", "slow", float("inf"), left_out="all black")
    for frame in black.frames:
        frame.metrics["lpips"] = 0.0
    assert len({tuple(row.as_record()) for row in summarise([black, counted], PAPER)}) == 1


def test_each_clip_set_has_rows_of_its_own() -> None:
    rows = summarise([clip("a", "slow", 30.0, clip_set="A"), clip("a", "slow", 20.0, clip_set="B")], PAPER)
    assert [row.name for row in rows] == ["A/slow", "A/all", "B/slow", "B/all"]


def test_a_row_survives_its_record() -> None:
    for row in summarise(CLIPS, PAPER):
        assert Row.from_record(row.as_record()) == row
    record = summarise(CLIPS, PAPER)[0].as_record()
    for column in ("name", "clips", "frames", "psnr_y", "ssim_y", "psnr_rgb", "psnr_y_given", "psnr_y_synthesised"):
        assert column in record
