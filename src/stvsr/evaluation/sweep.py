"""The report of a sweep: one page for all methods that `python -m stvsr.evaluate -m …` scored."""

import sys
import traceback
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from stvsr.evaluation.report import write_report
from stvsr.evaluation.results import RESULTS
from stvsr.explanations import in_one_line
from stvsr.files import state_of


class SweepReport(Callback):
    """A Hydra callback that writes the report of a sweep at its end, and prints its table."""

    def __init__(self) -> None:
        self.earlier: dict[Path, str] = {}

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Notes the results that an earlier sweep left in the folder."""
        self.earlier = _results(config)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Compares the results that jobs of this sweep wrote to its folder; a job that failed has written none.

        Raises:
            SystemExit: the report failed, and the user has been told why.
        """
        folder = Path(config.hydra.sweep.dir)
        try:
            written = [path.parent for path, state in _results(config).items() if self.earlier.get(path) != state]
            if written:
                print(write_report(folder, sorted(written, key=_job_number)).as_text())
                print(f"comparison and report: {folder.resolve()}")
        except Exception as error:
            # Hydra would reduce it to a warning and exit with status 0.
            message = in_one_line(error)
            if message is None:
                traceback.print_exc()
            else:
                print(f"error: {message}", file=sys.stderr)
            sys.exit(1)


def _results(config: DictConfig) -> dict[Path, str]:
    """The results in the folder of a sweep, each with a fingerprint that changes when it is rewritten."""
    return {path: state_of([path]) for path in Path(config.hydra.sweep.dir).glob(f"*/{RESULTS}")}


def _job_number(folder: Path) -> tuple[int, str]:
    number = folder.name.split("-")[0]
    return (int(number) if number.isdecimal() else 0, folder.name)
