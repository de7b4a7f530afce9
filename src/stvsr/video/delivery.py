"""An output appears under its name when it is whole, whatever happens before.

Until then everything lies in a hidden folder beside it, on the same disk. A job that was killed or interrupted
finds its work there. One that failed (a full disk, a vanished input) leaves nothing behind, unless long work is done
already, which is kept, and said.
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
"""What was found out for the frames, which is of use with frames alone."""

OF_A_PLACE = (errno.EACCES, errno.EPERM, errno.EROFS)
"""What the system says of a place where nothing of that name can be made, now or later."""

LONGEST_NAME = 255
"""Bytes that file systems allow."""

WORTH_KEEPING = 60.0
"""Seconds of work that a job that failed keeps."""

FROM_A_PIPE = "a pipe cannot be continued; to send it again remove that, or add --overwrite"


@dataclass(frozen=True)
class Place:
    """Where a job works.

    Attributes:
        output: the name that the whole gets.
        folder: for everything before; None for standard output, of which nothing is kept.
        overwrite: whether something may have the name already.
    """

    output: Path
    folder: Path | None
    overwrite: bool = False

    @property
    def begun(self) -> bool:
        """Whether some of the work lies there already."""
        return self.folder is not None and any(entry.name != SETTINGS for entry in work_in(self.folder))

    def deliver(self, whole: Path | None) -> None:
        """Gives the whole its name, in place of what had it before."""
        if whole is None or self.folder is None:
            return
        # Something may have taken the name meanwhile.
        check_free(self.output, overwrite=self.overwrite)
        if whole.is_file():
            # The parts it was made of go next.
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
    """The identity of the job whose unfinished work of an output lies there; nothing where there is none."""
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
        output: a file or folder for which `check_free` holds.
        identity: everything that decides the frames, as plain values.
        overwrite: whether an output may be there, and unfinished work of another job.
        resumable: whether the same job can be continued later.
        in_parts: whether a part of the work is of use to somebody.

    Raises:
        InvalidInput: another job has begun or runs there, or something took the name meanwhile.
        UserError: reading or writing failed.
        Interrupted: by Ctrl-C; the same job can be resumed.
    """
    if output == STANDARD:
        with _in_words(output):
            yield Place(output, None)
        return
    folder = _folder(output)
    unfinished = Unfinished(folder, identity, job=JOB, elsewhere="add --overwrite")
    started = time.monotonic()
    with ExitStack() as stack:
        _take(stack, unfinished, output, overwrite=overwrite)
        place = Place(output, folder, overwrite)
        # What another job had left may be gone.
        resumed = place.begun
        try:
            with _in_words(output):
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
                then = _way_on(error, output) if resumable else FROM_A_PIPE
                raise UserError(f"{one_line(error)}; what is done is kept in {folder}: {then}") from None
            raise
        unfinished.finish()


def _take(stack: ExitStack, unfinished: Unfinished, output: Path, *, overwrite: bool) -> None:
    """Makes the folder of a job, or takes what lies there, and keeps others out of it until the stack ends."""
    folder = unfinished.folder
    found = bool(work_in(folder))
    with _in_words(output):
        try:
            folder.mkdir(exist_ok=True)
        except OSError as error:
            if error.errno in OF_A_PLACE:
                # Names the output: its user does not know the hidden folder. A second try would end the same way.
                raise InvalidInput(f"{output}: {error.strerror}; choose a folder that can be written to") from None
            raise
    try:
        # Not `unfinished.locked()`, which would advise --overwrite: a job that runs keeps that out as well.
        stack.enter_context(folder_lock(folder, JOB, "choose another output"))
    except OSError:
        # As where there are too many open files. What is not empty stays.
        with suppress(OSError):
            folder.rmdir()
        raise
    try:
        with _in_words(output):
            unfinished.claim(discard_other=overwrite)
    except UserError:
        # A disk that is full already; a folder that was there belongs to another job.
        if not found:
            shutil.rmtree(folder, ignore_errors=True)
        raise


def _way_on(error: UserError, output: Path) -> str:
    """What to do with the work that is kept after an error."""
    kind = CONTAINERS.get(output.suffix.lower())
    if isinstance(error, Unreadable) and kind is not None and kind.quicktime:
        # Matroska takes all of their codecs, and stores rotation too.
        other = output.with_suffix(".mkv")
        return f"rename that to {_folder(other).name} and give the same command with {other} to continue"
    return "remove that first" if isinstance(error, Incomplete) else "run the same command again to continue"


def check_free(output: Path, *, overwrite: bool) -> None:
    """Refuses a name that is taken, is none, or in a folder that does not exist; standard output is always free.

    A device or a pipe is never replaced: no user means that, and as root it would succeed.

    Raises:
        InvalidInput: names it.
    """
    if output == STANDARD:
        return
    if output.name in ("", ".."):
        raise InvalidInput(f"{output}: has no name of its own; expected a file, or a new folder for PNG frames")
    if not output.parent.is_dir():
        raise InvalidInput(f"{output}: the folder {output.parent} does not exist; make it first, or choose another")
    # Everything before lies in a folder of a longer name.
    longest = LONGEST_NAME - len(_folder(output).name) + len(output.name)
    if len(os.fsencode(output.name)) > longest:
        raise InvalidInput(f"{output}: the name is too long; choose one of at most {longest} bytes")
    if output.is_mount():
        raise InvalidInput(f"{output}: is a mount point, which cannot be replaced; choose a new folder in it")
    if output.exists() and not (output.is_file() or output.is_dir()):
        raise InvalidInput(f"{output}: is a device or a pipe; choose a file, a new folder, or - for Y4M")
    entries = list(output.iterdir()) if output.is_dir() else []
    # A link whose target is gone is somebody's, too.
    taken = output.is_symlink() or (output.exists() and not (output.is_dir() and not entries))
    if taken and not overwrite:
        raise InvalidInput(f"{output}: already exists; choose another name, or add --overwrite to replace it")
    for entry in entries:
        if entry.suffix.lower() != ".png" or not entry.is_file():
            raise InvalidInput(f"{output}: holds {entry.name}; only a folder of PNG frames is replaced: choose another")


@contextmanager
def _in_words(output: Path) -> Iterator[None]:
    """Turns errors of reading and writing files into one line."""
    try:
        yield
    except (OSError, av.FFmpegError) as error:
        name = "standard output" if output == STANDARD else error.filename or output
        reason = error.strerror or one_line(error)
        raise UserError(
            f"{name}: {reason}; make sure that it can be read or written, and run the command again"
        ) from error
