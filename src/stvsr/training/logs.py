"""What can be read from the CSV logs of a finished run."""

import csv
from pathlib import Path
from statistics import fmean

from omegaconf import DictConfig

from stvsr.tracking import CLIPS_PER_SECOND, MONITORED


def read_logs(training: DictConfig) -> tuple[list[tuple[int, float]], float | None]:
    """For each validation of a finished run, the steps done and the PSNR in dB; and its minutes without validations.

    The minutes follow from the mean speed in the log entries, for all steps. They are None without an entry, as in a
    run of fewer steps than `trainer.log_every_n_steps`.

    Args:
        training: the run's config; its `logger` writes CSV.
    """
    curve, seconds_a_step = list[tuple[int, float]](), list[float]()
    logs = Path(training.output_dir, "csv").glob("metrics*.csv")
    rows = [row for log in logs for row in csv.DictReader(log.read_text(encoding="utf-8").splitlines())]
    # A full disk may have cut off a row.
    whole = [row for row in rows if None not in row.values() and row["step"].isdigit()]
    for row in sorted(whole, key=lambda row: int(row["step"])):
        if row.get(MONITORED):
            curve.append((int(row["step"]) + 1, float(row[MONITORED])))
        if row.get(CLIPS_PER_SECOND):
            seconds_a_step.append(training.loader.batch_size / float(row[CLIPS_PER_SECOND]))
    minutes = training.trainer.max_steps * fmean(seconds_a_step) / 60 if seconds_a_step else None
    return curve, minutes
