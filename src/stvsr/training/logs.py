"""What the CSV logs of a run tell afterwards."""

import csv
from pathlib import Path
from statistics import fmean

from omegaconf import DictConfig

from stvsr.tracking import CLIPS_PER_SECOND, MONITORED


def read_logs(training: DictConfig) -> tuple[list[tuple[int, float]], float | None]:
    """Steps done and validation PSNR of a finished run, in dB, and the minutes it trained without validations.

    The speed is measured from one log entry to the next; steps after the last entry count as those before. There are no
    minutes where there is no entry, as in a run of fewer steps than `trainer.log_every_n_steps`.

    Args:
        training: the run's config; its `logger` writes CSV.
    """
    curve, seconds_a_step = list[tuple[int, float]](), list[float]()
    logs = Path(training.output_dir, "csv").glob("metrics*.csv")
    rows = [row for log in logs for row in csv.DictReader(log.read_text(encoding="utf-8").splitlines())]
    # A disk that was full may have cut a row off.
    whole = [row for row in rows if None not in row.values() and row["step"].isdigit()]
    for row in sorted(whole, key=lambda row: int(row["step"])):
        if row.get(MONITORED):
            curve.append((int(row["step"]) + 1, float(row[MONITORED])))
        if row.get(CLIPS_PER_SECOND):
            seconds_a_step.append(training.loader.batch_size / float(row[CLIPS_PER_SECOND]))
    minutes = training.trainer.max_steps * fmean(seconds_a_step) / 60 if seconds_a_step else None
    return curve, minutes
