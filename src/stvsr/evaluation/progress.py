"""What is already scored, kept on disk while a long evaluation runs, so that it can be killed and resumed.

Each process appends a line to a file of its own after every batch. A line that was cut off by a kill, or
damaged by a power cut, is ignored and its batch scored again. Once the results are written, the folder is removed.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

from omegaconf import DictConfig

from stvsr.evaluation.scores import WindowScore
from stvsr.unfinished import Unfinished

PROGRESS = "progress"
"""The folder of what is scored so far, below `output_dir`."""


def progress_folder(config: DictConfig) -> Path:
    """Where the progress of an evaluation is kept."""
    return Path(config.output_dir) / PROGRESS


@dataclass(frozen=True)
class BatchRecord:
    """One batch, scored.

    Attributes:
        batch: its number.
        windows: a score for each window.
        lr_size: height and width of the LR frames of its first window.
        device: the name of the device.
        network_frames: frames the network made, including those around windows; 0 for saved frames.
        network_seconds: time in the network.
        stage_seconds: time in each of its stages, if it has any.
        scoring_seconds: time in the metrics.
        waiting_seconds: time spent waiting for frames.
        warm: whether the process had seen batches of this shape before, so that the time counts.
        peak_memory: so far, MiB; of the network's passes on a GPU, of the whole process on a CPU.
    """

    batch: int
    windows: list[WindowScore]
    lr_size: tuple[int, int]
    device: str
    network_frames: int
    network_seconds: float
    stage_seconds: dict[str, float]
    scoring_seconds: float
    waiting_seconds: float
    warm: bool
    peak_memory: float


class Progress(Unfinished):
    """The folder of an evaluation that is not finished.

    Args:
        folder: where.
        identity: everything that decides the scores, as plain values.
    """

    def __init__(self, folder: Path, identity: dict[str, Any]) -> None:
        super().__init__(folder, identity, job="evaluation", elsewhere="choose another output_dir")

    def records(self, is_current: Callable[[BatchRecord], bool]) -> dict[int, BatchRecord]:
        """The batches scored so far, by number.

        Args:
            is_current: whether what a record was scored on is unchanged; other records are ignored.
        """
        records = {}
        for path in sorted(self.folder.glob("part-*.jsonl")):
            for line in path.read_bytes().split(b"\n")[:-1]:  # what follows the last line break was cut off
                try:
                    record = _parse(line)
                except (ValueError, TypeError, KeyError):  # a power cut may leave anything
                    continue
                if is_current(record):
                    records[record.batch] = record
        return records

    @contextmanager
    def part(self, rank: int) -> Iterator["Part"]:
        """A new file for a process to append to."""
        number = len(list(self.folder.glob(f"part-{rank:03d}-*.jsonl")))
        with (self.folder / f"part-{rank:03d}-{number:03d}.jsonl").open("w") as file:
            yield Part(file)


class Part:
    """The records of one process."""

    def __init__(self, file: TextIO) -> None:
        self.file = file

    def add(self, record: BatchRecord) -> None:
        """Appends a batch, in one write, so that it counts whole or not at all."""
        self.file.write(json.dumps(asdict(record)) + "\n")
        self.file.flush()


def _parse(line: bytes) -> BatchRecord:
    values = json.loads(line)
    windows = [WindowScore(**window | {"size": tuple(window["size"])}) for window in values["windows"]]
    return BatchRecord(**{**values, "windows": windows, "lr_size": tuple(values["lr_size"])})
