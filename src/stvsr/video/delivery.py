"""An output appears under its name only when it is whole, whatever happens before.

Until then everything lies in a hidden folder beside it, on the same disk. A job that was killed or interrupted finds
its work there. One that failed (a full disk, a vanished input) leaves nothing behind, unless it had worked for long:
that is kept, and reported.
"""

import errno
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av

from stvsr.errors import Interrupted, InvalidInput, UserError, one_line
from stvsr.files import flush_to_disk
from stvsr.unfinished import Unfinished, folder_lock, identity_in, work_in
from stvsr.video.codecs import CONTAINERS
from stvsr.video.muxing import Incomplete, Unreadable
from stvsr.video.sources import STANDARD

JOB = "upscaling"
"""What a job is called in messages."""

SETTINGS = "settings.json"
"""File with a job's tiles and precision, of no use without frames."""

OF_A_PLACE = (errno.EACCES, errno.EPERM, errno.EROFS)
"""System errors after which the folder cannot be made there, now or later."""

LONGEST_NAME = 255
"""Bytes that file systems allow in a file name."""

WORTH_KEEPING = 60.0
"""Seconds after which a failed job's work is kept."""

FROM_A_PIPE = "a pipe cannot be resumed: to start over, remove that folder or add --overwrite"


@dataclass(frozen=True)
class Place:
    """Where a job works.

    Attributes:
        output: the name that the finished output gets.
        folder: for unfinished work; None for standard output, for which none is kept.
        overwrite: whether what has that name already is replaced.
    """

    output: Path
    folder: Path | None
    overwrite: bool = False

    @property
    def begun(self) -> bool:
        """Whether `folder` holds work already."""
        return self.folder is not None and any(entry.name != SETTINGS for entry in work_in(self.folder))

    def deliver(self, whole: Path | None) -> None:
        """Gives the finished output its name, in place of what had it before."""
        if whole is None or self.folder is None:
            return
        # Something may have taken the name meanwhile.
        check_free(self.output, overwrite=self.overwrite)
        if whole.is_file():
            # Before its parts are deleted.
            flush_to_disk(whole)
        if not self.output.is_dir() and not (self.output.exists() and whole.is_dir()):
            whole.replace(self.output)
            return
        # A folder cannot be replaced in one step, nor a file by a folder.
        aside = self.folder / "replaced"
        self.output.rename(aside)
        try:
            whole.replace(self.output)
        except OSError:
            aside.rename(self.output)
            raise


def begun_by(output: Path) -> dict[str, Any]:
    """The identity of the job that left unfinished work for an output; empty if there is none."""
    folder = _folder(output)
    return (identity_in(folder) if work_in(folder) else None) or {}


def _folder(output: Path) -> Path:
    return output.with_name(f".{output.name}.part")


@contextmanager
def delivery(
    output: Path, identity: dict[str, Any], *, overwrite: bool, resumable: bool, in_parts: bool
) -> Iterator[Place]:
    """A place to work until the output is delivered.

    Args:
        output: a path that `check_free` accepts.
        identity: everything that decides the frames, as plain values.
        overwrite: whether an existing output, and unfinished work of another job, are replaced.
        resumable: whether the same job can be resumed later.
        in_parts: whether unfinished work is of any use.

    Raises:
        InvalidInput: another job has left work or runs there, or something took the name meanwhile.
        UserError: reading or writing failed.
        Interrupted: by Ctrl-C; says whether the job can be resumed.
    """
    if output == STANDARD:
        with _as_user_errors(output):
            yield Place(output, None)
        return
    folder = _folder(output)
    unfinished = Unfinished(folder, identity, job=JOB, elsewhere="add --overwrite")
    started = time.monotonic()
    with ExitStack() as stack:
        _claim_folder(stack, unfinished, output, overwrite=overwrite)
        place = Place(output, folder, overwrite)
        # After `_claim_folder`, which may discard another job's work.
        resumed = place.begun
        try:
            with _as_user_errors(output):
                yield place
        except KeyboardInterrupt:
            if resumable and place.begun:
                raise Interrupted("stopped", f"run the same command again to continue (from {folder})") from None
            unfinished.finish()
            if resumable:
                raise Interrupted("stopped before the work began", None) from None
            raise Interrupted("stopped", "Y4M input or output cannot be resumed: start over") from None
        except BaseException as error:
            short = not resumed and time.monotonic() - started < WORTH_KEEPING
            if not in_parts or short or not place.begun:
                unfinished.finish()
                raise
            if isinstance(error, UserError):
                remedy = _remedy(error, output) if resumable else FROM_A_PIPE
                raise UserError(f"{one_line(error)}; work so far is kept in {folder}: {remedy}") from None
            raise
        unfinished.finish()


