"""What appears under a name is whole, whatever happens to the machine."""

import errno
import os
from pathlib import Path

import pytest

from stvsr.files import beside_then_rename, checksum_of, drop_from_memory, state_of, write_text


def test_a_text_is_on_the_disk_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a power cut could leave the name without the text, which would stop every later run."""
    path, flushed = tmp_path / "job.json", list[tuple[int, bool]]()
    monkeypatch.setattr(os, "fsync", lambda number: flushed.append((os.fstat(number).st_size, path.exists())))
    write_text(path, "whole")
    assert flushed == [(5, False)]
    assert path.read_text() == "whole"


def test_an_error_about_another_file_keeps_its_name(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as told, beside_then_rename(tmp_path / "table.csv"):
        (tmp_path / "source.csv").read_text()
    assert told.value.filename == str(tmp_path / "source.csv")


@pytest.mark.parametrize(("number", "named"), [(errno.ENOSPC, True), (errno.EPIPE, False)], ids=["full", "pipe"])
def test_an_error_of_the_disk_that_names_no_file_is_about_the_one_that_is_written(
    tmp_path: Path, number: int, named: bool
) -> None:
    with pytest.raises(OSError, match="in words") as told, beside_then_rename(tmp_path / "table.csv"):
        raise OSError(number, "in words")
    assert told.value.filename == (str(tmp_path / "table.csv") if named else None)


def test_a_file_is_on_the_disk_before_it_is_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages not yet written stay in memory, and reading them does not check the disk."""
    path, done = tmp_path / "clips.u8", list[object]()
    path.write_bytes(b"whole")
    monkeypatch.setattr(os, "fsync", lambda number: done.append("written"))
    monkeypatch.setattr(os, "posix_fadvise", lambda number, *advice: done.append(advice))
    drop_from_memory(path)
    assert done == ["written", (0, 0, os.POSIX_FADV_DONTNEED)]


def test_a_checksum_is_of_what_is_in_files_in_whatever_order_a_file_system_names_them(tmp_path: Path) -> None:
    """Otherwise a job begun on one machine would be another job on the next."""
    one, other = (tmp_path / name for name in ("a.py", "b.py"))
    one.write_text("1")
    other.write_text("2")
    before = checksum_of([one, other])
    assert checksum_of([other, one]) == before
    other.write_text("3")
    assert checksum_of([one, other]) != before


def test_a_file_that_was_written_again_is_told_by_its_time_its_size_or_its_name(tmp_path: Path) -> None:
    path = tmp_path / "1.png"
    states = [state_of([path])]
    # Within one second, as programs that save frames may do.
    for content, nanoseconds in (("one", 1000), ("two", 2000), ("longer", 2000)):
        path.write_text(content)
        os.utime(path, ns=(0, nanoseconds))
        states.append(state_of([path]))
    states.append(state_of([path.rename(tmp_path / "2.png")]))
    assert len(set(states)) == len(states)


def test_a_name_that_no_file_can_have_is_of_one_that_is_missing(tmp_path: Path) -> None:
    """A playlist may contain such a name, which FFmpeg skips."""
    assert state_of([tmp_path / ("a" * 300)]) != state_of([tmp_path / "a"])
