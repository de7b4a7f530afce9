"""The report of a sweep compares what that sweep scored; a failure to make it is reported."""

import os
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from stvsr.evaluation import sweep
from stvsr.evaluation.results import RESULTS
from stvsr.files import write_text


def config(folder: Path) -> DictConfig:
    return OmegaConf.create({"hydra": {"sweep": {"dir": str(folder)}}})


def leave_results(folder: Path, job: str, content: str = "{}") -> None:
    (folder / job).mkdir(parents=True, exist_ok=True)
    write_text(folder / job / RESULTS, content)


def test_only_results_of_this_sweep_are_compared_in_the_order_of_its_jobs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[Path] = []

    class Table:
        def as_text(self) -> str:
            return ""

    def report(folder: Path, runs: list[Path]) -> Table:
        compared.extend(runs)
        return Table()

    monkeypatch.setattr(sweep, "write_report", report)
    for job in ("0", "1", "2"):
        leave_results(tmp_path, job)
    callback = sweep.SweepReport()
    callback.on_multirun_start(config(tmp_path))
    # "2" is rewritten with the same content; "10" is new.
    for job in ("10", "2"):
        leave_results(tmp_path, job)
    # Sets another modification time: the file system's clock may be too coarse to give it one.
    os.utime(tmp_path / "2" / RESULTS, ns=(0, 1))
    callback.on_multirun_end(config(tmp_path))
    assert [path.name for path in compared] == ["2", "10"]


def test_a_report_that_cannot_be_made_is_one_line_and_an_exit_status(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Hydra by itself would only warn, and exit with status 0."""
    leave_results(tmp_path, "0")
    with pytest.raises(SystemExit) as stop:
        sweep.SweepReport().on_multirun_end(config(tmp_path))
    assert stop.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {tmp_path / '0' / RESULTS}: not the results of this version")


def test_a_bug_in_the_report_keeps_its_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def faulty(*arguments: Any) -> None:
        raise KeyError("oops")

    monkeypatch.setattr(sweep, "write_report", faulty)
    leave_results(tmp_path, "0")
    with pytest.raises(SystemExit) as stop:
        sweep.SweepReport().on_multirun_end(config(tmp_path))
    assert stop.value.code == 1
    assert "Traceback" in capsys.readouterr().err
