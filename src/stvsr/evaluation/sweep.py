"""The report of a sweep: one page for all methods that `python -m stvsr.evaluate -m …` scored."""

from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from stvsr.evaluation.report import write_report
from stvsr.evaluation.results import RESULTS


class SweepReport(Callback):
    """Hydra's callback at the end of a sweep: writes its report and prints its table."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Compares what the jobs of the sweep left in its folder; a job that failed has left nothing."""
        folder = Path(config.hydra.sweep.dir)
        runs = sorted((path.parent for path in folder.glob(f"*/{RESULTS}")), key=_job_number)
        if runs:
            print(write_report(folder, runs).as_text())
            print(f"comparison and report: {folder.resolve()}")


def _job_number(folder: Path) -> tuple[int, str]:
    number = folder.name.split("-")[0]
    return (int(number) if number.isdecimal() else 0, folder.name)
