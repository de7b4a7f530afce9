"""Recognises errors that a user can fix, even wrapped by a library, and explains each in one line."""

import errno
from pathlib import Path

from stvsr.devices import is_out_of_memory
from stvsr.errors import UserError, chain_of, one_line
from stvsr.files import OF_A_DISK

OF_LIMITS = (errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE)
"""Error numbers of a system that grants no more threads or processes, memory, or open files."""

LONGEST = 150
"""At most this many characters of a library's message are quoted; on memory, the rest is byte counts."""

NO_THREAD = "can't start new thread"
"""Python's message if the system grants no more threads."""


def in_one_line(error: BaseException) -> str | None:
    """One line for an error that a user can cause and mend; None for any other."""
    links = chain_of(error)
    # Anywhere in the chain, as Hydra and data loader workers wrap errors.
    for link in links:
        if isinstance(link, UserError):
            return one_line(link)
    if (message := explain_os_error(error)) is not None:
        return message
    for link in links:
        text, class_name = str(link), type(link).__name__
        if is_out_of_memory(link):
            reason = one_line(link)[:LONGEST] or "out of memory"
            return f"{reason}; not enough memory: use smaller batches, crops or frames"
        if text == NO_THREAD:
            return beyond_limits(NO_THREAD)
        # From Gloo.
        if isinstance(link, RuntimeError) and (
            "Connection closed by peer" in text or "Connection reset by peer" in text
        ):
            return "another process of this run has ended, often for lack of memory; give the same command again"
        if text.startswith("DataLoader worker (pid"):
            return (
                f"{one_line(link)[:LONGEST]}: often for lack of memory; give the same command again, with fewer workers"
            )
        # From Path.resolve of Python 3.11.
        if text.startswith("Symlink loop from "):
            return f"{one_line(link)}: symbolic links form a loop; remove one"
        # submitit: sbatch refused a job. If a job failed on its node, the message begins with "Job (task=" instead.
        if class_name == "FailedJobError" and not text.startswith("Job (task="):
            return (
                f"SLURM rejected a job ({one_line(link)[-LONGEST:]}); set hydra.launcher.timeout_min, .partition or "
                ".account for it"
            )
        # submitit: a job left no result, as it ran out of memory or time, was cancelled, or its node failed.
        if class_name == "UncompletedJobError":
            return (
                f"SLURM ended a job ({one_line(link)[:LONGEST]}); the others continue: compare them at the end "
                "with stvsr.report, and run that job's settings again with its output_dir, with more memory or time if "
                "needed"
            )
        if 'Could not detect "srun"' in text:
            return "srun not found; start the sweep where SLURM jobs are submitted, or omit hydra/launcher=slurm"
    return None


def explain_os_error(error: BaseException) -> str | None:
    """One line for an error of the operating system, even if wrapped by a library; None for any other."""
    for link in chain_of(error):
        # Libraries' own subclasses of OSError have no strerror; errors of connections are not about files.
        if isinstance(link, OSError) and not isinstance(link, ConnectionError) and link.strerror is not None:
            # EAGAIN is also raised if a non-blocking stream has no room at the moment.
            if link.errno in OF_LIMITS and "write could not complete" not in link.strerror:
                return beyond_limits(link.strerror)
            prefix = "" if link.filename is None else f"{link.filename}: "
            if link.errno in OF_A_DISK and not (prefix and link.errno == errno.EROFS):
                return f"{prefix}{link.strerror}; make room or check the disk, then give the same command again"
            if prefix:
                return f"{prefix}{link.strerror}; choose a file or folder that can be used"
            if link.errno == errno.ENOENT and not _has_current_folder():
                return "the current folder no longer exists; change to one that does"
    return None


def beyond_limits(said: str) -> str:
    """One line for an error of `OF_LIMITS`, or another of that meaning."""
    return (
        f"{said}: the system grants no more threads, memory or open files; raise its limits (ulimit -u, -v, -n, or a "
        "container's --pids-limit and --memory), or use fewer workers"
    )


def _has_current_folder() -> bool:
    try:
        Path.cwd()
    except FileNotFoundError:
        return False
    return True
