"""What was scored survives a kill; nothing else is taken for it."""

from pathlib import Path

import pytest

from stvsr.errors import InvalidInput
from stvsr.evaluation.progress import BatchRecord, Progress
from stvsr.evaluation.scores import WindowScore

IDENTITY = {"protocol": "paper", "checkpoint": "abc"}


def record(batch: int) -> BatchRecord:
    window = WindowScore(batch, {"psnr_y": [30.0, float("inf")]}, [None, 1.5], [False, True], (48, 32), None)
    return BatchRecord(batch, [window], 7, 0.5, 0.1, 0.0, True, 100.0)


def test_records_of_every_process_are_read_back(tmp_path: Path) -> None:
    progress = Progress(tmp_path / "progress", IDENTITY)
    assert progress.records() == {}
    for rank in (0, 1):
        with progress.part(rank) as part:
            part.add(record(rank))
            part.add(record(10 + rank))
    again = Progress(tmp_path / "progress", IDENTITY)
    assert again.records() == {number: record(number) for number in (0, 1, 10, 11)}


@pytest.mark.parametrize("cut", [1, 30, 200])
def test_a_line_that_was_cut_off_does_not_count(tmp_path: Path, cut: int) -> None:
    progress = Progress(tmp_path, IDENTITY)
    with progress.part(0) as part:
        part.add(record(0))
        part.add(record(1))
    (path,) = tmp_path.glob("part-*")
    path.write_text(path.read_text()[:-cut])
    assert list(progress.records()) == [0]
    with progress.part(0) as part:
        part.add(record(1))
    assert list(progress.records()) == [0, 1]


def test_progress_of_another_evaluation_is_refused_and_says_what_differs(tmp_path: Path) -> None:
    Progress(tmp_path, IDENTITY)
    with pytest.raises(InvalidInput, match=r"another evaluation \(another checkpoint\); choose another output_dir"):
        Progress(tmp_path, IDENTITY | {"checkpoint": "def"})
    Progress(tmp_path, IDENTITY).remove()
    Progress(tmp_path, IDENTITY | {"checkpoint": "def"})
