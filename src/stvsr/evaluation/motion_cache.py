"""A cache of measured motion, beside the results: a data set is measured once, whatever is scored on it afterwards.

Entries belong to pairs of frames, identified by checksums of their pixels: replaced frames are measured again.
"""

import csv
import os
from collections.abc import Iterable
from pathlib import Path

from stvsr.errors import InvalidInput
from stvsr.evaluation.scores import WindowScore
from stvsr.evaluation.tables import as_csv
from stvsr.files import write_text

COLUMNS = ["pair", "pixels"]


def read_motion(path: Path) -> dict[str, float]:
    """Reads what was measured before, by pair; nothing if there is no such file.

    Raises:
        InvalidInput: it is a folder, or a file that `write_motion` did not write.
    """
    if path.is_dir():
        raise InvalidInput(f"motion_cache={path}: a folder; expected a file: name one in it")
    if not path.is_file():
        return {}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            table = csv.DictReader(file)
            if table.fieldnames not in (None, COLUMNS):
                raise ValueError("not a motion cache, and would be replaced")
            return {row["pair"]: float(row["pixels"]) for row in table}
    except (ValueError, TypeError, csv.Error):
        raise InvalidInput(f"{path}: not a table of measured motion; remove it to have it rebuilt") from None


def write_motion(path: Path, windows: Iterable[WindowScore]) -> None:
    """Adds what was measured to the file as it is now: other evaluations may have written to it meanwhile.

    Raises:
        InvalidInput: the file is not one that `write_motion` wrote.
    """
    motion = read_motion(path)
    for window in windows:
        for pair, pixels in zip(window.pairs, window.motion, strict=True):
            if pair is not None and pixels is not None:
                motion[pair] = pixels
    path.parent.mkdir(parents=True, exist_ok=True)
    # One temporary name per process: evaluations that end together write at the same time, and the last one wins.
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    write_text(temporary, as_csv(COLUMNS, list(motion.items())))
    temporary.replace(path)
