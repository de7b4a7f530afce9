"""Scored batches survive a kill; damaged or foreign records do not count."""

import errno
import os
from pathlib import Path

import pytest

from conftest import taken_elsewhere
from stvsr.errors import InvalidInput
from stvsr.evaluation.progress import BatchRecord, Progress
from stvsr.evaluation.scores import WindowScore

IDENTITY = {"protocol": "paper", "checkpoint": "abc"}


def record(batch: int) -> BatchRecord:
    window = WindowScore(
        batch, {"psnr_y": [30.0, float("inf")]}, [None, 1.5], [None, "ab"], [False, True], (48, 32), None
    )
    return BatchRecord(batch, [window], (8, 12), "some device", 7, 0.5, {"first": 0.2}, 0.1, 0.0, True, 100.0)


def test_records_of_every_process_are_read_back(tmp_path: Path) -> None:
    progress = Progress(tmp_path / "progress", IDENTITY)
    progress.folder.mkdir()
    assert progress.records(bool) == {}
    for rank in (0, 1):
        with progress.part(rank) as part:
            part.add(record(rank))
            part.add(record(10 + rank))
            # Already on disk, even if the process is killed now.
            assert 10 + rank in progress.records(bool)
    again = Progress(tmp_path / "progress", IDENTITY)
    assert again.records(bool) == {number: record(number) for number in (0, 1, 10, 11)}


@pytest.mark.parametrize("cut", [1, 30, 200])
def test_a_line_that_was_cut_off_does_not_count(tmp_path: Path, cut: int) -> None:
    progress = Progress(tmp_path, IDENTITY)
    with progress.part(0) as part:
        part.add(record(0))
        part.add(record(1))
    (path,) = tmp_path.glob("part-*")
    path.write_text(path.read_text()[:-cut])
    assert list(progress.records(bool)) == [0]
    with progress.part(0) as part:
        part.add(record(1))
    assert list(progress.records(bool)) == [0, 1]


@pytest.mark.parametrize("left", [bytes(8), b'{"batch": 1, ' + bytes(8), b"\xff", b"0", b"{}", b'{"windows": [0]}'])
def test_lines_that_a_power_cut_damaged_do_not_count(tmp_path: Path, left: bytes) -> None:
    progress = Progress(tmp_path, IDENTITY)
    with progress.part(0) as part:
        part.add(record(0))
    (path,) = tmp_path.glob("part-*")
    path.write_bytes(path.read_bytes() + left + b"\n")
    assert list(progress.records(bool)) == [0]


def test_progress_of_another_evaluation_is_refused_and_says_what_differs(tmp_path: Path) -> None:
    ours, other = Progress(tmp_path, IDENTITY), Progress(tmp_path, IDENTITY | {"checkpoint": "def"})
    with ours.locked(), ours.part(0):
        pass
    says = r"another evaluation \(another checkpoint\); choose another output_dir"
    with pytest.raises(InvalidInput, match=says), other.locked():
        pass
    with ours.locked():
        ours.finish()
    with other.locked():
        pass


def test_a_second_evaluation_in_the_same_folder_is_refused_while_the_first_runs(tmp_path: Path) -> None:
    progress = Progress(tmp_path / "progress", {})
    progress.folder.mkdir()
    with (
        taken_elsewhere(tmp_path / "progress", "evaluation"),
        pytest.raises(InvalidInput, match="another evaluation is running there; wait for it, or choose another"),
        progress.locked(),
    ):
        pass
    with progress.locked():
        pass


def refuses_locks(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def lockf(*arguments: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.lockf", lockf)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS])
def test_a_file_system_without_locks_keeps_nobody_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: int
) -> None:
    refuses_locks(monkeypatch, number)
    with Progress(tmp_path / "progress", {}).locked():
        pass
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"warning: {tmp_path / 'progress'}: cannot be locked ({os.strerror(number)})")


@pytest.mark.parametrize("number", [errno.EACCES, errno.EAGAIN])
def test_either_way_a_system_says_that_a_lock_is_held_keeps_a_second_evaluation_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    refuses_locks(monkeypatch, number)
    with (
        pytest.raises(InvalidInput, match="another evaluation is running there"),
        Progress(tmp_path / "progress", {}).locked(),
    ):
        pass
