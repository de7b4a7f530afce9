"""Compares finished evaluations: `python -m stvsr.report 'runs=[FOLDER,FOLDER]'`.

Each folder is the `output_dir` of a `stvsr.evaluate` run; a sweep makes the same table and page by itself.
"""

from pathlib import Path

from omegaconf import DictConfig

from stvsr.cli import entry_point
from stvsr.config import check_list
from stvsr.errors import InvalidInput
from stvsr.evaluation.report import write_report


def report(config: DictConfig) -> None:
    """Writes `report.html` and `comparison.md`, `.csv`, `.tex` to `output_dir`, and prints the table.

    Raises:
        InvalidInput: `runs` is empty or no list, or a folder has no results.
    """
    check_list(config, "runs")
    # Hydra reads folders that are called 0 and 1 as numbers.
    runs = [Path(str(run)) for run in config.runs]
    if not runs:
        raise InvalidInput("runs=[]; expected folders of finished evaluations: runs=[FOLDER,FOLDER]")
    folder = Path(config.output_dir)
    print(write_report(folder, runs).as_text())
    print(f"comparison and report: {folder}")


@entry_point("report")
def main(config: DictConfig) -> None:
    """Compares finished evaluations."""
    report(config)


if __name__ == "__main__":
    main()
