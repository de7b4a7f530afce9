"""The folder of a long job's unfinished work, from which the job resumes after a kill, one process at a time."""

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
"""The file with the identity of the job whose progress a folder holds."""

LOCK = "lock"
"""The file that a job keeps locked while it runs in the folder."""


PACKAGE = Path(__file__).parent


def code_checksum(*rooms: str) -> str:
    """A checksum of the code in rooms (top-level modules) of this package, which may change while a job is stopped."""
    files = ((path, path.relative_to(PACKAGE).parts) for path in PACKAGE.rglob("*.py"))
    # Hidden files are left by editors.
    return checksum_of(
        path for path, parts in files if parts[0].removesuffix(".py") in rooms and not _is_hidden(*parts)
    )


class Unfinished:
    """A folder for what a job has done so far.

    Args:
        folder: the folder's path.
        identity: everything that determines the job's results, as plain values.
        job: the kind of job in messages, for example "evaluation".
        elsewhere: what to do if the folder belongs to another job, for example "choose another output_dir".
    """

    def __init__(self, folder: Path, identity: dict[str, Any], *, job: str, elsewhere: str) -> None:
        self.folder = folder
        self.identity = identity
        self.job = job
        self.elsewhere = elsewhere

    @contextmanager
    def locked(self, *, discard_other: bool = False) -> Iterator[None]:
        """Claims and locks the folder for this job during the block; a killed process leaves no lock behind.

        Args:
            discard_other: as for `claim`.

        Raises:
            InvalidInput: as for `claim`, or another job is running there.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        # Locked first: of two jobs started at once only one may write its identity.
        with folder_lock(self.folder, self.job, self.elsewhere):
            self.claim(discard_other=discard_other)
            yield

    def claim(self, *, discard_other: bool = False) -> None:
        """Writes this job's identity to the folder, which this process must have locked.

        Args:
            discard_other: whether to discard the work of another job there rather than refuse it.

        Raises:
            InvalidInput: the folder holds the work of another job, or files that no job made.
        """
        path, stored = self.folder / JOB_FILE, identity_in(self.folder)
        if stored == json.loads(content := json.dumps(self.identity, indent=1, sort_keys=True)):
            return
        if work := work_in(self.folder):
            contents, remedy = f"files that are not from an unfinished {self.job}", "remove them"
            if stored is not None:
                different = ", ".join(
                    key for key in self.identity | stored if stored.get(key) != self.identity.get(key)
                )
                contents = f"the progress of another {self.job} (another {different})"
                remedy = "remove that folder to start over"
            if not discard_other:
                raise InvalidInput(f"{self.folder}: holds {contents}; {self.elsewhere}, or {remedy}")
            print(f"{self.folder}: held {contents}, which is discarded", file=TERMINAL)
            # The identity first: after a kill, nobody may resume from a part.
            for entry in [path, *work]:
                remove(entry)
        write_text(path, content)

    def finish(self) -> None:
        """Removes the folder, when the job is done or its work of no use."""
        # The identity last: whatever a kill in between leaves still belongs to this job.
        for entry in work_in(self.folder):
            remove(entry)
        remove(self.folder)


def identity_in(folder: Path) -> dict[str, Any] | None:
    """The identity of the job whose work a folder holds; None if it is missing or unreadable."""
    try:
        identity = json.loads((folder / JOB_FILE).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return identity if isinstance(identity, dict) else None


def work_in(folder: Path) -> list[Path]:
    """What a job has made in its folder; nothing if the folder does not exist."""
    entries = folder.iterdir() if folder.is_dir() else ()
    # Hidden files belong to the file system, or are half-written texts.
    return [entry for entry in entries if entry.name not in (JOB_FILE, LOCK) and not _is_hidden(entry.name)]


def _is_hidden(*names: str) -> bool:
    return any(name.startswith(".") for name in names)


def remove(path: Path) -> None:
    """Removes, if it exists, a folder whose lock this process holds, or something in it."""
    # On NFS the open lock file keeps its folder from being removed; what is left is harmless.
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def folder_lock(folder: Path, job: str, elsewhere: str) -> Iterator[None]:
    """Locks an existing folder during the block; a killed process leaves no lock. Arguments as for `Unfinished`.

    Raises:
        InvalidInput: another job is running there.
    """
    # Not truncated: it may be a file of the user's.
    with (folder / LOCK).open("a") as file:
        try:
            # Unlike flock's, this lock is not inherited by loader processes, which outlive a kill by seconds.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                raise InvalidInput(f"{folder}: another {job} is running there; wait for it, or {elsewhere}") from None
            # Some file systems, mainly of clusters, do not support locks.
            warning = f"{folder}: cannot be locked ({error.strerror}); make sure that no other {job} runs there"
            print(f"warning: {warning}", file=TERMINAL)
        yield
