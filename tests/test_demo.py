"""The demo says honestly how the network compares, and leaves what it says it leaves."""

from pathlib import Path

import pytest

from conftest import SMALL_RUN
from stvsr.demo import as_comparison, demo
from stvsr.evaluation.rows import Row


def row(psnr: float, motion: str = "slow") -> Row:
    return Row("synthetic", motion, 10, 70, 0, 0, "", {"psnr_y": psnr, "ssim_y": 0.7})


def test_a_network_that_is_behind_is_said_to_be_behind() -> None:
    text = as_comparison([row(26.0), row(19.0, "fast")], [row(25.0), row(20.0, "fast")])
    assert "does not beat bicubic + blending on: fast." in text
    assert "26.00" in text
    assert "20.00" in text


def test_a_network_that_is_ahead_is_not_called_a_result() -> None:
    assert "not a result" in as_comparison([row(26.0)], [row(25.0)])


def test_demo_trains_scores_and_shows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    small = [o for o in SMALL_RUN if "max_steps" not in o and "interval" not in o]
    demo(tmp_path, [*small, "ablation=a", "trainer.max_steps=2", "trainer.val_check_interval=2"], test_clips=3)
    said = capsys.readouterr().out
    for name in (
        "comparison.png",
        "train/checkpoints/last.ckpt",
        "network/results.json",
        "bicubic_blend/clips.csv",
        "report.html",
    ):
        assert (tmp_path / name).is_file()
    assert str(tmp_path / "comparison.png") in said
    assert "does not beat" in said
