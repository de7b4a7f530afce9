"""Checkpoints: a stopped or crashed run resumes as if uninterrupted; the best checkpoint stays the best."""

import csv
import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, open_dict

from conftest import SMALL_RUN, wait_until, with_callback
from stvsr.checkpoint import variant_of
from stvsr.errors import Interrupted, UserError
from stvsr.tracking import MONITORED
from stvsr.train import train
from stvsr.training.checkpoints import BestCheckpoint, lacks_validation, save_whole


def load(path: Path) -> dict[str, Any]:
    checkpoint: dict[str, Any] = torch.load(path, weights_only=True)
    return checkpoint


def read_log(run: Path) -> list[dict[str, str]]:
    with (run / "csv/metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def assert_same_runs(first: Path, second: Path, *, steps: int = 7) -> None:
    """Parameters, the state of Adam and of the schedule, and the best score are the same, bit for bit."""
    ours, theirs = (load(run / "checkpoints/last.ckpt") for run in (first, second))
    assert ours["global_step"] == theirs["global_step"] == steps
    for name, tensor in ours["state_dict"].items():
        assert torch.equal(tensor, theirs["state_dict"][name]), name
    torch.testing.assert_close(ours["optimizer_states"], theirs["optimizer_states"], rtol=0, atol=0)
    assert ours["lr_schedulers"] == theirs["lr_schedulers"]
    assert ours["callbacks"]["BestCheckpoint"] == theirs["callbacks"]["BestCheckpoint"]


class Interrupt(pl.Callback):
    """Sends this process a signal in the middle of a step."""

    def __init__(self, *, step: int, number: int, times: int = 1) -> None:
        self.step, self.number, self.times = step, number, times

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step == self.step - 1:
            for _ in range(self.times):
                signal.raise_signal(self.number)


@pytest.mark.parametrize(
    ("number", "workers"),
    [(signal.SIGINT, 2), pytest.param(signal.SIGTERM, 0, marks=pytest.mark.slow)],
    ids=["ctrl-c", "terminated"],
)
def test_a_run_interrupted_at_an_odd_step_continues_as_if_never_interrupted(
    small_run: Callable[..., DictConfig], tmp_path: Path, number: int, workers: int
) -> None:
    """Validations take place both before and after the stop."""
    overrides = ["trainer.max_steps=5", "trainer.val_check_interval=2", f"loader.workers={workers}", "ablation=e"]
    train(small_run(*overrides, folder="whole"))

    interrupted = small_run(*overrides, folder="parts")
    with pytest.raises(
        Interrupted, match=r"stopped after step 3; give the same command again with resume=.*last\.ckpt"
    ):
        train(with_callback(interrupted, Interrupt, step=3, number=int(number)))
    last = tmp_path / "parts/checkpoints/last.ckpt"
    assert torch.load(last, weights_only=True)["global_step"] == 3

    train(small_run(*overrides, f"resume='{last}'", folder="parts"))
    assert_same_runs(tmp_path / "whole", tmp_path / "parts", steps=5)


ALONE = SimpleNamespace(broadcast=lambda found: found, checkpoint_io=None)


def test_a_save_that_fails_leaves_nothing_and_keeps_the_one_before(tmp_path: Path) -> None:
    def save(path: Path, weights_only: bool) -> None:
        path.write_text("half of it")
        raise OSError(errno.ENOSPC, "No space left on device")

    last = tmp_path / "last.ckpt"
    last.write_text("before")
    with pytest.raises(OSError, match="No space left"):
        save_whole(SimpleNamespace(is_global_zero=True, save_checkpoint=save, strategy=ALONE), last)  # type: ignore[arg-type]
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]
    assert last.read_text() == "before"


