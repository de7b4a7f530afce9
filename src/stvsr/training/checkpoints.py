"""Checkpoints: the last state and the best one, each replaced only by a complete file, and saved when a run stops."""

import signal
import threading
from contextlib import nullcontext
from io import BytesIO
from pathlib import Path
from pickle import PicklingError, UnpicklingError
from types import FrameType
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO

from stvsr.config import check_int, typed
from stvsr.errors import Interrupted, UserError, one_line
from stvsr.files import beside_then_rename, flush_to_disk
from stvsr.tracking import MONITORED
from stvsr.training.guards import NonFiniteGuard
from stvsr.training.stateful_callback import StatefulCallback


class DirectCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint directly: Lightning's own goes through the folder of temporary files, which may be full.

    Attributes:
        failure: the system's error, or why the content could not be serialised. It is not raised: the other processes
            wait until all have saved.
    """

    failure: OSError | UserError | None = None

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Writes a file, and its folder if there is none."""
        content, file = BytesIO(), Path(path)
        try:
            torch.save(checkpoint, content)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content.getbuffer())
        except OSError as error:
            self.failure = error
        # Which of them depends on the object.
        except (PicklingError, AttributeError, TypeError) as error:
            self.failure = no_plain_value(error)


def save_whole(trainer: pl.Trainer, path: Path) -> None:
    """Saves a checkpoint; all processes must take part, and the first writes. The file gets its name once complete.

    Raises:
        OSError: the system refused to write; in all processes.
        UserError: the content includes something other than tensors and plain values; in all processes.
    """
    direct_io, usual_io = DirectCheckpointIO(), trainer.strategy.checkpoint_io
    with beside_then_rename(path) if trainer.is_global_zero else nullcontext(path) as beside:
        trainer.strategy.checkpoint_io = direct_io
        try:
            # Passed explicitly, or Lightning warns at every save.
            trainer.save_checkpoint(beside, weights_only=False)
        finally:
            # Custom callbacks save through the usual one.
            trainer.strategy.checkpoint_io = usual_io
        written = trainer.is_global_zero and direct_io.failure is None
        # Broadcast, or the other processes would wait for the first one in their next step.
        failure = trainer.strategy.broadcast(why_unreadable(beside) if written else direct_io.failure)
        if failure is not None:
            raise failure
        if trainer.is_global_zero:
            flush_to_disk(beside)


def why_unreadable(path: Path) -> UserError | None:
    """Why no command could read a checkpoint, if so: custom classes may keep anything in it."""
    try:
        # On the meta device, without the content of its tensors.
        torch.load(path, weights_only=True, map_location="meta")
    except UnpicklingError as error:
        return no_plain_value(error)
    return None


def no_plain_value(error: Exception) -> UserError:
    """The error for a checkpoint with something other than tensors and plain values in it."""
    message = one_line(error)
    # Torch's advice precedes the cause; skip it.
    cause = message[max(0, message.find("Unsupported")) :][:200]
    return UserError(
        f"the checkpoint cannot be saved ({cause}): a callback, an optimizer or a schedule stores something in it that "
        "is neither a tensor nor a plain value; turn it into numbers, strings, lists or dicts"
    )


