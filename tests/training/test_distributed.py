"""Two processes with half the batch each compute what one process computes with the whole."""

import csv
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig

from conftest import SMALL_RUN
from stvsr.config import CONFIG_DIR
from stvsr.train import train

DUMP = """
from pathlib import Path
import pytorch_lightning as pl
import torch

class DumpGradients(pl.Callback):
    def __init__(self, *, path):
        self.path = Path(path)

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        gradients = {name: p.grad.clone() for name, p in pl_module.named_parameters()}
        torch.save(gradients, self.path / f"step{trainer.global_step}_rank{trainer.global_rank}.pt")
"""


def run(folder: Path, *overrides: str, flags: tuple[str, ...] = (), status: int = 0) -> str:
    """Runs the real command in a process of its own and returns its standard error."""
    (folder / "gradient_dump.py").write_text(DUMP)
    small = [*SMALL_RUN, "ablation=a", f"output_dir={folder}/run"]
    command = [sys.executable, "-m", "stvsr.train", *flags, *small, *overrides]
    environment = os.environ | {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert result.returncode == status, result.stderr[-3000:]
    return result.stderr


def validated(folder: Path) -> dict[str, float]:
    """The PSNR of each split at the end of a run."""
    with (folder / "run/csv/metrics.csv").open(newline="") as file:
        (row,) = (row for row in csv.DictReader(file) if row["val/psnr/mean"])
    return {split: float(row[f"val/psnr/{split}"]) for split in ("slow", "medium", "fast", "mean")}


def test_two_processes_have_the_gradients_and_the_validation_of_one(
    small_run: Callable[..., DictConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def settings(folder: Path) -> list[str]:
        return [
            "trainer.max_steps=2",
            "trainer.val_check_interval=2",
            "loader.batch_size=4",
            # One clip of each split per process.
            "data.val_source.clips=6",
            "trainer.precision=64-true",
            "+callbacks.dump._target_=gradient_dump.DumpGradients",
            f"+callbacks.dump.path='{folder}'",
        ]

    one, two = tmp_path / "1", tmp_path / "2"
    for folder in (one, two):
        folder.mkdir()
    run(two, "trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", *settings(two))
    # In this process, as starting another would take longer than the training.
    monkeypatch.syspath_prepend(two)
    train(small_run(*settings(one), folder="1/run"))

    whole, shared, other = (
        torch.load(folder / f"step0_rank{rank}.pt") for folder, rank in ((one, 0), (two, 0), (two, 1))
    )
    assert all(torch.equal(shared[name], other[name]) for name in other)
    expected, ours = (torch.cat([g.flatten() for g in gradients.values()]).double() for gradients in (whole, shared))
    difference = ((ours - expected).norm() / expected.norm()).item()
    print(f"relative difference of the gradients: {difference:.1e}")
    # float64, because in float32 rounding depends on the batch size, and the loss is steep where errors are below its
    # epsilon: the difference is 3e-5 there. With a mean in place of the sum, it would be a half.
    assert difference < 1e-5
    assert validated(two) == pytest.approx(validated(one), abs=1e-3)


@pytest.mark.slow
def test_a_sweep_of_distributed_runs_keeps_each_run_in_its_folder(tmp_path: Path) -> None:
    """All processes also find custom configs."""
    for folder, group, name in (("here", "optimizer", "adam"), ("there", "scheduler", "cosine_restarts")):
        (tmp_path / folder / group).mkdir(parents=True)
        shutil.copy(CONFIG_DIR / group / f"{name}.yaml", tmp_path / folder / group / "mine.yaml")
    run(
        tmp_path,
        "optimizer=mine",
        f"hydra.searchpath=[file://{tmp_path}/there]",
        "scheduler=mine",
        "ablation=a,b",
        "trainer=ddp",
        "trainer.accelerator=cpu",
        "trainer.devices=2",
        "trainer.max_steps=2",
        "trainer.val_check_interval=2",
        flags=("--multirun", "--config-dir", f"{tmp_path}/here"),
    )
    runs = sorted(path.name for path in (tmp_path / "run").iterdir() if path.is_dir())
    assert runs == ["0-a", "1-b"]
    for name in runs:
        assert (tmp_path / "run" / name / "checkpoints/last.ckpt").is_file()
        # One process writes the log; if the other ran the sweep again, rows would appear twice.
        rows = (tmp_path / "run" / name / "csv/metrics.csv").read_text().splitlines()
        assert len(rows) == len(set(rows))


@pytest.mark.slow
def test_a_distributed_run_that_fails_ends_its_sweep_with_a_line_and_leaves_no_process(tmp_path: Path) -> None:
    """A leftover process would keep standard error open, and this test would time out."""
    processes = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "data.val_source.clips=1"]
    error = run(tmp_path, "ablation=a,b", *processes, flags=("--multirun",), status=1)
    assert "error: 1 clip(s) to validate on for 2 processes" in error
    assert "error: job 0 failed; its run has several processes, so the sweep ends here" in error.splitlines()[-1]
    assert not (tmp_path / "run" / "1-b").exists()
