"""What appears under a name is whole, whatever happens to the machine."""

import errno
import os
from pathlib import Path

import pytest

from stvsr.files import explain_os_error, write_text


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EFBIG, errno.EDQUOT])
def test_what_a_disk_does_not_take_is_no_bug_of_ours(number: int) -> None:
    said = explain_os_error(OSError(number, os.strerror(number)))
    assert said is not None
    assert os.strerror(number) in said


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
