"""What the CSV logs of a run tell afterwards."""

import csv
from pathlib import Path

from omegaconf import DictConfig

from stvsr.tracking import CLIPS_PER_SECOND, MONITORED


def read_logs(training: DictConfig) -> tuple[list[tuple[int, float]], float]:
    """Steps done and validation PSNR of a run, in dB, and the minutes it trained without validations.

    Args:
        training: the run's config; its `logger` writes CSV.
    """
    curve, seconds, logged = [], 0.0, training.trainer.log_every_n_steps
    logs = Path(training.output_dir, "csv").glob("metrics*.csv")
    rows = [row for log in logs for row in csv.DictReader(log.read_text(encoding="utf-8").splitlines())]
    # A disk that was full may have cut a row off.
    whole = [row for row in rows if None not in row.values() and row["step"].isdigit()]
    for row in sorted(whole, key=lambda row: int(row["step"])):
        if row.get(MONITORED):
            curve.append((int(row["step"]) + 1, float(row[MONITORED])))
        if row.get(CLIPS_PER_SECOND):
            seconds += logged * training.loader.batch_size / float(row[CLIPS_PER_SECOND])
    return curve, seconds / 60
