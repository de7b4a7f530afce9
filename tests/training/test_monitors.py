"""What a run logs, and that damaged clips are named and counted without ending it."""

import csv
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import wandb
from omegaconf import DictConfig
from torch import Tensor, nn

from stvsr.data.synthetic import SyntheticScenes
from stvsr.errors import DamagedClip
from stvsr.train import train
from stvsr.training import losses, module
from stvsr.training.monitors import DamagedClips, Monitor, Pictures


def logged(folder: Path) -> dict[str, list[float]]:
    columns: dict[str, list[float]] = {}
    with (folder / "csv/metrics.csv").open() as file:
        for row in csv.DictReader(file):
            for name, value in row.items():
                if value:
                    columns.setdefault(name, []).append(float(value))
    return columns


def test_a_run_logs_what_dashboards_show(small_run: Callable[..., DictConfig], tmp_path: Path) -> None:
    metrics = train(small_run("ablation=e"))
    columns = logged(tmp_path / "run")
    splits = ("slow", "medium", "fast", "mean")
    expected = {f"val/{metric}/{split}" for metric in ("psnr", "ssim") for split in splits}
    expected |= {f"train/{name}" for name in ("loss", "learning_rate", "offset_magnitude", "clips_per_second")}
    assert expected <= columns.keys()
    assert columns["train/learning_rate"][0] == pytest.approx(4e-4)
    # Offsets start on the grid, so they are zero until the first step changes them.
    assert columns["train/offset_magnitude"][0] == 0
    assert columns["train/offset_magnitude"][-1] > 0
    mean = sum(metrics[f"val/psnr/{split}"] for split in splits[:3]) / 3
    assert metrics["val/psnr/mean"] == pytest.approx(mean, rel=1e-6)


def test_clips_per_second_are_those_of_training_alone(
    small_run: Callable[..., DictConfig], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    clock = SimpleNamespace(now=0.0)
    clock.monotonic = lambda: clock.now
    loss_of_step = module.loss_in_micro_batches

    def half_a_second(*arguments: Any) -> Tensor:
        clock.now += 0.5
        return loss_of_step(*arguments)

    def a_minute(*arguments: Any) -> None:
        clock.now += 60

    monkeypatch.setattr("stvsr.training.monitors.time", clock)
    monkeypatch.setattr(module, "loss_in_micro_batches", half_a_second)
    monkeypatch.setattr(Pictures, "on_validation_batch_end", a_minute)
    train(small_run("trainer.log_every_n_steps=2", "trainer.val_check_interval=2"))
    # Logged twice: two steps of two clips took one second.
    assert logged(tmp_path / "run")["train/clips_per_second"] == [4.0, 4.0]


def test_the_loss_is_logged_for_each_value_of_a_frame(
    small_run: Callable[..., DictConfig], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """So that runs with different batch and crop sizes can be compared."""
    charbonnier, differences = losses.charbonnier, []

    def watched(prediction: Tensor, target: Tensor) -> Tensor:
        differences.append((prediction - target).detach().flatten().double())
        return charbonnier(prediction, target)

    monkeypatch.setattr(losses, "charbonnier", watched)
    train(small_run("trainer.max_steps=1", "trainer.val_check_interval=1"))
    expected = (torch.cat(differences).square() + 1e-6).sqrt().mean().item()
    assert logged(tmp_path / "run")["train/loss"] == [pytest.approx(expected, rel=1e-5)]


def test_a_run_leaves_checkpoints_and_pictures_and_is_not_validated_before_the_first_step(
    small_run: Callable[..., DictConfig], tmp_path: Path
) -> None:
    """That validation would take part in choosing the best checkpoint."""
    train(small_run("+trainer.num_sanity_val_steps=1", "callbacks.pictures.clips=1"))
    assert sorted(path.name for path in (tmp_path / "run/checkpoints").iterdir()) == [
        "best.ckpt",
        "last.ckpt",
    ]
    assert [path.name for path in (tmp_path / "run/pictures").iterdir()] == ["step0000004_0.png"]
    assert len(logged(tmp_path / "run")["val/psnr/mean"]) == 1


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
    assert checkpoint["callbacks"]["DamagedClips"] == {"count": 2, "met": []}


def test_wandb_gets_the_metrics_offline_and_best_as_summary(
    small_run: Callable[..., DictConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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


def at(step: int) -> Any:
    """A trainer at `step` of five steps, which logs every second one."""
    return SimpleNamespace(global_step=step, max_steps=5, log_every_n_steps=2, world_size=1)


def test_a_damaged_clip_is_named_once_and_counted_each_time_that_of_the_last_step_too() -> None:
    damaged, logged = DamagedClips(), {}
    trained = SimpleNamespace(log=lambda name, value: logged.update({name: value}))

    def train_on(clips: dict[int, str]) -> None:
        for step, clip in clips.items():
            damaged.on_train_batch_end(at(step), trained, None, SimpleNamespace(skipped=[clip]), step)

    with pytest.warns(UserWarning, match="damaged clip skipped") as said:
        train_on({1: "a", 2: "a", 4: "a", 5: "b"})
    assert [str(warning.message).split(": ")[1] for warning in said] == ["a", "b"]
    assert logged == {"train/damaged_clips": 4.0}


def test_a_damaged_clip_met_since_the_last_log_is_counted_after_a_stop() -> None:
    before, after, logged = DamagedClips(), DamagedClips(), {}
    before.on_train_batch_end(at(1), None, None, SimpleNamespace(skipped=["a"]), 1)
    after.load_state_dict(before.state_dict())
    trained = SimpleNamespace(log=lambda name, value: logged.update({name: value}))
    with pytest.warns(UserWarning, match="damaged clip skipped.*: a"):
        after.on_train_batch_end(at(2), trained, None, SimpleNamespace(skipped=[]), 2)
    assert logged == {"train/damaged_clips": 1.0}


def test_of_several_processes_one_counts_what_the_first_had_met(monkeypatch: pytest.MonkeyPatch) -> None:
    """All read the same checkpoint, and would each count them."""
    first, second = DamagedClips(), DamagedClips()
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    for rank, damaged in enumerate((first, second)):
        monkeypatch.setattr(torch.distributed, "get_rank", lambda rank=rank: rank)
        damaged.load_state_dict({"count": 1, "met": ["a"]})
    assert (first.count, first.met, second.count, second.met) == (1, ["a"], 1, [])


def test_the_offset_magnitude_is_the_mean_of_absolute_offsets_since_it_was_last_logged() -> None:
    monitor, logged = Monitor(), []
    trained = SimpleNamespace(log=lambda name, value, **_: logged.append(float(value)) if "offset" in name else None)
    for step, offsets in ((2, [-3.0, 1.0]), (4, [3.0])):
        monitor._since = (0.0, 0)
        monitor._listen(nn.Identity(), None, torch.tensor(offsets))
        monitor.on_train_batch_end(at(step), trained, None, [0], step)
    assert logged == [2, 3]