class BestCheckpoint(StatefulCallback):
    """Writes `best.ckpt` after each validation with a higher mean PSNR than any before, in resumed runs too.

    Args:
        path: where to write.
    """

    saved_attributes = ("best",)

    def __init__(self, *, path: str) -> None:
        self.path = Path(path)
        self.best = float("-inf")

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Saves if this validation was the best."""
        # Absent where no clip was scored.
        score = float(trainer.callback_metrics.get(MONITORED, self.best))
        if score > self.best and not _was_last_step_skipped(trainer):
            self.best = score
            save_whole(trainer, self.path)


class LastCheckpoint(StatefulCallback):
    """Writes `last.ckpt` every `every_steps` steps, after each validation, at the end, and when asked to stop.

    After a first SIGINT or SIGTERM the step in progress finishes, and a validation that is due; then the run is saved
    and stops. After that, SIGINT stops it at once.

    Args:
        path: where to write.
        every_steps: steps between two checkpoints.

    Attributes:
        interruption: the error that reports the stop, once all processes have agreed and saved. The next step raises
            it, after a validation that is due; where no step is left, the caller of `fit` must.
    """

    saved_attributes = ("validated",)

    def __init__(self, *, path: str, every_steps: int) -> None:
        check_int("callbacks.last.every_steps", every_steps, least=1)
        self.path = Path(path)
        self.every_steps = every_steps
        self.stop_requested = False
        self.interruption: Interrupted | None = None
        self.validated: int | None = None
        self._previous_handlers: dict[int, Any] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Handles signals, in place of Lightning's handler, which would raise in the middle of a validation."""
        # Python allows handlers only in the main thread.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous_handlers[number] = signal.signal(number, self._on_signal)

    def on_train_batch_start(self, *_: Any) -> None:
        """Stops before the next step, not at the end of the last one: a validation due there would be lost.

        Raises:
            Interrupted: the run was asked to stop; it is saved, unless its last step was skipped.
        """
        if self.interruption is not None:
            raise self.interruption

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Saves if it is time to."""
        # Processes must agree, or one would wait for the others forever.
        stop = trainer.strategy.reduce_boolean_decision(self.stop_requested, all=False)
        step = trainer.global_step
        due = stop or step % self.every_steps == 0 or step == trainer.max_steps
        if due and not _was_last_step_skipped(trainer):
            save_whole(trainer, self.path)
        if stop:
            self.interruption = self._interruption(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Saves, so that a run that dies later does not validate again and remembers its best score."""
        self.validated = trainer.global_step
        if not _was_last_step_skipped(trainer):
            save_whole(trainer, self.path)

    def lacks_validation(self, trainer: pl.Trainer) -> bool:
        """Whether a run has all its steps but not the validation that is due after the last of them."""
        interval = int(trainer.val_check_interval)
        return lacks_validation(trainer.global_step, self.validated, trainer.max_steps, interval)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Notes a stop asked for in the last validation; restores the signal handlers."""
        if trainer.strategy.reduce_boolean_decision(self.stop_requested, all=False):
            self.interruption = self._interruption(trainer)
        self._restore_handlers()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Restores the previous signal handlers."""
        self._restore_handlers()

    def _interruption(self, trainer: pl.Trainer) -> Interrupted:
        """The message on where the run stopped and how to continue it."""
        done = f"stopped after step {trainer.global_step}"
        if _was_last_step_skipped(trainer):
            remedy = f"to continue from the last good state, {to_continue(self.path)}" if self.path.is_file() else None
            return Interrupted(f"{done}, which had no finite loss or gradient", remedy)
        if trainer.global_step == trainer.max_steps and not self.lacks_validation(trainer):
            return Interrupted(f"{done}, the last", "nothing is left to do")
        return Interrupted(done, to_continue(self.path))

    def _restore_handlers(self) -> None:
        while self._previous_handlers:
            number, handler = self._previous_handlers.popitem()
            signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.stop_requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.stop_requested = True


def to_continue(checkpoint: Path) -> str:
    """The remedy after a stop: the whole command, as omitted options (data, for one) would take their defaults."""
    return f"give the same command again with {typed('resume', checkpoint)}"


def lacks_validation(step: int, validated: int | None, max_steps: int, interval: int) -> bool:
    """Whether a run at `step`, last validated after step `validated`, lacks the validation due at its end."""
    return step == max_steps and step % interval == 0 and validated != step


def _was_last_step_skipped(trainer: pl.Trainer) -> bool:
    """Whether the last step was skipped: weights that give no finite loss are not worth resuming from."""
    return any(isinstance(c, NonFiniteGuard) and c.in_a_row > 0 for c in trainer.callbacks)  # type: ignore[attr-defined]
