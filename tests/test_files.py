"""What appears under a name is whole, whatever happens to the machine."""

import os
from pathlib import Path

import pytest

from stvsr.files import write_text


def test_a_text_is_on_the_disk_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or a power cut could leave the name without the text, which then stops every later run."""
    path, flushed = tmp_path / "job.json", list[tuple[int, bool]]()
    monkeypatch.setattr(os, "fsync", lambda number: flushed.append((os.fstat(number).st_size, path.exists())))
    write_text(path, "whole")
    assert flushed == [(5, False)]
    assert path.read_text() == "whole"
