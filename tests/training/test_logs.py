"""What CSV logs show of a run: its curve, and its minutes if speed was measured."""

from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from stvsr.tracking import CLIPS_PER_SECOND, MONITORED
from stvsr.training.logs import read_logs


def logged(folder: Path, *rows: str, steps: int) -> DictConfig:
    """The config of a run, in batches of six clips, that logged these rows: step, clips per second, validation."""
    (folder / "csv").mkdir()
    log = "\n".join([f"step,{CLIPS_PER_SECOND},{MONITORED}", *rows, ""])
    (folder / "csv" / "metrics.csv").write_text(log, encoding="utf-8")
    return OmegaConf.create({"output_dir": str(folder), "trainer": {"max_steps": steps}, "loader": {"batch_size": 6}})


def test_minutes_are_of_all_steps_those_after_the_last_entry_too(tmp_path: Path) -> None:
    training = logged(tmp_path, "49,0.1,", "79,,21.5", steps=80)
    assert read_logs(training) == ([(80, 21.5)], pytest.approx(80))


def test_slower_steps_take_more_of_the_minutes(tmp_path: Path) -> None:
    training = logged(tmp_path, "49,0.1,", "99,0.2,", steps=100)
    assert read_logs(training) == ([], pytest.approx(75))


def test_a_run_that_measured_no_speed_has_no_minutes(tmp_path: Path) -> None:
    """Zero would look like a measurement."""
    assert read_logs(logged(tmp_path, "9,,20.0", steps=10)) == ([(10, 20.0)], None)
