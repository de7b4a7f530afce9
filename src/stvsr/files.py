"""Files appear under their name only when they are whole; checksums of what is in them."""

import errno
import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

OF_A_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)
"""What the system says of a disk without naming a file."""


@contextmanager
def beside_then_rename(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to; it takes that name when the block ends, and goes when the block fails.

    Raises:
        OSError: what the system refuses; it names `path`, not the temporary file.
    """
    beside = path.with_name(f".{path.name}.part")
    try:
        yield beside
        beside.replace(path)
    except OSError as error:
        if str(error.filename) == str(beside) or (error.filename is None and error.errno in OF_A_DISK):
            error.filename = str(path)
        raise
    finally:
        beside.unlink(missing_ok=True)


def flush_to_disk(path: Path) -> None:
    """Waits until a closed file is on the disk.

    For before it is renamed: otherwise a power cut could leave the name without the content.
    """
    with path.open("rb") as file:
        os.fsync(file.fileno())


def drop_from_memory(path: Path) -> None:
    """Writes a file's content to the disk and forgets it: what reads it next reads the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        if hasattr(os, "posix_fadvise"):  # not on macOS
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def write_text(path: Path, content: str) -> None:
    """Writes a text, UTF-8, which appears only when whole; bytes of a name that are no text become question marks."""
    with beside_then_rename(path) as beside:
        beside.write_text(content, encoding="utf-8", errors="replace", newline="")
        flush_to_disk(beside)


def checksum_of(paths: Iterable[Path]) -> str:
    """Changes with what is in files, whatever their names and their order: they may lie elsewhere the next time."""
    return hashlib.sha256(b"".join(sorted(path.read_bytes() for path in paths))).hexdigest()


def state_of(paths: Iterable[Path]) -> str:
    """A fingerprint of files, which changes when one of them is written again: a checksum of names, sizes and times.

    A file that is not there is a part of it: whoever reads the file reports the error.
    """
    return hashlib.sha256(os.fsencode("\n".join(map(_told, paths)))).hexdigest()


def _told(path: Path) -> str:
    try:
        status = path.stat()
    except OSError:  # also of a name that no file can have
        return f"{path.name} missing"
    return f"{path.name} {status.st_size} {status.st_mtime_ns}"
