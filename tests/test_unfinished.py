"""The folder of an unfinished job: whose it is, and that a kill or a file system's ways keep nobody out of it."""

import errno
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from stvsr.unfinished import Unfinished, _content, code_of, discard_other

IDENTITY = {"input": "in.mp4"}


def unfinished(folder: Path) -> Unfinished:
    return Unfinished(folder, IDENTITY, job="job", elsewhere="choose another output")


def discard(folder: Path, identity: dict[str, str]) -> None:
    discard_other(folder, identity, job="job", elsewhere="choose another output")


def test_what_a_kill_left_of_the_first_file_keeps_nobody_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(self: Path, target: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", killed)
    monkeypatch.setattr(Path, "unlink", lambda *arguments, **options: None)
    with pytest.raises(KeyboardInterrupt):
        unfinished(tmp_path)
    monkeypatch.undo()
    assert list(tmp_path.iterdir())
    unfinished(tmp_path)


def test_a_process_that_outlives_a_kill_keeps_nobody_out(tmp_path: Path) -> None:
    """As loader processes do for seconds."""
    program = (
        "import os, sys; from pathlib import Path; from stvsr.unfinished import alone_in\n"
        "with alone_in(Path(sys.argv[1]), 'job', '-'):\n"
        "    if os.fork() == 0: sys.stdin.read()\n"
        "    os._exit(0)"
    )
    folder = tmp_path / "out.part"
    folder.mkdir()
    command = [sys.executable, "-c", program, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as killed:
        assert killed.stdin is not None
        assert killed.wait() == 0
        with unfinished(folder).locked():
            pass
        killed.stdin.close()


def test_the_folder_of_another_job_is_discarded_and_that_of_the_same_job_stays(tmp_path: Path) -> None:
    folder = tmp_path / ".out.part"
    unfinished(folder)
    (folder / "000000.mkv").touch()
    discard(folder, IDENTITY)
    assert (folder / "000000.mkv").is_file()
    discard(folder, {"input": "other.mp4"})
    assert not folder.exists()
    discard(folder, IDENTITY)


def test_a_folder_that_stays_because_its_lock_is_open_is_used_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on NFS, where an open file that is removed keeps another, hidden name in its folder."""

    def silly_rename(*arguments: object, **options: object) -> None:
        (folder / ".nfs0001").touch()
        raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY))

    folder = tmp_path / ".out.part"
    for leave in (Unfinished.remove, lambda job: discard(job.folder, {"input": "other.mp4"})):
        job = unfinished(folder)
        (folder / "000000.mkv").touch()
        with monkeypatch.context() as nfs:
            nfs.setattr(os, "rmdir", silly_rename)
            leave(job)
        assert [path.name for path in folder.iterdir()] == [".nfs0001"]
    unfinished(folder)


def test_other_code_is_another_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package, own = tmp_path / "stvsr", tmp_path / "lab.py"
    for file in (package / "models" / "a.py", package / "models" / "deep" / "b.py", package / "video" / "c.py", own):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"# {file.name}")
    monkeypatch.setattr("stvsr.unfinished.PACKAGE", package)
    monkeypatch.setitem(sys.modules, "lab", SimpleNamespace(__file__=str(own)))
    before = code_of("models", modules=["lab", "no_such"])
    assert code_of("models", modules=["lab"]) == before
    (package / "video" / "c.py").write_text("# of another room")
    (package / "models" / "a.py").write_text("# what runs in this process is what it was")
    assert code_of("models", modules=["lab"]) == before
    # A user may load a file again.
    for file in (own, package / "models" / "deep" / "b.py"):
        file.write_text(f"# {file.name}, again")
        if file != own:
            _content.cache_clear()  # as in another process
        assert code_of("models", modules=["lab"]) != before
        before = code_of("models", modules=["lab"])
