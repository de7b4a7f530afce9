"""The folder of a long job that is not finished: after a kill the same job resumes there, one run at a time."""

import errno
import fcntl
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stvsr.errors import InvalidInput
from stvsr.files import checksum_of, write_text
from stvsr.terminal import TERMINAL

JOB_FILE = "job.json"
"""The file that tells whose progress a folder holds."""

LOCK = "lock"
"""The file that the job that runs there keeps locked."""


PACKAGE = Path(__file__).parent


def code_checksum(*rooms: str) -> str:
    """Changes with the code of rooms of this package, which may become another while a job is stopped."""
    files = ((path, path.relative_to(PACKAGE).parts) for path in PACKAGE.rglob("*.py"))
    # Hidden files are an editor's.
    return checksum_of(
        path for path, parts in files if parts[0].removesuffix(".py") in rooms and not _is_hidden(*parts)
    )


class Unfinished:
    """A folder for what a job has done so far.

    Args:
        folder: where.
        identity: everything that decides what comes out, as plain values.
        job: what it is called in messages, for example "evaluation".
        elsewhere: what to do where the folder belongs to another job, for example "choose another output_dir".
    """

    def __init__(self, folder: Path, identity: dict[str, Any], *, job: str, elsewhere: str) -> None:
        self.folder = folder
        self.identity = identity
        self.job = job
        self.elsewhere = elsewhere

    @contextmanager
    def locked(self, *, discard_other: bool = False) -> Iterator[None]:
        """Makes the folder this job's, and keeps a second run out of it; a killed one keeps nobody out.

        Args:
            discard_other: as for `claim`.

        Raises:
            InvalidInput: as `claim`, or another job is running there.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        # First: of two jobs begun at once only one may write whose folder it is.
        with folder_lock(self.folder, self.job, self.elsewhere):
            self.claim(discard_other=discard_other)
            yield

    def claim(self, *, discard_other: bool = False) -> None:
        """Notes whose folder it is, which this process must have locked.

        Args:
            discard_other: whether the work of another job there is thrown away, not refused.

        Raises:
            InvalidInput: the folder holds the work of another job, or files that no job made.
        """
        path, theirs = self.folder / JOB_FILE, identity_in(self.folder)
        if theirs == json.loads(said := json.dumps(self.identity, indent=1, sort_keys=True)):
            return
        if work := work_in(self.folder):
            holds, remedy = f"files that are not of an unfinished {self.job}", "remove them"
            if theirs is not None:
                different = ", ".join(
                    key for key in self.identity | theirs if theirs.get(key) != self.identity.get(key)
                )
                holds = f"the progress of another {self.job} (another {different})"
                remedy = "remove that folder to start over"
            if not discard_other:
                raise InvalidInput(f"{self.folder}: holds {holds}; {self.elsewhere}, or {remedy}")
            print(f"{self.folder}: held {holds}, which is thrown away", file=TERMINAL)
            # The identity first: nobody may resume from a part of it.
            for entry in [path, *work]:
                remove(entry)
        write_text(path, said)

    def finish(self) -> None:
        """Removes the folder: what was to be done is done, or is of no use."""
        # The identity last: what a kill in the middle leaves still belongs to this job.
        for entry in work_in(self.folder):
            remove(entry)
        remove(self.folder)


def identity_in(folder: Path) -> dict[str, Any] | None:
    """Whose work a folder holds; None where nothing tells, or nothing that can be read."""
    try:
        told = json.loads((folder / JOB_FILE).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return told if isinstance(told, dict) else None


def work_in(folder: Path) -> list[Path]:
    """What a job has made in its folder; none where that is not there."""
    entries = folder.iterdir() if folder.is_dir() else ()
    # Hidden files are a file system's, or a text half written.
    return [entry for entry in entries if entry.name not in (JOB_FILE, LOCK) and not _is_hidden(entry.name)]


def _is_hidden(*names: str) -> bool:
    return any(name.startswith(".") for name in names)


def remove(path: Path) -> None:
    """Removes what lies in a folder whose lock this process holds, or that folder; nothing where nothing is there."""
    # On NFS the lock, which is open, keeps its folder from going; what is left is empty and does no harm.
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def folder_lock(folder: Path, job: str, elsewhere: str) -> Iterator[None]:
    """Keeps a second job out of a folder that exists; a killed one keeps nobody out. Arguments as for `Unfinished`.

    Raises:
        InvalidInput: another one is running there.
    """
    # Not emptied: it may be a file of the user's.
    with (folder / LOCK).open("a") as file:
        try:
            # Unlike flock's, this lock is not passed on to loader processes, which outlive a kill for seconds.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                raise InvalidInput(f"{folder}: another {job} is running there; wait for it, or {elsewhere}") from None
            # Some file systems, of clusters above all, have no locks.
            warning = f"warning: {folder}: cannot be locked ({error.strerror}); let no other {job} run there"
            print(warning, file=TERMINAL)
        yield
