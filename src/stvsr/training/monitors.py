"""What a run reports about itself: learning rate, offsets, throughput, damaged clips, pictures."""

import sys
import time
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import TQDMProgressBar
from pytorch_lightning.callbacks.progress.tqdm_progress import Tqdm
from pytorch_lightning.loggers import WandbLogger
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from stvsr.config import check_int
from stvsr.data.clip import Batch
from stvsr.evaluation.figures import comparison_figure, save_figure
from stvsr.models.alignment import DeformableSampling
from stvsr.terminal import TERMINAL
from stvsr.tracking import CLIPS_PER_SECOND, DAMAGED_CLIPS, LEARNING_RATE, OFFSET_MAGNITUDE, PICTURE
from stvsr.training.stateful_callback import StatefulCallback


def log_interval(trainer: pl.Trainer) -> int:
    """Steps between two log entries; practically infinite where logging is off."""
    interval: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
    return interval or sys.maxsize


class ProgressBar(TQDMProgressBar):
    """Lightning's bars on `TERMINAL`, like those of other commands: a full disk that logs them does not end a run."""

    def init_train_tqdm(self) -> Tqdm:
        """The bar of the training steps."""
        with redirect_stdout(TERMINAL):  # type: ignore[type-var]
            return super().init_train_tqdm()

    def init_validation_tqdm(self) -> Tqdm:
        """The bar of a validation."""
        with redirect_stdout(TERMINAL):  # type: ignore[type-var]
            return super().init_validation_tqdm()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Ends the lines of the bars, or the next message would appear in them."""
        for bar in (self._val_progress_bar, self._train_progress_bar):
            if bar is not None:
                bar.close()


class Monitor(pl.Callback):
    """Logs `train/learning_rate`, `train/offset_magnitude` and `train/clips_per_second`.

    The offset magnitude is the mean absolute offset, in pixels of its pyramid level, over all deformable samplings
    of the step; users of the authors' code saw it pass 100 shortly before training diverged.
    """

    def __init__(self) -> None:
        self._since: tuple[float, int] | None = None
        self._rate = 0.0
        self._magnitudes: list[Tensor] = []
        self._hooks: list[RemovableHandle] = []

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        """Listens to offsets in the steps that are logged."""
        if self._since is None:
            self._since = (time.monotonic(), trainer.global_step)
        if (trainer.global_step + 1) % log_interval(trainer) == 0:
            # After the step, this will be the rate of the next one.
            self._rate = float(trainer.optimizers[0].param_groups[0]["lr"])
            # CUDA graphs would record the hooks' work as well.
            recorded = getattr(pl_module, "cuda_graphs", False)
            samplings = [m for m in pl_module.modules() if isinstance(m, DeformableSampling) and not recorded]
            self._hooks = [sampling.offsets.register_forward_hook(self._listen) for sampling in samplings]

    def on_before_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor) -> None:
        """Stops listening: the backward pass may recompute offsets.

        With micro-batches it is over by now; offsets that it recomputed count twice, which hardly changes the mean.
        """
        while self._hooks:
            self._hooks.pop().remove()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Logs the three values, in the steps that are logged."""
        if trainer.global_step % log_interval(trainer):
            return
        if self._magnitudes:
            pl_module.log(OFFSET_MAGNITUDE, torch.stack(self._magnitudes).mean(), batch_size=len(batch))
        self._magnitudes.clear()

        assert self._since is not None  # set when the step began
        now, (then, step) = time.monotonic(), self._since
        clips = (trainer.global_step - step) * len(batch) * trainer.world_size
        self._since = (now, trainer.global_step)
        pl_module.log(CLIPS_PER_SECOND, clips / (now - then))
        pl_module.log(LEARNING_RATE, self._rate)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Leaves validation out of training time."""
        self._since = None

    def _listen(self, module: nn.Module, inputs: Any, offset: Tensor) -> None:
        self._magnitudes.append(offset.detach().abs().mean())


class DamagedClips(StatefulCallback):
    """Reports and counts the damaged clips that training met and skipped, on all processes together.

    Each is reported once, and counted each time it is met; `train/damaged_clips` is the count.
    """

    saved_attributes = ("count", "met")

    def __init__(self) -> None:
        self.count = 0
        self.met: list[str] = []
        self._named: set[str] = set()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores the state; what was met before goes to the first process alone, or each would count it again."""
        super().load_state_dict(state_dict)
        if torch.distributed.is_initialized() and torch.distributed.get_rank() > 0:
            self.met = []

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Gathers what all processes met, in the steps that are logged."""
        self.met += batch.skipped
        if trainer.global_step % log_interval(trainer) and trainer.global_step != trainer.max_steps:
            return
        met = self.met
        if trainer.world_size > 1:
            # Processes that met none take part too, or the others would wait for them.
            everywhere: list[list[str]] = [[] for _ in range(trainer.world_size)]
            torch.distributed.all_gather_object(everywhere, self.met)
            met = [message for messages in everywhere for message in messages]
        self.met = []
        self.count += len(met)
        for message in sorted(set(met) - self._named):
            rank_zero_warn(f"damaged clip skipped ({self.count} so far): {message}")
        self._named |= set(met)
        if self.count:
            pl_module.log(DAMAGED_CLIPS, float(self.count))


class Pictures(pl.Callback):
    """Writes a few validation clips as pictures, beside bicubic + blending and the truth, and sends them to W&B.

    Args:
        folder: where to write.
        clips: how many clips.
    """

    def __init__(self, *, folder: str, clips: int) -> None:
        check_int("callbacks.pictures.clips", clips, least=0)
        self.folder = Path(folder)
        self.clips = clips

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Writes a picture of the first clip of each of the first batches."""
        if batch_idx >= self.clips or not trainer.is_global_zero:
            return
        figure = comparison_figure(
            lr=batch.lr[0],
            predictions={"network": outputs[0]},
            target=batch.hr[0],
            title=f"{batch.names[0]}, step {trainer.global_step}",
        )
        path = self.folder / f"step{trainer.global_step:07d}_{batch_idx}.png"
        save_figure(figure, path)
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                # Lightning logs scores under steps counted from 0; W&B's default is the step that was logged last.
                step = trainer.global_step - 1
                logger.log_image(key=f"{PICTURE}/{batch_idx}", images=[str(path)], step=step)
