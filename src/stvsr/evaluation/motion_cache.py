"""Measured motion, kept beside the results: measured once for a data set, whatever is scored on it afterwards."""

import csv
from collections.abc import Iterable
from pathlib import Path

from stvsr.errors import InvalidInput
from stvsr.evaluation.scores import WindowScore
from stvsr.evaluation.windows import MotionKey, Task
from stvsr.files import beside_then_rename

COLUMNS = ["set", "clip", "frame", "pixels"]


def read_motion(path: Path) -> dict[MotionKey, float]:
    """What was measured before; nothing if there is no such file.

    Raises:
        InvalidInput: the file is not one that `write_motion` wrote.
    """
    if not path.is_file():
        return {}
    try:
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        return {(row["set"], row["clip"], int(row["frame"])): float(row["pixels"]) for row in rows}
    except (KeyError, ValueError, TypeError):
        raise InvalidInput(f"{path}: not a table of measured motion; remove it, it is made anew") from None


def write_motion(path: Path, tasks: list[Task], windows: Iterable[WindowScore], known: dict[MotionKey, float]) -> None:
    """Adds what was measured; frames are counted from 0."""
    motion = dict(known)
    for window in windows:
        for key, value in zip(tasks[window.position].motion_keys, window.motion, strict=True):
            if value is not None:
                motion[key] = value
    path.parent.mkdir(parents=True, exist_ok=True)
    with beside_then_rename(path) as beside, beside.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows([*key, value] for key, value in sorted(motion.items()))
