"""The guard against divergence: non-finite steps are skipped and counted, and too many of them end the run."""

from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities import rank_zero_warn
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from stvsr.config import check_int
from stvsr.errors import TrainingDiverged
from stvsr.tracking import SKIPPED_STEPS
from stvsr.training.stateful_callback import StatefulCallback


class NonFiniteGuard(StatefulCallback):
    """Skips and counts steps whose loss or gradient is not finite, and ends the run after too many in a row.

    Without gradients the optimizer changes nothing, neither weights nor moments. Gradients are checked after they
    were averaged over processes, so all processes skip the same steps.

    Args:
        patience: this many skipped steps in a row end the run.
        last: the checkpoint to resume from.
    """

    saved_attributes = ("skipped", "in_a_row")

    def __init__(self, *, patience: int, last: str) -> None:
        check_int("callbacks.non_finite.patience", patience, least=1)
        self.patience = patience
        self.last = Path(last)
        self.skipped = 0
        self.in_a_row = 0

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        """Drops gradients that are not finite, or whose squares are not: Adam's moments would never recover.

        A loss that is not finite has such gradients: `SpaceTimeModule.training_step` ensures it.

        Raises:
            TrainingDiverged: `patience` steps in a row were skipped.
        """
        gradients = [p.grad for p in pl_module.parameters() if p.grad is not None]
        if torch.isfinite(get_total_norm(gradients)):
            self.in_a_row = 0
            return
        optimizer.zero_grad(set_to_none=True)
        self.skipped += 1
        self.in_a_row += 1
        pl_module.log(SKIPPED_STEPS, float(self.skipped))
        rank_zero_warn(
            f"step {trainer.global_step}: loss or gradient not finite, or too large; skipped ({self.skipped} so far)"
        )
        if self.in_a_row >= self.patience:
            raise self.divergence(trainer)

    def divergence(self, trainer: pl.Trainer) -> TrainingDiverged:
        """The error of a run whose last steps were skipped, after which no weights are saved."""
        remedy = "start anew with a lower optimizer.lr, or scheduler.warmup=2000"
        if self.last.exists():
            remedy = f"resume from the last good checkpoint, {self.last}, with a lower optimizer.lr, or {remedy}"
        return TrainingDiverged(
            f"{self.in_a_row} step(s) in a row up to step {trainer.global_step} had a loss or gradient that is not "
            f"finite, or too large; {remedy}"
        )
