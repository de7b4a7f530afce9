"""Writing files that appear under their name only when complete; checksums of files."""

import errno
import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

OF_A_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)
"""Errors of a disk, which the system may raise without naming a file."""


@contextmanager
def beside_then_rename(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`; renamed to it when the block ends, removed if the block fails.

    Raises:
        OSError: the system's error, which names `path` rather than the temporary file.
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

    Called before renaming it: otherwise a power cut could leave the name without the content.
    """
    with path.open("rb") as file:
        os.fsync(file.fileno())


def drop_from_memory(path: Path) -> None:
    """Writes a file's content to the disk and drops it from the page cache: the next reader reads the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        if hasattr(os, "posix_fadvise"):  # not on macOS
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def write_text(path: Path, content: str) -> None:
    """Writes UTF-8 text to a file that appears only when complete; undecodable bytes of file names become `?`."""
    with beside_then_rename(path) as beside:
        beside.write_text(content, encoding="utf-8", errors="replace", newline="")
        flush_to_disk(beside)


def checksum_of(paths: Iterable[Path]) -> str:
    """A checksum of the contents of files, whatever their names and order, so that files may be moved."""
    return hashlib.sha256(b"".join(sorted(path.read_bytes() for path in paths))).hexdigest()


def state_of(paths: Iterable[Path]) -> str:
    """A fingerprint of files that changes when one of them is rewritten: a checksum of names, sizes and times.

    A missing file is noted as such, not refused: whoever reads it reports the error.
    """
    return hashlib.sha256(os.fsencode("\n".join(map(_file_state, paths)))).hexdigest()


def _file_state(path: Path) -> str:
    try:
        status = path.stat()
    except OSError:  # also of a name that no file can have
        return f"{path.name} missing"
    return f"{path.name} {status.st_size} {status.st_mtime_ns}"
