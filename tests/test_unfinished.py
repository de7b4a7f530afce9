"""The folder of an unfinished job: which job owns it, and that no kill or quirk of a file system keeps anyone out."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import taken_elsewhere
from stvsr.errors import InvalidInput
from stvsr.unfinished import Unfinished, code_checksum, folder_lock

IDENTITY = {"input": "in.mp4"}


def unfinished(folder: Path, **identity: str) -> Unfinished:
    return Unfinished(folder, identity or IDENTITY, job="job", elsewhere="choose another output")


def test_what_a_kill_left_of_the_first_file_keeps_nobody_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(self: Path, target: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", killed)
    monkeypatch.setattr(Path, "unlink", lambda *arguments, **options: None)
    with pytest.raises(KeyboardInterrupt), unfinished(tmp_path).locked():
        pass
    monkeypatch.undo()
    assert len(list(tmp_path.iterdir())) == 2, "the lock and a text half written"
    with unfinished(tmp_path).locked():
        pass


def test_a_process_that_outlives_a_kill_keeps_nobody_out(tmp_path: Path) -> None:
    """Loader processes do so for seconds."""
    program = (
        "import os, sys; from pathlib import Path; from stvsr.unfinished import folder_lock\n"
        "with folder_lock(Path(sys.argv[1]), 'job', '-'):\n"
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


def test_a_file_of_the_users_that_is_called_lock_keeps_its_content(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("precious")
    with folder_lock(tmp_path, "job", "choose another output"):
        pass
    assert (tmp_path / "lock").read_text() == "precious"


def test_work_of_another_job_is_refused_or_thrown_away_and_that_of_the_same_job_stays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / ".out.part"
    work = folder / "000000.mkv"
    with unfinished(folder).locked():
        work.touch()
    for discard_other in (False, True):
        with unfinished(folder).locked(discard_other=discard_other):
            assert work.is_file()
    other = unfinished(folder, input="other.mp4", device="cpu")
    with (
        pytest.raises(InvalidInput, match=r"another job \(another input, device\); choose another output"),
        other.locked(),
    ):
        pass
    assert capsys.readouterr().err == ""
    with other.locked(discard_other=True):
        assert not work.exists()
    assert "held the progress of another job (another input, device), which is discarded" in capsys.readouterr().err
    with unfinished(folder).locked():  # without work, the folder belongs to no job
        pass


def test_work_that_is_half_thrown_away_is_nobodys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise its job would continue with what is left."""
    with unfinished(tmp_path).locked():
        for name in ("0.mkv", "1.mkv"):
            (tmp_path / name).touch()
    unlink = Path.unlink

    def killed_at_the_first_picture(path: Path, missing_ok: bool = False) -> None:
        if path.suffix == ".mkv":
            raise KeyboardInterrupt
        unlink(path, missing_ok=missing_ok)

    other = unfinished(tmp_path, input="other.mp4")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", killed_at_the_first_picture)
        with pytest.raises(KeyboardInterrupt), other.locked(discard_other=True):
            pass
    with pytest.raises(InvalidInput, match="files that are not from an unfinished job"), unfinished(tmp_path).locked():
        pass


@pytest.mark.parametrize("told", ["", "[1]", "\x00\x00"])
def test_work_of_which_a_damaged_disk_no_longer_tells_whose_it_is_is_nobodys(tmp_path: Path, told: str) -> None:
    (tmp_path / "job.json").write_text(told)
    with unfinished(tmp_path).locked():
        pass
    (tmp_path / "job.json").write_text(told)
    (tmp_path / "000000.mkv").touch()
    with pytest.raises(InvalidInput, match="files that are not from an unfinished job"), unfinished(tmp_path).locked():
        pass
    with unfinished(tmp_path).locked(discard_other=True):
        assert not (tmp_path / "000000.mkv").exists()


def test_of_two_jobs_begun_at_once_one_alone_says_whose_the_folder_is(tmp_path: Path) -> None:
    with unfinished(tmp_path).locked():
        pass
    said = (tmp_path / "job.json").read_text()
    other = unfinished(tmp_path, input="other.mp4")
    with taken_elsewhere(tmp_path, "job"), pytest.raises(InvalidInput, match="is running there"), other.locked():
        pass
    assert (tmp_path / "job.json").read_text() == said


def test_what_a_kill_leaves_of_a_folder_that_is_being_removed_is_still_taken_for_that_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / ".out.part"
    job = unfinished(folder)
    with job.locked(), monkeypatch.context() as killed:
        (folder / "000000.mkv").touch()

        def kill(path: Path, missing_ok: bool = False) -> None:
            raise KeyboardInterrupt

        killed.setattr(Path, "unlink", kill)
        with pytest.raises(KeyboardInterrupt):
            job.finish()
    with unfinished(folder).locked():
        assert (folder / "000000.mkv").is_file()


def test_a_folder_that_stays_because_its_lock_is_open_is_used_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On NFS, an open file that is removed stays in its folder under a hidden name."""

    def silly_rename(*arguments: object, **options: object) -> None:
        (folder / ".nfs0001").touch()
        raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY))

    folder = tmp_path / ".out.part"
    job = unfinished(folder)
    with job.locked(), monkeypatch.context() as nfs:
        (folder / "000000.mkv").touch()
        nfs.setattr(os, "rmdir", silly_rename)
        job.finish()
    assert [path.name for path in folder.iterdir()] == [".nfs0001"]
    with unfinished(folder).locked():
        pass


def test_other_code_is_another_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "stvsr"
    for file in ("models/a.py", "models/deep/b.py", "video/c.py", "graphs.py"):
        (package / file).parent.mkdir(parents=True, exist_ok=True)
        (package / file).write_text(f"# {file}")
    monkeypatch.setattr("stvsr.unfinished.PACKAGE", package)
    before = code_checksum("models", "graphs")
    (package / "video" / "c.py").write_text("# of another room")
    # An editor's lock, and a notebook's backup copy.
    (package / "models" / ".#a.py").symlink_to("me@here.1:2")
    (package / "models" / ".ipynb_checkpoints").mkdir()
    (package / "models" / ".ipynb_checkpoints" / "a-checkpoint.py").write_text("# of yesterday")
    assert code_checksum("models", "graphs") == before
    for file in ("models/deep/b.py", "graphs.py"):
        (package / file).write_text(f"# {file}, again")
        assert code_checksum("models", "graphs") != before
        before = code_checksum("models", "graphs")
