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


def test_a_text_is_on_the_disk_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or a power cut could leave the name without the text, which then stops every later run."""
    path, flushed = tmp_path / "job.json", list[tuple[int, bool]]()
    monkeypatch.setattr(os, "fsync", lambda number: flushed.append((os.fstat(number).st_size, path.exists())))
    write_text(path, "whole")
    assert flushed == [(5, False)]
    assert path.read_text() == "whole"
