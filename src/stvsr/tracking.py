"""What runs tell their loggers, under which names; the dashboard (`dashboard.py`) is made of the same names.

Training logs `val/psnr/slow`, …, an evaluation `test/<set>/psnr/slow`, …; both carry the whole config, of which
`variant`, and `seed` or `checkpoint`, tell the runs of a sweep apart.
"""

import secrets
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import wandb
from omegaconf import DictConfig, open_dict
from pytorch_lightning.loggers import Logger, WandbLogger
from pytorch_lightning.utilities import rank_zero_warn
from wandb.sdk.mailbox import MailboxClosedError

from stvsr.config import made_of, resolved
from stvsr.data.clip import SPLITS
from stvsr.errors import UserError, one_line
from stvsr.evaluation.results import Results
from stvsr.evaluation.scores import PARTS
from stvsr.files import write_text

SHORT = {"psnr_y": "psnr", "ssim_y": "ssim"}
"""Names of metrics in a log, where they differ from those in tables."""

STEP = "trainer/global_step"
"""Lightning's name for the step that the other values belong to."""

LOSS = "train/loss"
LEARNING_RATE = "train/learning_rate"
CLIPS_PER_SECOND = "train/clips_per_second"
OFFSET_MAGNITUDE = "train/offset_magnitude"
SKIPPED_STEPS = "train/skipped_steps"
DAMAGED_CLIPS = "train/damaged_clips"

PICTURE = "val/picture"
"""Of validation clip `number` below it."""

VALIDATION = [f"val/{metric}/{split}" for metric in SHORT.values() for split in (*SPLITS, "mean")]
"""What validation may log, by motion split."""

MONITORED = "val/psnr/mean"
"""What `best.ckpt` is chosen by."""

RUN_ID = "wandb_run.txt"
"""The file in a training's folder that tells its run on W&B."""


class LastingWandbLogger(WandbLogger):
    """Lightning's logger for W&B, but the end of W&B's own process costs its log alone.

    A cluster's SIGTERM reaches that process as well, and it ends at once; the training goes on to its last validation
    and saves.
    """

    _ended = False

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """As Lightning's; what W&B does not take any more is dropped, with a warning at first."""
        if self._ended:
            return
        try:
            super().log_metrics(metrics, step)
        except (ConnectionError, MailboxClosedError) as error:
            self._ended = True
            rank_zero_warn(
                f"W&B has ended ({one_line(error)}); the run goes on without it: its CSV logs have everything"
            )


def score_name(clip_set: str, metric: str, split: str) -> str:
    """What an evaluation logs a score under."""
    return f"test/{clip_set}/{metric}/{split}"


def describe_run(loggers: list[Logger], config: DictConfig, *, parameters: int | None) -> None:
    """Tells each logger what is run, and W&B that the best validation score is the one to show.

    Raises:
        UserError: W&B could not start a run.
    """
    description = resolved(config)
    try:
        for logger in loggers:
            logger.log_hyperparams({**description, "parameters": parameters})
            if isinstance(logger, WandbLogger):
                for name in VALIDATION:
                    logger.experiment.define_metric(name, summary="max", step_metric=STEP, step_sync=True)
    # W&B checks its settings with pydantic (ValueError); a missing home folder is a RuntimeError, an unknown setting a
    # TypeError.
    except (wandb.errors.Error, ValueError, RuntimeError, TypeError, ConnectionError, MailboxClosedError) as error:
        if not any(isinstance(logger, WandbLogger) for logger in loggers):
            raise
        raise UserError(f"W&B could not start a run ({one_line(error)}); {_remedy(error, config)}") from None


def _remedy(error: Exception, config: DictConfig) -> str:
    """What to do where W&B starts no run."""
    if isinstance(error, TypeError):
        return "take that setting of logger.wandb away"
    if "deleted" in str(error):
        return f"remove {Path(config.output_dir) / RUN_ID}, and it becomes a new run"
    settings = config.logger.get("wandb")
    if settings is not None and not settings.offline:
        return "run `wandb login`, or omit logger.wandb.offline=false"
    return "choose others, or logger=csv"


def keep_run(config: DictConfig, *, anew: bool) -> None:
    """Lets a training that goes on in its folder go on in its W&B run, if that is online: W&B joins no others.

    Args:
        config: of the training; it is changed.
        anew: whether the training begins anew, and so in another run than one before it in that folder.
    """
    settings = config.logger.get("wandb")
    if settings is None or settings.offline or settings.get("id") is not None:
        return
    path = Path(config.output_dir) / RUN_ID
    if anew or not path.is_file():
        write_text(path, secrets.token_hex(4))
    with open_dict(config):
        settings.id = path.read_text()


def evaluation_metrics(results: Results) -> dict[str, float]:
    """The scores and costs of an evaluation by their name in a log; none for what was not measured."""
    metrics: dict[str, float | None] = {}
    for row in results.rows:
        for metric in row.metrics:
            for part in PARTS:
                name = score_name(row.clip_set, f"{SHORT.get(metric, metric)}{part}", row.motion)
                metrics[name] = row.scores[metric + part]
    cost = results.cost
    metrics |= {
        "test/seconds_per_frame": cost.seconds_per_frame,
        "test/multiply_adds": cost.multiply_adds,
        "test/peak_memory": cost.peak_memory,
    }
    return {name: value for name, value in metrics.items() if value is not None}


def track_evaluation(config: DictConfig, results: Results) -> None:
    """Sends the results of an evaluation to the loggers of its config."""
    loggers: list[Logger] = made_of(config.logger)
    try:
        describe_run(loggers, config, parameters=results.cost.parameters)
        metrics = evaluation_metrics(results)
        for logger in loggers:
            logger.log_metrics(metrics, step=0)
            logger.save()
            logger.finalize("success")
    finally:
        finish(loggers)


def finish(loggers: list[Logger]) -> None:
    """Ends the W&B run, as failed while an error passes; or the next run of a sweep would go on in this one."""
    if any(isinstance(logger, WandbLogger) for logger in loggers):
        code = 0 if sys.exc_info()[0] is None else 1
        # An error of W&B here would hide the one that is being raised.
        try:
            wandb.finish(exit_code=code)
        except Exception as error:
            rank_zero_warn(f"W&B could not end the run ({one_line(error)}); its CSV logs have everything")
            # Or the next run of a sweep would speak to a process that is gone.
            with suppress(Exception, SystemExit):  # it ends the program where its own process was killed
                wandb.teardown()
