"""Means per motion split: which clips count, how splits weigh, and that tables say it."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from stvsr.evaluation.metrics import psnr_y, ssim_y
from stvsr.evaluation.scores import ClipScore, MotionSplitScores, score_clips
from stvsr.evaluation.tables import as_text, summarise, write_results

A = ClipScore("a", "slow", 7, 30.0, 0.9, 32.0, 28.0)
B = replace(A, name="b", psnr_y=34.0, ssim_y=0.8)
C = replace(A, name="c", motion="fast", psnr_y=20.0, ssim_y=0.5)
BLACK = replace(A, name="black", psnr_y=float("inf"), ssim_y=1.0)


def test_a_clip_scores_the_mean_of_its_frames_and_its_given_and_synthesised_frames_apart() -> None:
    target = (torch.rand(2, 7, 3, 16, 16) * 255).round() / 255
    prediction = target + torch.linspace(0.01, 0.1, 7).view(1, 7, 1, 1, 1) * torch.randn_like(target)
    first, second = score_clips(prediction, target, ["x", "y"], ["slow", "fast"])
    psnr, ssim = psnr_y(prediction, target), ssim_y(prediction, target)
    assert (second.name, second.motion, second.frames) == ("y", "fast", 7)
    assert second.psnr_y == pytest.approx(psnr[1].mean().item())
    assert second.ssim_y == pytest.approx(ssim[1].mean().item())
    assert first.psnr_y_given == pytest.approx(psnr[0, [0, 2, 4, 6]].mean().item())
    assert first.psnr_y_synthesised == pytest.approx(psnr[0, [1, 3, 5]].mean().item())


def test_splits_are_means_over_clips_and_their_mean_weighs_them_equally() -> None:
    metric = MotionSplitScores()
    metric.update([A, C])
    metric.update([B, BLACK])
    result = {name: value.item() for name, value in metric.compute().items()}
    assert result == pytest.approx(
        {
            "psnr/slow": 32.0,
            "psnr/fast": 20.0,
            "psnr/mean": 26.0,
            "ssim/slow": 0.85,
            "ssim/fast": 0.5,
            "ssim/mean": 0.675,
        }
    )
    metric.reset()
    assert metric.compute() == {}


def test_table_and_metric_agree() -> None:
    scores = [A, B, C, BLACK]
    metric = MotionSplitScores()
    metric.update(scores)
    rows = {row.name: row for row in summarise(scores)}
    for name, value in metric.compute().items():
        kind, split = name.split("/")
        assert getattr(rows[split], f"{kind}_y") == pytest.approx(value.item())


def test_table_counts_what_it_measured_and_what_it_left_out() -> None:
    rows = {row.name: row for row in summarise([A, B, C, BLACK])}
    assert list(rows) == ["slow", "fast", "mean"]
    assert (rows["slow"].clips, rows["slow"].frames, rows["slow"].left_out) == (2, 14, 1)
    assert (rows["mean"].clips, rows["mean"].frames, rows["mean"].left_out) == (3, 21, 1)
    assert "left out: 1 clip(s) with infinite PSNR" in as_text(list(rows.values()))


def test_one_split_has_no_mean_row() -> None:
    assert [row.name for row in summarise([replace(A, motion="all")])] == ["all"]


def test_written_tables_hold_the_rows_and_the_clips(tmp_path: Path) -> None:
    rows = summarise([A, B, C])
    write_results(tmp_path / "new", rows, [A, B, C])
    written = json.loads((tmp_path / "new" / "results.json").read_text())
    assert written["rows"][0]["name"] == "slow"
    assert written["rows"][0]["psnr_y"] == 32.0
    assert "BT.601" in written["protocol"]
    with (tmp_path / "new" / "results.csv").open() as file:
        assert [float(row["psnr_y"]) for row in csv.DictReader(file)] == [32.0, 20.0, 26.0]
    with (tmp_path / "new" / "clips.csv").open() as file:
        assert [row["name"] for row in csv.DictReader(file)] == ["a", "b", "c"]
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [
        "clips.csv",
        "results.csv",
        "results.json",
    ]
