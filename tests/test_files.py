"""What appears under a name is whole, whatever happens to the machine."""

import errno
import os
from pathlib import Path

import pytest

from stvsr.files import beside_then_rename, checksum_of, drop_from_memory, explain_os_error, state_of, write_text


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EIO, errno.EROFS])
def test_what_a_disk_does_not_take_is_no_bug_of_ours(number: int) -> None:
    said = explain_os_error(OSError(number, os.strerror(number)))
    assert said is not None
    assert os.strerror(number) in said


def test_a_full_disk_is_told_with_the_file_that_was_written(tmp_path: Path) -> None:
    """A run may write to several disks."""
    path = tmp_path / "table.csv"
    with pytest.raises(OSError, match="No space") as told, beside_then_rename(path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert explain_os_error(told.value) == (
        f"{path}: No space left on device; make room or check the disk, then give the same command again"
    )


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE])
def test_what_a_limit_refuses_is_told_with_the_limits(number: int) -> None:
    said = explain_os_error(OSError(number, os.strerror(number), "in.mp4"))
    assert said is not None
    assert said.startswith(f"{os.strerror(number)}: the system gives no more")
    assert "ulimit -u, -v, -n" in said


def test_a_current_folder_that_is_gone_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = OSError(errno.ENOENT, os.strerror(errno.ENOENT))
    assert explain_os_error(nothing) is None
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert explain_os_error(nothing) == (
        "the folder that this command was given in does not exist any more; change to one that does"
    )


def test_what_is_neither_of_a_file_nor_of_a_disk_is_not_explained() -> None:
    assert explain_os_error(OSError(errno.EINVAL, os.strerror(errno.EINVAL))) is None


def test_a_folder_that_is_not_there_is_told_of_the_file_that_was_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "gone" / "table.csv"
    with pytest.raises(FileNotFoundError) as told:
        write_text(path, "rows")
    assert explain_os_error(told.value) == (
        f"{path}: No such file or directory; choose a file or folder that can be used"
    )


def test_a_text_is_on_the_disk_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or a power cut could leave the name without the text, which then stops every later run."""
    path, flushed = tmp_path / "job.json", list[tuple[int, bool]]()
    monkeypatch.setattr(os, "fsync", lambda number: flushed.append((os.fstat(number).st_size, path.exists())))
    write_text(path, "whole")
    assert flushed == [(5, False)]
    assert path.read_text() == "whole"


def test_an_error_about_another_file_keeps_its_name(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as told, beside_then_rename(tmp_path / "table.csv"):
        (tmp_path / "source.csv").read_text()
    assert told.value.filename == str(tmp_path / "source.csv")


def test_a_file_is_on_the_disk_before_it_is_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages that are not written yet stay in memory, and reading them says nothing of the disk."""
    path, done = tmp_path / "clips.u8", list[object]()
    path.write_bytes(b"whole")
    monkeypatch.setattr(os, "fsync", lambda number: done.append("written"))
    monkeypatch.setattr(os, "posix_fadvise", lambda number, *advice: done.append(advice))
    drop_from_memory(path)
    assert done == ["written", (0, 0, os.POSIX_FADV_DONTNEED)]


def test_a_checksum_is_of_what_is_in_files_in_whatever_order_a_file_system_names_them(tmp_path: Path) -> None:
    """Or what was begun on one machine would be another job on the next."""
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
    # Within one second, as a program that saves frames does.
    for content, nanoseconds in (("one", 1000), ("two", 2000), ("longer", 2000)):
        path.write_text(content)
        os.utime(path, ns=(0, nanoseconds))
        states.append(state_of([path]))
    states.append(state_of([path.rename(tmp_path / "2.png")]))
    assert len(set(states)) == len(states)
