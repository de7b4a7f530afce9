"""Tests of `stvsr.explanations`; those of other libraries' errors are tested with the commands that meet them."""

import errno
import os
from pathlib import Path

import pytest

from stvsr.explanations import explain_os_error
from stvsr.files import beside_then_rename, write_text


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
    assert said.startswith(f"{os.strerror(number)}: the system grants no more")
    assert "ulimit -u, -v, -n" in said


def test_a_current_folder_that_is_gone_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = OSError(errno.ENOENT, os.strerror(errno.ENOENT))
    assert explain_os_error(nothing) is None
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert explain_os_error(nothing) == ("the current folder no longer exists; change to one that does")


def test_what_is_neither_of_a_file_nor_of_a_disk_is_not_explained() -> None:
    assert explain_os_error(OSError(errno.EINVAL, os.strerror(errno.EINVAL))) is None


def test_a_folder_that_is_not_there_is_told_of_the_file_that_was_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "gone" / "table.csv"
    with pytest.raises(FileNotFoundError) as told:
        write_text(path, "rows")
    assert explain_os_error(told.value) == (
        f"{path}: No such file or directory; choose a file or folder that can be used"
    )
