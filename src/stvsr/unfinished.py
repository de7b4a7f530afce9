"""The folder of a long job that is not finished: after a kill the same job resumes there, one run at a time."""

import errno
import fcntl
import hashlib
import json
import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from stvsr.errors import InvalidInput
from stvsr.files import write_text

JOB_FILE = "job.json"
"""The file that tells whose progress a folder holds."""

LOCK = "lock"
"""The file that the job that runs there keeps locked."""


PACKAGE = Path(__file__).parent


def code_of(*rooms: str, modules: Iterable[str] = ()) -> str:
    """Changes with the code that a job runs, which may become another while it is stopped.

    Args:
        rooms: folders of this package.
        modules: names of modules of a user's own.
    """
    ours = (path for room in rooms for path in (PACKAGE / room).rglob("*.py"))
    own = (file for name in modules if (file := getattr(sys.modules.get(name), "__file__", None)))
    contents = [*map(_content, ours), *(Path(file).read_bytes() for file in own)]
    # Sorted by what is in them: the package may lie elsewhere the next time.
    return hashlib.sha256(b"".join(sorted(contents))).hexdigest()


@cache
def _content(path: Path) -> bytes:
    """Of a file of this package as it was at first: that code runs in this process, whatever the file becomes."""
    return path.read_bytes()


class Unfinished:
    """A folder for what a job has done so far.

    Args:
        folder: where; made if it is not there.
        identity: everything that decides what comes out, as plain values.
        job: what it is called in messages, for example "evaluation".
        elsewhere: what to do where the folder belongs to another job, for example "choose another output_dir".

    Raises:
        InvalidInput: the folder holds the progress of another job, or files that no job made.
    """

    def __init__(self, folder: Path, identity: dict[str, Any], *, job: str, elsewhere: str) -> None:
        self.folder = folder
        self.identity = identity
        self.job = job
        self.elsewhere = elsewhere
        said = _serialised(identity)
        path = folder / JOB_FILE
        folder.mkdir(parents=True, exist_ok=True)
        if path.is_file() and path.read_text() != said:
            theirs = json.loads(path.read_text())
            different = [key for key in identity if theirs.get(key) != identity[key]]
            raise InvalidInput(
                f"{folder}: holds the progress of another {job} (another {', '.join(different)}); "
                f"{elsewhere}, or remove that folder to start over"
            )
        # Not by every process of a shared job: the first one has written it.
        if not path.is_file():
            # All of the folder is removed at the end. Hidden files are a file system's, or a text half written.
            if any(entry.name != LOCK and not entry.name.startswith(".") for entry in folder.iterdir()):
                raise InvalidInput(
                    f"{folder}: holds files that are not of an unfinished {job}; {elsewhere}, or remove them"
                )
            write_text(path, said)

    def locked(self) -> AbstractContextManager[None]:
        """Keeps a second run of the job out of the folder; a killed one keeps nobody out.

        Raises:
            InvalidInput: another one is running there.
        """
        return alone_in(self.folder, self.job, self.elsewhere)

    def remove(self) -> None:
        """Removes the folder; what was to be done is done."""
        _remove(self.folder)


def _serialised(identity: dict[str, Any]) -> str:
    return json.dumps(identity, indent=1, sort_keys=True)


def discard_other(folder: Path, identity: dict[str, Any], *, job: str, elsewhere: str) -> None:
    """Removes the folder of another unfinished job; that of the same job stays. Arguments as for `Unfinished`.

    Raises:
        InvalidInput: a job is running there.
    """
    if folder.is_dir():
        with alone_in(folder, job, elsewhere):
            path = folder / JOB_FILE
            if not path.is_file() or path.read_text() != _serialised(identity):
                _remove(folder)


def _remove(folder: Path) -> None:
    """Removes a folder whose lock this process holds."""
    # On NFS the lock, which is open, keeps its folder from going; what is left is empty and does no harm.
    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def alone_in(folder: Path, job: str, elsewhere: str) -> Iterator[None]:
    """Keeps a second job out of a folder that exists; a killed one keeps nobody out. Arguments as for `Unfinished`.

    Raises:
        InvalidInput: another one is running there.
    """
    with (folder / LOCK).open("w") as file:
        try:
            # Unlike flock's, this lock is not passed on to loader processes, which outlive a kill for seconds.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                raise InvalidInput(f"{folder}: another {job} is running there; wait for it, or {elsewhere}") from None
            # Some file systems, of clusters above all, have no locks.
            print(
                f"warning: {folder}: cannot be locked ({error.strerror}); let no other {job} run there",
                file=sys.stderr,
            )
        yield
