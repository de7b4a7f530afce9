"""Whatever has the output's name is replaced as a whole, or stays."""

import os
from pathlib import Path

import pytest

from conftest import taken_elsewhere
from stvsr.errors import Interrupted, InvalidInput, UserError
from stvsr.video.delivery import SETTINGS, Place, check_free, delivery


def test_only_a_folder_of_nothing_but_files_of_frames_is_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    check_free(folder, overwrite=False)
    (folder / "1.PNG").touch()
    check_free(folder, overwrite=True)
    with pytest.raises(InvalidInput, match="already exists"):
        check_free(folder, overwrite=False)
    (folder / "more.png").mkdir()
    with pytest.raises(InvalidInput, match=r"holds more\.png"):
        check_free(folder, overwrite=True)


def test_a_disk_that_is_full_already_is_left_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("stvsr.unfinished.write_text", fail)
    with (
        pytest.raises(UserError, match="No space left on device"),
        delivery(tmp_path / "out.mkv", {}, overwrite=False, resumable=True, in_parts=True),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("resumable", "in_parts", "kept", "says"),
    [
        (True, True, True, r"disk; work so far is kept in .*: run the same command again"),
        (
            False,
            True,
            True,
            r"disk; work so far is kept in .*: a pipe cannot be resumed: to start over, remove that folder",
        ),
        (False, False, False, r"disk$"),
    ],
)
def test_what_was_made_before_a_failure_is_kept_where_it_is_of_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resumable: bool, in_parts: bool, kept: bool, says: str
) -> None:
    """A disk may fill up after hours of work, while its parts are joined."""
    monkeypatch.setattr("stvsr.video.delivery.WORTH_KEEPING", 0.0)
    part = tmp_path / ".out.mkv.part" / "1.mkv"

    def work() -> None:
        with delivery(tmp_path / "out.mkv", {}, overwrite=False, resumable=resumable, in_parts=in_parts):
            part.touch()
            raise UserError("no room on this disk")

    with pytest.raises(UserError, match=says):
        work()
    assert part.is_file() is kept


def test_a_failure_after_the_work_of_another_job_was_thrown_away_leaves_nothing(tmp_path: Path) -> None:
    """The discarded work was not this job's, which failed at once."""
    part = tmp_path / ".out.mkv.part" / "1.mkv"
    part.parent.mkdir()
    part.touch()

    def work() -> None:
        with delivery(tmp_path / "out.mkv", {}, overwrite=True, resumable=True, in_parts=True):
            part.touch()
            raise UserError("damaged")

    with pytest.raises(UserError, match=r"^damaged$"):
        work()
    assert not part.parent.exists()


def test_of_two_jobs_begun_at_once_one_is_refused_and_the_folder_is_the_others(tmp_path: Path) -> None:
    # The other job has not yet recorded that the folder is its own.
    (folder := tmp_path / ".out.mkv.part").mkdir()
    with taken_elsewhere(folder, "upscaling"):
        with (
            pytest.raises(InvalidInput, match="another upscaling is running there"),
            delivery(tmp_path / "out.mkv", {"crf": 30}, overwrite=False, resumable=True, in_parts=True),
        ):
            pass
        assert [path.name for path in folder.iterdir()] == ["lock"]


def test_a_lock_that_cannot_be_opened_leaves_no_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stvsr.unfinished.LOCK", "no/lock")
    with (
        pytest.raises(FileNotFoundError),
        delivery(tmp_path / "out.mkv", {}, overwrite=False, resumable=True, in_parts=True),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_no_job_made_stays(tmp_path: Path) -> None:
    (tmp_path / ".out.mkv.part").mkdir()
    (tmp_path / ".out.mkv.part" / "letter.txt").write_text("precious")
    with (
        pytest.raises(InvalidInput, match="holds files that are not from an unfinished upscaling"),
        delivery(tmp_path / "out.mkv", {}, overwrite=False, resumable=True, in_parts=True),
    ):
        pass
    assert (tmp_path / ".out.mkv.part" / "letter.txt").read_text() == "precious"


def test_an_output_is_on_the_disk_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its parts are deleted next, so a power cut could otherwise destroy both."""
    place, flushed = Place(tmp_path / "out.mkv", tmp_path), list[tuple[int, bool]]()
    (whole := tmp_path / "whole").write_bytes(b"whole")
    monkeypatch.setattr(os, "fsync", lambda number: flushed.append((os.fstat(number).st_size, place.output.exists())))
    place.deliver(whole)
    assert flushed == [(5, False)]
    assert place.output.read_bytes() == b"whole"


@pytest.mark.parametrize("old", ["file", "folder"])
def test_an_output_that_cannot_be_put_in_its_place_leaves_there_what_was(tmp_path: Path, old: str) -> None:
    place = Place(tmp_path / "out", tmp_path / ".out.part", overwrite=True)
    (tmp_path / ".out.part").mkdir()
    kept = place.output
    if old == "folder":
        place.output.mkdir()
        kept = place.output / "1.png"
    kept.write_text("old")
    with pytest.raises(FileNotFoundError):
        place.deliver(tmp_path / ".out.part" / "gone")
    assert kept.read_text() == "old"


def test_a_job_that_is_stopped_before_a_frame_is_finished_leaves_nothing_that_promises_to_go_on(tmp_path: Path) -> None:
    """Its tiles and precision are of no use, but would keep out a next job with other options."""

    def stop() -> None:
        with delivery(tmp_path / "out.mkv", {}, overwrite=False, resumable=True, in_parts=True) as place:
            assert place.folder is not None
            (place.folder / SETTINGS).write_text("{}")
            raise KeyboardInterrupt

    with pytest.raises(Interrupted, match="stopped before the work began"):
        stop()
    assert list(tmp_path.iterdir()) == []
