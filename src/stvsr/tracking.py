"""What runs log, and under which names; the dashboard (`dashboard.py`) uses the same names.

Training logs `val/psnr/slow`, …, an evaluation `test/<set>/psnr/slow`, …; both log their whole config, in which
`variant`, and `seed` or `checkpoint`, distinguish the runs of a sweep.
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
"""Names of metrics in logs, where they differ from those in tables."""

STEP = "trainer/global_step"
"""Lightning's name for the step to which the other values belong."""

LOSS = "train/loss"
LEARNING_RATE = "train/learning_rate"
CLIPS_PER_SECOND = "train/clips_per_second"
OFFSET_MAGNITUDE = "train/offset_magnitude"
SKIPPED_STEPS = "train/skipped_steps"
DAMAGED_CLIPS = "train/damaged_clips"

PICTURE = "val/picture"
"""Validation clip `number` is logged as `val/picture/<number>`."""

VALIDATION = [f"val/{metric}/{split}" for metric in SHORT.values() for split in (*SPLITS, "mean")]
"""Metrics that validation may log, by motion split."""

MONITORED = "val/psnr/mean"
"""The metric by which `best.ckpt` is chosen."""

RUN_ID = "wandb_run.txt"
"""The file in a run's folder with the id of its W&B run."""


class LastingWandbLogger(WandbLogger):
    """Lightning's W&B logger, except that if W&B's own process ends, training continues without it.

    A cluster's SIGTERM reaches that process too and ends it at once, while training still validates and saves.
    """

    _ended = False

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """As Lightning's, but once W&B has ended, metrics are dropped, with a single warning."""
        if self._ended:
            return
        try:
            super().log_metrics(metrics, step)
        except (ConnectionError, MailboxClosedError) as error:
            self._ended = True
            rank_zero_warn(
                f"W&B has ended ({one_line(error)}); the run continues without it: its CSV logs have everything"
            )


def score_name(clip_set: str, metric: str, split: str) -> str:
    """The name under which an evaluation logs a score."""
    return f"test/{clip_set}/{metric}/{split}"


def describe_run(loggers: list[Logger], config: DictConfig, *, parameters: int | None) -> None:
    """Logs the config and the number of parameters, and has W&B show the best validation scores.

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
    """What a user can do if W&B does not start a run."""
    if isinstance(error, TypeError):
        return "remove that setting of logger.wandb"
    if "deleted" in str(error):
        return f"remove {Path(config.output_dir) / RUN_ID}, and a new run will be started"
    settings = config.logger.get("wandb")
    if settings is not None and not settings.offline:
        return "run `wandb login`, or omit logger.wandb.offline=false"
    return "choose other W&B settings, or logger=csv"


def keep_run(config: DictConfig, *, anew: bool) -> None:
    """Lets a resumed training run continue its W&B run, if that is online: W&B cannot resume offline runs.

    Args:
        config: the training run's; changed in place.
        anew: whether training starts anew, and so needs a new W&B run even if the folder has an earlier one.
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
    """The scores and costs of an evaluation by their names in logs, without those not measured."""
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
    """Ends the W&B run, as failed if an error is being raised; otherwise a sweep's next run would continue it."""
    if any(isinstance(logger, WandbLogger) for logger in loggers):
        code = 0 if sys.exc_info()[0] is None else 1
        # An error of W&B here would hide the one being raised.
        try:
            wandb.finish(exit_code=code)
        except Exception as error:
            rank_zero_warn(f"W&B could not end the run ({one_line(error)}); its CSV logs have everything")
            # Otherwise the next run of a sweep would talk to a process that is gone.
            with suppress(Exception, SystemExit):  # W&B exits the program if its own process was killed
                wandb.teardown()
