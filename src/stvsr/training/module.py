"""The LightningModule: any network of the contract, an objective, scores per motion split."""

from collections.abc import Callable
from functools import partial
from inspect import signature
from itertools import chain
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.strategies import DDPStrategy
from pytorch_lightning.utilities import rank_zero_warn
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from stvsr.checkpoint import MODEL_KEY, OPTIMIZER_KEY, SETTINGS_KEY, VARIANT_KEY
from stvsr.data.clip import Batch
from stvsr.devices import check_answering, refuses_bf16
from stvsr.errors import InvalidInput, one_line
from stvsr.evaluation.splits import MotionSplitScores
from stvsr.graphs import recorded_step
from stvsr.models.network import Forward, Network, run_padded
from stvsr.tracking import LOSS, MONITORED
from stvsr.training.micro_batches import loss_in_micro_batches
from stvsr.training.objectives import Objective

KERNELS = ("fused", "foreach", "capturable", "differentiable")
"""Optimizer switches that choose the kernels of a step."""


class SpaceTimeModule(pl.LightningModule):
    """Trains a network on clips and validates it per motion split.

    Args:
        network: `(b, n, 3, h, w)` to `(b, 2n-1, 3, 4h, 4w)`.
        model_config: the resolved config of that network; saved in every checkpoint.
        variant: the network's name, such as an ablation's letter; saved there too, and used in tables.
        settings: the run's, from `stvsr.training.continuation.settings_of`; saved there too.
        objective: what is learned from a batch, and which part of the network learns it.
        optimizer: makes the optimizer from the parameters.
        scheduler: makes the learning rate schedule from the optimizer; stepped once a batch.
        cuda_graphs: whether training steps replay the network as CUDA graphs; for one GPU.
    """

    def __init__(
        self,
        *,
        network: Network,
        model_config: dict[str, Any],
        variant: str,
        settings: dict[str, Any],
        objective: Objective,
        optimizer: Callable[..., Optimizer],
        scheduler: Callable[..., LambdaLR],
        cuda_graphs: bool,
    ) -> None:
        super().__init__()
        self.network = network
        self.model_config = model_config
        self.variant = variant
        self.settings = settings
        self.objective = objective
        self.make_optimizer = optimizer
        self.make_scheduler = scheduler
        self.cuda_graphs = cuda_graphs
        self._recorded: Forward | None = None
        self._saved_optimizer: str | None = None
        self.val_scores = MotionSplitScores()

    def forward(self, lr: Tensor) -> Tensor:
        """Frames of any size: `(b, n, 3, h, w)` to `(b, 2n-1, 3, 4h, 4w)`."""
        return run_padded(self.network, lr)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss of this process's share of the batch."""
        loss_of = partial(self._loss, self._network_for_training(batch))
        on_cpu = batch.lr.device.type == "cpu"
        loss = loss_in_micro_batches(loss_of, batch, self.objective.part(self.network)) if on_cpu else loss_of(batch)
        self.log(LOSS, loss.detach() / batch.hr.numel(), prog_bar=True, batch_size=len(batch))
        # The loss is a sum over the whole batch, but gradients are averaged over processes: undo the average.
        whole: Tensor = loss * self.trainer.world_size
        # Where squares overflow, the loss is infinite but gradients may be 0: make them NaN for `NonFiniteGuard`.
        return whole * torch.where(whole.detach().isfinite(), 1.0, torch.nan)

    def _loss(self, network: Forward, batch: Batch) -> Tensor:
        loss = self.objective(network, batch)
        if loss.ndim:
            raise InvalidInput(f"the loss of a batch has shape {tuple(loss.shape)}; expected a scalar sum")
        return loss

    def _network_for_training(self, batch: Batch) -> Forward:
        """The network, or its recording as CUDA graphs, which is made from the first batch."""
        if self.cuda_graphs and self._recorded is None:
            try:
                self._recorded = recorded_step(self.network, batch.lr)
            except RuntimeError as error:
                # CUDA or cuDNN failed: slow training is better than none, if the GPU still responds.
                check_answering(batch.lr.device)
                rank_zero_warn(f"training steps are not recorded as CUDA graphs ({one_line(error)[:200]})")
                self.cuda_graphs = False
        return self._recorded or self.network

    def validation_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Scores a batch; returns the prediction, of which `Pictures` makes pictures."""
        prediction: Tensor = self(batch.lr)
        self.val_scores.update(prediction, batch.hr, batch.motions)
        return prediction

    def on_validation_epoch_end(self) -> None:
        """Logs `val/psnr/slow`, … and their means."""
        for name, value in self.val_scores.compute().items():
            self.log(f"val/{name}", value.float(), prog_bar=f"val/{name}" == MONITORED)
        self.val_scores.reset()

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimizer, and the schedule stepped once a batch.

        Raises:
            InvalidInput: they refuse their settings, there is nothing to learn, or the resumed run had another
                optimizer.
        """
        # Called for its error, which is clearer than an optimizer's without parameters.
        self.objective.part(self.network)
        try:
            optimizer = self.make_optimizer(self.network.parameters())
            # Read before the schedule sets the rate of the first step.
            self.configured = hyperparameters(optimizer)
            scheduler = self.make_scheduler(optimizer)
            if not isinstance(scheduler, LambdaLR):
                raise TypeError(f"{type(scheduler).__name__} is not a LambdaLR, whose rates a resumed run can change")
        # A string in place of a number raises a TypeError, a list that is too short an IndexError.
        except (ValueError, TypeError, IndexError) as error:
            raise InvalidInput(
                f"optimizer and scheduler: {one_line(error)}; choose other values of optimizer.… or scheduler.…, or "
                "leave out what a recipe sets and they do not take: ~scheduler.period"
            ) from None
        # Checked here: Lightning loads the saved state next, and that of another class may break this optimizer.
        if self._saved_optimizer not in (None, used := type(optimizer).__name__):
            raise InvalidInput(
                f"the run was trained with {self._saved_optimizer}, expected {used}; choose that optimizer, or start "
                "anew with initial_weights= and another output_dir"
            )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_fit_start(self) -> None:
        """Refuses, before the first step, what cannot be trained in this way.

        Raises:
            InvalidInput: the GPU lacks bfloat16, the objective is for another network, steps cannot be recorded as
                configured, or processes would wait for gradients that never come.
        """
        part = self.objective.part(self.network)
        strategy = self.trainer.strategy
        if self.trainer.precision == "bf16-mixed" and refuses_bf16(strategy.root_device):
            raise InvalidInput(
                "trainer.precision=bf16-mixed on a GPU without bfloat16; expected compute capability 8.0 or newer: add "
                "trainer.precision=32-true"
            )
        if self.cuda_graphs:
            self._check_recordable(part)
        trained, total = (sum(1 for _ in module.parameters()) for module in (part, self.network))
        needs_all = isinstance(strategy, DDPStrategy) and not strategy._ddp_kwargs.get("find_unused_parameters")
        if trained < total and needs_all:
            raise InvalidInput(
                f"with several processes, an objective that trains {trained} of the network's {total} parameters "
                "needs trainer.strategy=ddp_find_unused_parameters_true: add it"
            )

    def _check_recordable(self, part: nn.Module) -> None:
        if self.trainer.world_size > 1:
            raise InvalidInput(
                f"cuda_graphs=true with {self.trainer.world_size} processes; expected one: add cuda_graphs=false"
            )
        # Foreign modules are refused: operators that escape the recording, as torchvision's do, would not train.
        foreign = (type(module) for module in self.network.modules() if not _is_known(type(module)))
        refused = next(foreign, None) if self.network.replayable else type(self.network)
        if refused is not None:
            raise InvalidInput(
                f"cuda_graphs=true with {refused.__name__}, whose steps cannot be recorded: add cuda_graphs=false"
            )
        if part is not self.network:
            raise InvalidInput(
                "cuda_graphs=true with an objective that trains a part of the network; expected one that trains all of "
                "it: add cuda_graphs=false, or objective=space_time"
            )

    def on_train_start(self) -> None:
        """Applies the configured hyperparameters in a resumed run, over the saved ones that Lightning has restored.

        Raises:
            InvalidInput: the resumed optimizer had a switch set differently, or gradients could not be clipped.
        """
        optimizer, scheduler = self.trainer.optimizers[0], self.lr_schedulers()
        for group, configured in zip(optimizer.param_groups, self.configured, strict=True):
            for name, value in configured.items():
                # A switch such as amsgrad may need a state that the saved run lacks.
                if isinstance(value, bool) and group.get(name, value) != value:
                    raise InvalidInput(
                        f"optimizer.{name}={value}: the run was trained with {group[name]}; choose that, or start anew "
                        "with initial_weights= and another output_dir"
                    )
        # Lightning would refuse this at the first step, without a remedy.
        clips = self.trainer.precision == "bf16-mixed" and self.trainer.gradient_clip_val
        if clips and optimizer.defaults.get("fused"):
            raise InvalidInput(
                f"trainer.gradient_clip_val={self.trainer.gradient_clip_val}: a fused optimizer does not clip in "
                "trainer.precision=bf16-mixed; add optimizer.fused=false"
            )
        assert isinstance(scheduler, LambdaLR)  # checked in `configure_optimizers`
        scheduler.base_lrs = [configured["lr"] for configured in self.configured]
        groups = zip(optimizer.param_groups, self.configured, scheduler.lr_lambdas, strict=True)
        for group, configured, factor in groups:
            group |= configured
            group["initial_lr"] = configured["lr"]
            group["lr"] = configured["lr"] * factor(scheduler.last_epoch)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds what rebuilds the network, and what resuming checks."""
        checkpoint[MODEL_KEY] = self.model_config
        checkpoint[VARIANT_KEY] = self.variant
        checkpoint[SETTINGS_KEY] = self.settings
        checkpoint[OPTIMIZER_KEY] = type(self.trainer.optimizers[0]).__name__

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Notes the saved optimizer's class for `configure_optimizers`; keeps the configured schedule's settings."""
        self._saved_optimizer = checkpoint.get(OPTIMIZER_KEY)
        for schedule in checkpoint.get("lr_schedulers", []):
            # LambdaLR would restore the saved attributes of a callable schedule over the configured ones.
            schedule["lr_lambdas"] = [None] * len(schedule.get("lr_lambdas", []))


def hyperparameters(optimizer: Optimizer) -> list[dict[str, Any]]:
    """For each parameter group, the numbers and switches that the optimizer was made with.

    Without the `KERNELS`, which decide where its state lies, and only those that its classes take as arguments: some
    optimizers also keep in their groups what they have learned about the rate.
    """
    accepted = (signature(kind).parameters for kind in type(optimizer).__mro__ if issubclass(kind, Optimizer))
    names = {"lr", *chain.from_iterable(accepted)} - {"params", *KERNELS}
    return [
        {
            name: value
            for name, value in group.items()
            if name in names and isinstance(value, float | int | list | tuple)
        }
        for group in optimizer.param_groups
    ]


def _is_known(part: type[nn.Module]) -> bool:
    return part.__module__.startswith(("stvsr.", "torch."))
