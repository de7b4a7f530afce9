"""What a run logs, and that damaged clips are named and counted without ending it."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig

from stvsr.data.synthetic import SyntheticScenes
from stvsr.errors import DamagedClip
from stvsr.train import train


def logged(folder: Path) -> dict[str, list[float]]:
    columns: dict[str, list[float]] = {}
    with (folder / "csv/metrics.csv").open() as file:
        for row in csv.DictReader(file):
            for name, value in row.items():
                if value:
                    columns.setdefault(name, []).append(float(value))
    return columns


def test_a_run_logs_what_dashboards_show(small_run: Callable[..., DictConfig], tmp_path: Path) -> None:
    metrics = train(small_run())
    columns = logged(tmp_path / "run")
    splits = ("slow", "medium", "fast", "mean")
    expected = {f"val/{metric}/{split}" for metric in ("psnr", "ssim") for split in splits}
    expected |= {f"train/{name}" for name in ("loss", "learning_rate", "offset_magnitude", "clips_per_second")}
    assert expected <= columns.keys()
    assert columns["train/learning_rate"][0] == pytest.approx(4e-4)
    # Zero before the first step, when offsets start on the grid, and not after it.
    assert columns["train/offset_magnitude"][0] == 0
    assert columns["train/offset_magnitude"][-1] > 0
    assert all(rate > 0 for rate in columns["train/clips_per_second"])
    mean = sum(metrics[f"val/psnr/{split}"] for split in splits[:3]) / 3
    assert metrics["val/psnr/mean"] == pytest.approx(mean, rel=1e-6)


def test_a_run_leaves_checkpoints_and_pictures(small_run: Callable[..., DictConfig], tmp_path: Path) -> None:
    train(small_run())
    assert sorted(path.name for path in (tmp_path / "run/checkpoints").iterdir()) == [
        "best.ckpt",
        "last.ckpt",
    ]
    assert [path.name for path in (tmp_path / "run/pictures").iterdir()] == ["step0000004_0.png"]


def test_there_is_no_validation_before_the_first_step(small_run: Callable[..., DictConfig], tmp_path: Path) -> None:
    """It would take part in choosing the best checkpoint."""
    train(small_run("+trainer.num_sanity_val_steps=1"))
    assert len(logged(tmp_path / "run")["val/psnr/mean"]) == 1
    assert [path.name for path in (tmp_path / "run/pictures").iterdir()] == ["step0000004_0.png"]


def test_damaged_clips_are_named_and_counted_and_do_not_end_the_run(
    small_run: Callable[..., DictConfig], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    whole_read = SyntheticScenes.read

    def read(self: SyntheticScenes, index: int, rng: Any) -> Any:
        if len(self) == 4 and index == 2:
            raise DamagedClip("im3.png is damaged")
        return whole_read(self, index, rng)

    monkeypatch.setattr(SyntheticScenes, "read", read)
    with pytest.warns(UserWarning, match=r"damaged clip skipped \(1 so far\): im3\.png is damaged"):
        metrics = train(small_run("data.train_source.clips=4"))
    assert metrics["train/damaged_clips"] == 2
    checkpoint = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)
    assert checkpoint["callbacks"]["DamagedClips"] == {"count": 2}


def test_wandb_gets_the_metrics_offline_and_best_as_summary(
    small_run: Callable[..., DictConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import wandb

    defined: dict[str, Any] = {}
    original = wandb.sdk.wandb_run.Run.define_metric

    def spy(self: Any, name: str, **arguments: Any) -> Any:
        defined[name] = arguments.get("summary")
        return original(self, name, **arguments)

    monkeypatch.setattr(wandb.sdk.wandb_run.Run, "define_metric", spy)
    summary: dict[str, Any] = {}
    finish = wandb.finish

    def read_and_finish(exit_code: int) -> None:
        assert wandb.run is not None
        summary.update(wandb.run.summary)
        finish(exit_code=exit_code)

    monkeypatch.setattr(wandb, "finish", read_and_finish)
    monkeypatch.setenv("WANDB_SILENT", "true")
    train(small_run("logger=wandb"))
    assert wandb.run is None, "the next run of a sweep would go on in this one"
    assert {defined[f"val/psnr/{split}"] for split in ("slow", "medium", "fast", "mean")} == {"max"}
    assert summary["val/psnr/mean"]["max"] > 0
    assert list((tmp_path / "run/wandb").glob("offline-run-*"))