def test_a_checkpoint_is_on_the_disk_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a power cut could leave a file without content in place of the previous checkpoint."""
    last, flushed = tmp_path / "last.ckpt", list[tuple[int, bool]]()
    monkeypatch.setattr(os, "fsync", lambda number: flushed.append((os.fstat(number).st_size, last.exists())))
    trainer = SimpleNamespace(
        is_global_zero=True, save_checkpoint=lambda path, weights_only: torch.save({}, path), strategy=ALONE
    )
    save_whole(trainer, last)  # type: ignore[arg-type]
    assert flushed == [(last.stat().st_size, False)]


def test_a_checkpoint_that_nothing_could_read_does_not_replace_the_one_before(tmp_path: Path) -> None:
    """A custom callback or schedule may keep anything in it."""
    last = tmp_path / "last.ckpt"
    last.write_text("before")
    trainer = SimpleNamespace(
        is_global_zero=True,
        save_checkpoint=lambda path, weights_only: torch.save({"own": Path()}, path),
        strategy=ALONE,
    )
    with pytest.raises(UserError, match=r"cannot be saved \(.*PosixPath.*\): a callback, .* turn it into"):
        save_whole(trainer, last)  # type: ignore[arg-type]
    assert last.read_text() == "before"


class Unpicklable(pl.Callback):
    """Has a function in its state, which cannot be pickled."""

    def state_dict(self) -> dict[str, Any]:
        return {"own": lambda step: step}


def test_a_state_that_cannot_be_written_is_told_in_a_line(small_run: Callable[..., DictConfig]) -> None:
    with pytest.raises(UserError, match=r"cannot be saved \(Can't .*lambda.*\): a callback, .* turn it into"):
        train(with_callback(small_run("trainer.max_steps=1"), Unpicklable))


def test_a_mean_of_weights_is_kept_with_the_last_step_and_continues(
    small_run: Callable[..., DictConfig], tmp_path: Path
) -> None:
    """Checkpoints must be saved after custom callbacks have run, or would lack their state of that very step."""

    def averaged(steps: int, folder: str) -> dict[str, Any]:
        config = small_run(f"trainer.max_steps={steps}", "trainer.val_check_interval=10", folder=folder)
        with open_dict(config):
            config.callbacks.mean = {"_target_": "pytorch_lightning.callbacks.EMAWeightAveraging", "decay": 0.5}
        train(config)
        return load(tmp_path / folder / "checkpoints/last.ckpt")

    averaged(2, "parts")
    whole, parts = averaged(4, "whole"), averaged(4, "parts")
    assert whole["averaging_state"]["n_averaged"] == parts["averaging_state"]["n_averaged"] == 4
    assert all(torch.equal(parts["state_dict"][name], tensor) for name, tensor in whole["state_dict"].items())


def test_processes_that_do_not_write_end_with_the_one_that_does(tmp_path: Path) -> None:
    """Otherwise they would wait for it in their next step."""
    strategy = SimpleNamespace(broadcast=lambda found: UserError("Unsupported global: PosixPath"), checkpoint_io=None)
    helper = SimpleNamespace(is_global_zero=False, save_checkpoint=lambda path, weights_only: None, strategy=strategy)
    with pytest.raises(UserError, match="Unsupported global: PosixPath"):
        save_whole(helper, tmp_path / "last.ckpt")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("step", "validated", "owes"), [(4, None, True), (4, 2, True), (4, 4, False), (2, None, False)]
)
def test_the_validation_after_the_last_step_is_owed_until_it_is_made(
    step: int, validated: int | None, owes: bool
) -> None:
    assert lacks_validation(step, validated, max_steps=4, interval=2) is owes
    assert not lacks_validation(step, validated, max_steps=4, interval=3), "none is due after the last step"


def test_signal_handlers_are_given_back(small_run: Callable[..., DictConfig]) -> None:
    before = signal.getsignal(signal.SIGTERM)
    train(small_run("trainer.max_steps=1"))
    assert signal.getsignal(signal.SIGTERM) is before


def test_guards_of_the_config_point_at_the_same_checkpoint(small_run: Callable[..., DictConfig]) -> None:
    callbacks = instantiate(small_run().callbacks)
    assert callbacks.non_finite.last == callbacks.last.path


class Die(pl.Callback):
    """Ends the run as a crash would, before a step."""

    def __init__(self, *, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step == self.step - 1:
            raise RuntimeError("crash")


@pytest.mark.parametrize("step", [3, pytest.param(4, marks=pytest.mark.slow)])
def test_a_run_that_died_continues_from_its_last_validation_without_being_told(
    small_run: Callable[..., DictConfig], tmp_path: Path, step: int
) -> None:
    overrides = ["trainer.max_steps=7", "trainer.val_check_interval=2"]
    train(small_run(*overrides, folder="whole"))
    with pytest.raises(RuntimeError, match="crash"):
        train(with_callback(small_run(*overrides, folder="parts"), Die, step=step))
    saved = load(tmp_path / "parts/checkpoints/last.ckpt")
    assert saved["global_step"] == (step - 1) // 2 * 2
    train(small_run(*overrides, folder="parts"))
    assert_same_runs(tmp_path / "whole", tmp_path / "parts")
    # The first part's log is kept beside the second's.
    assert (tmp_path / "parts/csv/metrics.1.csv").is_file()


@pytest.mark.parametrize(("number", "times"), [(signal.SIGINT, 1), (signal.SIGTERM, 2)], ids=["ctrl-c", "terminated"])
def test_a_run_stopped_at_a_step_that_is_to_be_validated_is_validated_first(
    small_run: Callable[..., DictConfig], tmp_path: Path, number: int, times: int
) -> None:
    """Once resumed, it would not be validated at that step. A cluster may send SIGTERM more than once."""
    config = small_run("trainer.max_steps=4", "trainer.val_check_interval=2")
    with pytest.raises(Interrupted, match="stopped after step 2; give the same command again"):
        train(with_callback(config, Interrupt, step=2, number=int(number), times=times))
    folder = tmp_path / "run/checkpoints"
    last, best = load(folder / "last.ckpt"), load(folder / "best.ckpt")
    assert last["global_step"] == best["global_step"] == 2
    assert last["callbacks"]["BestCheckpoint"] == best["callbacks"]["BestCheckpoint"]


@pytest.mark.parametrize(
    ("step", "saved", "known"),
    [
        (1, 0, "nothing is saved"),
        (4, 2, r"to continue from the last saved step, give the same command again with resume=.*last\.ckpt"),
    ],
)
def test_a_second_ctrl_c_stops_within_the_step_and_says_what_is_saved(
    small_run: Callable[..., DictConfig], tmp_path: Path, step: int, saved: int, known: str
) -> None:
    before = signal.getsignal(signal.SIGINT)
    config = small_run("trainer.max_steps=4", "trainer.val_check_interval=2")
    try:
        with pytest.raises(Interrupted, match=f"stopped at once; {known}"):
            train(with_callback(config, Interrupt, step=step, number=int(signal.SIGINT), times=2))
    finally:
        # After the second signal, Lightning leaves it ignored.
        signal.signal(signal.SIGINT, before)
    last = tmp_path / "run/checkpoints/last.ckpt"
    assert (load(last)["global_step"] if last.is_file() else 0) == saved


class DieInValidation(pl.Callback):
    """Ends the run as a crash would, before the validation after a step."""

    def __init__(self, *, step: int) -> None:
        self.step = step

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.global_step == self.step:
            raise RuntimeError("crash")


def test_a_run_whose_last_validation_failed_is_validated_when_it_is_started_again(
    small_run: Callable[..., DictConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has all its steps, so without this nothing would be done."""

    overrides = ["trainer.max_steps=4", "trainer.val_check_interval=2"]
    whole = train(small_run(*overrides, folder="whole"))
    with pytest.raises(RuntimeError, match="crash"):
        train(with_callback(small_run(*overrides, folder="parts"), DieInValidation, step=4))
    monkeypatch.delattr(DieInValidation, "on_validation_start")
    again = train(with_callback(small_run(*overrides, folder="parts"), DieInValidation, step=4))
    assert again[MONITORED] == whole[MONITORED]
    assert_same_runs(tmp_path / "whole", tmp_path / "parts", steps=4)
    ours, theirs = (load(tmp_path / run / "checkpoints/best.ckpt") for run in ("whole", "parts"))
    assert ours["global_step"] == theirs["global_step"]
    steps = [row["step"] for row in read_log(tmp_path / "parts") if row["val/psnr/mean"]]
    assert steps == [row["step"] for row in read_log(tmp_path / "whole") if row["val/psnr/mean"]][-1:]


