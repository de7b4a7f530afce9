"""Non-finite steps change nothing and are counted; too many end the run with a remedy; a stop loses no work."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, open_dict

from stvsr.errors import TrainingDiverged
from stvsr.train import train
from stvsr.training import module as training_module


class Spy(pl.Callback):
    """Keeps the parameters after each step."""

    parameters: list[torch.Tensor]

    def __init__(self) -> None:
        type(self).parameters = []

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        self.parameters.append(torch.cat([p.detach().flatten().clone() for p in pl_module.parameters()]))


def with_callback(config: DictConfig, callback: type[pl.Callback], **arguments: int) -> DictConfig:
    """The config with one callback more."""
    node = {"_target_": f"{callback.__module__}.{callback.__name__}", **arguments}
    with open_dict(config):
        config.callbacks.added = node
    return config


@pytest.fixture
def poison(monkeypatch: pytest.MonkeyPatch) -> Callable[[set[int], float], None]:
    """Makes the loss of given steps not finite."""

    def install(steps: set[int], factor: float) -> None:
        original, count = training_module.charbonnier, iter(range(1000))
        monkeypatch.setattr(
            training_module,
            "charbonnier",
            lambda p, t: original(p, t) * (factor if next(count) in steps else 1.0),
        )

    return install


@pytest.mark.parametrize("factor", [float("nan"), float("inf")])
def test_a_step_that_is_not_finite_changes_nothing_and_is_counted(
    small_run: Callable[..., DictConfig],
    poison: Callable[[set[int], float], None],
    factor: float,
    tmp_path: Path,
) -> None:
    poison({1}, factor)
    metrics = train(with_callback(small_run(), Spy))
    before, skipped, after, _ = Spy.parameters
    assert torch.equal(before, skipped)
    assert not torch.equal(skipped, after)
    assert after.isfinite().all()
    assert metrics["train/skipped_steps"] == 1
    checkpoint = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)
    assert checkpoint["callbacks"]["NonFiniteGuard"] == {"skipped": 1, "in_a_row": 0}


def test_many_in_a_row_end_the_run_and_name_the_last_good_checkpoint(
    small_run: Callable[..., DictConfig], poison: Callable[[set[int], float], None], tmp_path: Path
) -> None:
    poison({1, 2, 3}, float("nan"))
    config = small_run("callbacks.non_finite.patience=3", "callbacks.last.every_steps=1", "trainer.max_steps=9")
    with pytest.raises(TrainingDiverged, match=r"3 steps in a row .*run/checkpoints/last\.ckpt: resume .*lower"):
        train(config)
    state = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert all(tensor.isfinite().all() for tensor in state.values())


class Interrupt(pl.Callback):
    """Sends this process a signal in the middle of a step."""

    def __init__(self, *, step: int, number: int) -> None:
        self.step, self.number = step, number

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step == self.step - 1:
            os.kill(os.getpid(), self.number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "terminated"])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_interrupted_at_an_odd_step_continues_as_if_never_interrupted(
    small_run: Callable[..., DictConfig], tmp_path: Path, number: int, workers: int
) -> None:
    """The same parameters and the same state of Adam, bit for bit; validation lies on both sides of the stop."""
    overrides = ["trainer.max_steps=7", "trainer.val_check_interval=2", f"loader.workers={workers}"]
    train(small_run(*overrides, folder="whole"))

    interrupted = small_run(*overrides, folder="parts")
    train(with_callback(interrupted, Interrupt, step=3, number=int(number)))
    last = tmp_path / "parts/checkpoints/last.ckpt"
    assert torch.load(last, weights_only=True)["global_step"] == 3

    train(small_run(*overrides, f"resume='{last}'", folder="parts"))
    whole, parts = (
        torch.load(tmp_path / run / "checkpoints/last.ckpt", weights_only=True) for run in ("whole", "parts")
    )
    assert whole["global_step"] == parts["global_step"] == 7
    for name, tensor in whole["state_dict"].items():
        assert torch.equal(tensor, parts["state_dict"][name]), name
    ours, theirs = (checkpoint["optimizer_states"][0]["state"] for checkpoint in (whole, parts))
    assert all(torch.equal(ours[i]["exp_avg_sq"], theirs[i]["exp_avg_sq"]) for i in ours)
    assert whole["lr_schedulers"][0]["last_epoch"] == parts["lr_schedulers"][0]["last_epoch"]


def test_signal_handlers_are_given_back(small_run: Callable[..., DictConfig]) -> None:
    before = signal.getsignal(signal.SIGTERM)
    train(small_run("trainer.max_steps=1"))
    assert signal.getsignal(signal.SIGTERM) is before


def test_guards_of_the_config_point_at_the_same_checkpoint(small_run: Callable[..., DictConfig]) -> None:
    callbacks = instantiate(small_run().callbacks)
    assert callbacks.non_finite.last == callbacks.last.path
