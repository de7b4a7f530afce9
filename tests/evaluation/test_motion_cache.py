"""Measured motion that evaluations share in one file: nothing is lost, unless two write at the same moment."""

import os
from pathlib import Path

import pytest

from stvsr.errors import InvalidInput
from stvsr.evaluation import motion_cache
from stvsr.evaluation.motion_cache import read_motion, write_motion
from stvsr.evaluation.scores import WindowScore


def measured(**pixels: float) -> list[WindowScore]:
    pairs = [None, *pixels]
    return [WindowScore(0, {}, [None, *pixels.values()], pairs, [False] * len(pairs), (48, 32), None)]


def test_what_another_evaluation_measured_meanwhile_stays(tmp_path: Path) -> None:
    path = tmp_path / "new" / "motion.csv"
    write_motion(path, measured(a=1.0))
    known = read_motion(path)
    write_motion(path, measured(b=2.0))
    assert known == {"a": 1.0}
    write_motion(path, measured(a=1.0, c=3.0))
    assert read_motion(path) == {"a": 1.0, "b": 2.0, "c": 3.0}


@pytest.mark.parametrize("content", ["name\nmine\n", "a single line", 200_000 * "x"], ids=["table", "line", "endless"])
def test_a_file_of_something_else_is_refused_and_kept(tmp_path: Path, content: str) -> None:
    path = tmp_path / "motion.csv"
    path.write_text(content)
    for refuses in (lambda: read_motion(path), lambda: write_motion(path, measured(a=1.0))):
        with pytest.raises(InvalidInput, match="not a table of measured motion"):
            refuses()
    assert path.read_text() == content


def test_a_folder_is_refused_before_anything_is_scored(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"motion_cache=.*: a folder; expected a file"):
        read_motion(tmp_path)


def test_two_processes_that_write_the_file_at_once_both_succeed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, write = tmp_path / "motion.csv", motion_cache.write_text

    def write_while_another_does(ours: Path, content: str) -> None:
        write(ours, content)
        with monkeypatch.context() as patch:
            patch.setattr(motion_cache, "write_text", write)
            patch.setattr(os, "getpid", lambda: 4711)
            write_motion(path, measured(b=2.0))
        assert read_motion(path) == {"b": 2.0}

    monkeypatch.setattr(motion_cache, "write_text", write_while_another_does)
    write_motion(path, measured(a=1.0))
    assert read_motion(path) == {"a": 1.0}
    assert [found.name for found in tmp_path.iterdir()] == ["motion.csv"]