@pytest.mark.parametrize("number", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGTERM])
def test_a_signal_to_all_processes_saves_and_exits_with_130(tmp_path: Path, number: int) -> None:
    """A terminal sends SIGINT to the whole process group, loader workers included; a cluster sends SIGTERM."""
    endless = [f"trainer.{name}=100000" for name in ("max_steps", "val_check_interval")]
    arguments = [*SMALL_RUN, "ablation=a", *endless, "loader.workers=2"]
    command = [
        sys.executable,
        "-m",
        "stvsr.train",
        *arguments,
        "callbacks.last.every_steps=5",
        f"output_dir={tmp_path}",
    ]
    last = tmp_path / "checkpoints/last.ckpt"
    with subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE, text=True) as process:
        wait_until(last.exists, process)
        os.killpg(process.pid, number)
        _, error = process.communicate(timeout=120)
    assert process.returncode == 130, error[-2000:]
    assert f"give the same command again with resume={last}" in error
    assert "Traceback" not in error
    assert load(last)["global_step"] >= 5
    assert [path.name for path in last.parent.iterdir()] == ["last.ckpt"]


def test_best_checkpoint_is_that_of_the_best_validation_also_after_resuming(
    small_run: Callable[..., DictConfig], tmp_path: Path
) -> None:
    train(small_run("trainer.max_steps=4", "trainer.val_check_interval=2"))
    folder = tmp_path / "run/checkpoints"
    last = load(folder / "last.ckpt")
    assert last["callbacks"]["BestCheckpoint"] == load(folder / "best.ckpt")["callbacks"]["BestCheckpoint"]
    # No later validation reaches this score: the resumed run, in another folder, must remember it.
    last["callbacks"]["BestCheckpoint"]["best"] = 99.0
    torch.save(last, tmp_path / "better.ckpt")
    resumed = ["trainer.max_steps=6", "trainer.val_check_interval=2", f"resume='{tmp_path}/better.ckpt'"]
    train(small_run(*resumed, folder="other"))
    assert load(tmp_path / "other/checkpoints/last.ckpt")["callbacks"]["BestCheckpoint"]["best"] == 99.0
    assert not (tmp_path / "other/checkpoints/best.ckpt").exists()


