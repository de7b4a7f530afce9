"""Non-finite steps change nothing, are counted and never saved; too many end the run with a remedy."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from omegaconf import DictConfig

from conftest import with_callback
from stvsr.errors import Interrupted, TrainingDiverged
from stvsr.train import train
from stvsr.training import losses
from stvsr.training.guards import NonFiniteGuard


class Spy(pl.Callback):
    """Records the parameters after each step."""

    parameters: list[torch.Tensor]

    def __init__(self) -> None:
        type(self).parameters = []

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        self.parameters.append(torch.cat([p.detach().flatten().clone() for p in pl_module.parameters()]))


@pytest.fixture
def poison(monkeypatch: pytest.MonkeyPatch) -> Callable[[set[int], float], None]:
    """Makes the loss of given steps non-finite by shifting predictions."""

    def install(steps: set[int], shift: float) -> None:
        original, count = losses.charbonnier, iter(range(1000))
        monkeypatch.setattr(
            losses,
            "charbonnier",
            lambda p, t: original(p + (shift if next(count) in steps else 0.0), t),
        )

    return install


# The square of 1e25 overflows: the loss is infinite, its gradient 0.
@pytest.mark.parametrize("shift", [float("nan"), 1e25])
def test_a_step_that_is_not_finite_changes_nothing_and_is_counted(
    small_run: Callable[..., DictConfig],
    poison: Callable[[set[int], float], None],
    shift: float,
    tmp_path: Path,
) -> None:
    poison({1}, shift)
    metrics = train(with_callback(small_run(), Spy))
    before, skipped, after, _ = Spy.parameters
    assert torch.equal(before, skipped)
    assert not torch.equal(skipped, after)
    assert after.isfinite().all()
    assert metrics["train/skipped_steps"] == 1
    checkpoint = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)
    assert checkpoint["callbacks"]["NonFiniteGuard"] == {"skipped": 1, "in_a_row": 0}


class Stop(pl.Callback):
    """Requests a stop during the third step."""

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step == 2:
            os.kill(os.getpid(), signal.SIGTERM)


def test_a_stop_after_a_skipped_step_before_any_checkpoint_says_that_nothing_is_saved(
    small_run: Callable[..., DictConfig], poison: Callable[[set[int], float], None]
) -> None:
    poison({2}, float("nan"))
    with pytest.raises(Interrupted, match=r"step 3, .*no finite loss or gradient; nothing is saved"):
        train(with_callback(small_run(), Stop))


def test_a_stop_after_a_skipped_step_keeps_the_last_good_checkpoint(
    small_run: Callable[..., DictConfig], poison: Callable[[set[int], float], None], tmp_path: Path
) -> None:
    poison({2}, float("nan"))
    last = tmp_path / "run/checkpoints/last.ckpt"
    with pytest.raises(
        Interrupted,
        match=rf"step 3, .*no finite loss or gradient; to continue from the last good state, give the .* resume={last}",
    ):
        train(with_callback(small_run("callbacks.last.every_steps=1"), Stop))
    assert torch.load(last, weights_only=True)["global_step"] == 2


def test_many_in_a_row_end_the_run_and_name_the_last_good_checkpoint(
    small_run: Callable[..., DictConfig], poison: Callable[[set[int], float], None], tmp_path: Path
) -> None:
    poison({1, 2, 3}, float("nan"))
    config = small_run("callbacks.non_finite.patience=3", "callbacks.last.every_steps=1", "trainer.max_steps=9")
    with pytest.raises(TrainingDiverged, match=r"3 step\(s\) in a row .*run/checkpoints/last\.ckpt, with a lower"):
        train(config)
    state = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert all(tensor.isfinite().all() for tensor in state.values())


def step(guard: NonFiniteGuard, gradient: float) -> float | None:
    """Makes a step with this gradient and returns what the guard leaves of it."""
    weight = torch.nn.Parameter(torch.zeros(2))
    weight.grad = torch.full((2,), gradient)
    module = SimpleNamespace(parameters=lambda: [weight], log=lambda *_: None)
    optimizer = torch.optim.SGD([weight], lr=1.0)
    guard.on_before_optimizer_step(SimpleNamespace(global_step=1), module, optimizer)  # type: ignore[arg-type]
    return None if weight.grad is None else weight.grad[0].item()


def test_only_steps_in_a_row_end_a_run(tmp_path: Path) -> None:
    guard = NonFiniteGuard(patience=2, last=str(tmp_path / "last.ckpt"))
    for gradient in (float("nan"), 1.0, float("nan"), 1.0, float("nan")):
        step(guard, gradient)
    with pytest.raises(
        TrainingDiverged,
        match=r"2 step\(s\) in a row .*; start anew with a lower optimizer.lr",
    ):
        step(guard, float("nan"))


def test_a_gradient_whose_square_is_not_finite_is_dropped_and_a_large_one_is_not(tmp_path: Path) -> None:
    """Otherwise Adam's moments would be infinite for the rest of the run, and the weights would not change."""
    guard = NonFiniteGuard(patience=2, last=str(tmp_path / "last.ckpt"))
    assert step(guard, 1e30) is None
    assert step(guard, 1e15) == pytest.approx(1e15)


def test_a_run_that_ends_in_skipped_steps_is_not_saved_after_them(
    small_run: Callable[..., DictConfig], poison: Callable[[set[int], float], None], tmp_path: Path
) -> None:
    """Not even by the validation due there; nor does the run count as finished."""
    poison({3}, float("nan"))
    with pytest.raises(TrainingDiverged, match=r"1 step\(s\) in a row up to step 4 .*run/checkpoints/last\.ckpt"):
        train(small_run("callbacks.last.every_steps=3"))
    assert torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)["global_step"] == 3
    assert not (tmp_path / "run/checkpoints/best.ckpt").exists()


def test_counts_go_on_in_a_resumed_run() -> None:
    guard = NonFiniteGuard(patience=3, last="last.ckpt")
    guard.load_state_dict({"skipped": 4, "in_a_row": 1})
    assert (guard.skipped, guard.in_a_row) == (4, 1)
    assert guard.state_dict() == {"skipped": 4, "in_a_row": 1}