def _claim_folder(stack: ExitStack, unfinished: Unfinished, output: Path, *, overwrite: bool) -> None:
    """Makes a job's folder, or takes over an existing one, and locks it until the stack closes."""
    folder = unfinished.folder
    had_work = bool(work_in(folder))
    with _as_user_errors(output):
        try:
            folder.mkdir(exist_ok=True)
        except OSError as error:
            if error.errno in OF_A_PLACE:
                # Names the output: its user does not know the hidden folder. A second try would end the same way.
                raise InvalidInput(f"{output}: {error.strerror}; choose a folder that can be written to") from None
            raise
    try:
        # Not `unfinished.locked()`, which would advise --overwrite: no help while another job runs.
        stack.enter_context(folder_lock(folder, JOB, "choose another output"))
    except OSError:
        # For example, too many open files. `rmdir` spares a folder that is not empty.
        with suppress(OSError):
            folder.rmdir()
        raise
    try:
        with _as_user_errors(output):
            unfinished.claim(discard_other=overwrite)
    except UserError:
        # For example, a full disk. A folder that held work is another job's, and stays.
        if not had_work:
            shutil.rmtree(folder, ignore_errors=True)
        raise


def _remedy(error: UserError, output: Path) -> str:
    """What to do with the work kept after an error, in words."""
    kind = CONTAINERS.get(output.suffix.lower())
    if isinstance(error, Unreadable) and kind is not None and kind.quicktime:
        # Matroska takes all codecs of these containers, and stores rotation too.
        other = output.with_suffix(".mkv")
        return f"rename it to {_folder(other).name} and run the same command with {other} to continue"
    return "remove it first" if isinstance(error, Incomplete) else "run the same command again to continue"


def check_free(output: Path, *, overwrite: bool) -> None:
    """Refuses a name that is taken or unusable, or in a folder that does not exist; standard output is always free.

    A device or a pipe is never replaced: no user means that, and as root it would succeed.

    Raises:
        InvalidInput: says why.
    """
    if output == STANDARD:
        return
    # Such as `.mp4`, of an empty variable of a shell: it would be the name of a folder.
    extension_alone = output.name.lower() in (*CONTAINERS, ".y4m")
    if output.name in ("", "..") or output.name.endswith(".") or extension_alone:
        raise InvalidInput(f"{output}: not a file name; expected a file, or a new folder for PNG frames")
    if not output.parent.is_dir():
        raise InvalidInput(f"{output}: the folder {output.parent} does not exist; create it first, or choose another")
    # The folder for unfinished work has a longer name.
    longest = LONGEST_NAME - len(_folder(output).name) + len(output.name)
    if len(os.fsencode(output.name)) > longest:
        raise InvalidInput(f"{output}: the name is too long; choose one of at most {longest} bytes")
    if output.is_mount():
        raise InvalidInput(f"{output}: is a mount point, which cannot be replaced; choose a new folder in it")
    if output.exists() and not (output.is_file() or output.is_dir()):
        raise InvalidInput(f"{output}: is a device or a pipe; choose a file, a new folder, or - for Y4M")
    entries = list(output.iterdir()) if output.is_dir() else []
    # A link whose target is gone counts as taken, too.
    taken = output.is_symlink() or (output.exists() and not (output.is_dir() and not entries))
    if taken and not overwrite:
        raise InvalidInput(f"{output}: already exists; choose another name, or add --overwrite to replace it")
    for entry in entries:
        if entry.suffix.lower() != ".png" or not entry.is_file():
            raise InvalidInput(f"{output}: holds {entry.name}; only a folder of PNG frames is replaced: choose another")


@contextmanager
def _as_user_errors(output: Path) -> Iterator[None]:
    """Turns errors of reading and writing files into a one-line `UserError`."""
    try:
        yield
    except (OSError, av.FFmpegError) as error:
        name = "standard output" if output == STANDARD else error.filename or output
        reason = error.strerror or one_line(error)
        raise UserError(
            f"{name}: {reason}; make sure that it can be read or written, and run the command again"
        ) from error