@pytest.mark.parametrize("metrics", [{}, {MONITORED: torch.tensor(torch.nan)}], ids=["absent", "nan"])
def test_a_validation_without_a_finite_score_is_no_best_one(metrics: dict[str, torch.Tensor], tmp_path: Path) -> None:
    """The score is absent if no clip counts."""
    best = BestCheckpoint(path=f"{tmp_path}/best.ckpt")
    best.on_validation_end(SimpleNamespace(callback_metrics=metrics), None)  # type: ignore[arg-type]
    assert not any(tmp_path.iterdir())


def test_a_stop_that_comes_too_late_for_the_last_step_ends_a_sweep_all_the_same(
    small_run: Callable[..., DictConfig], tmp_path: Path
) -> None:
    """The run is finished, but the next one of a sweep or study must not begin."""
    config = small_run("trainer.max_steps=2", "trainer.val_check_interval=2")
    with pytest.raises(Interrupted, match="stopped after step 2, the last; nothing is left to do"):
        train(with_callback(config, Interrupt, step=2, number=int(signal.SIGTERM), times=1))
    assert load(tmp_path / "run/checkpoints/last.ckpt")["callbacks"]["LastCheckpoint"]["validated"] == 2
    assert train(with_callback(config, Interrupt, step=2, number=int(signal.SIGTERM), times=1)) == {}


def test_a_checkpoint_needs_no_room_for_temporary_files_and_a_full_disk_is_told_of_it(
    small_run: Callable[..., DictConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lightning by itself first writes to the folder for temporary files, which may be on another, full disk."""
    monkeypatch.setattr("tempfile.mkstemp", lambda *arguments, **options: pytest.fail("a temporary file"))
    train(small_run("trainer.max_steps=1"))

    def full(path: Path, content: object) -> int:
        path.touch()
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left") as refused:
        train(small_run("trainer.max_steps=2"))
    last = tmp_path / "run/checkpoints/last.ckpt"
    assert refused.value.filename == str(last)
    assert load(last)["global_step"] == 1
    assert {path.name for path in last.parent.iterdir()} <= {"last.ckpt", "best.ckpt"}


def test_a_run_in_a_thread_keeps_the_name_that_hydra_reads_as_a_number(small_run: Callable[..., DictConfig]) -> None:
    """A launcher may start runs in threads, where Python does not allow signal handlers to be set."""
    config = small_run("trainer.max_steps=1", "variant=5")
    with ThreadPoolExecutor(1) as thread:
        thread.submit(train, config).result()
    assert variant_of(config.callbacks.last.path) == "5"
