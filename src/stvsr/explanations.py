"""Which errors a user can cause and mend, whatever a library wrapped them in, and what is said of each."""

import errno
from pathlib import Path

from stvsr.devices import is_out_of_memory
from stvsr.errors import UserError, chain_of, one_line
from stvsr.files import OF_A_DISK

OF_LIMITS = (errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE)
"""What the system says when it gives no more threads or processes, memory, or open files."""

LONGEST = 150
"""At most this many characters of what a library says of the memory are repeated; more are byte counts."""

REFUSED_BY_SLURM = "FailedJobError"
"""submitit's error where sbatch refuses a job, or where one failed on its node, which begins with other words."""

ENDED_BY_SLURM = "UncompletedJobError"
"""submitit's error where a job left nothing: out of memory, out of time, cancelled, or its node failed."""

FAILED_ON_ITS_NODE = "Job (task="

NO_THREAD = "can't start new thread"
"""Python's words where the system gives none."""

PEER_GONE = ("Connection closed by peer", "Connection reset by peer")
"""Gloo's words where another process of a run has ended."""

LOADER_GONE = "DataLoader worker (pid"
"""Torch's words where the system ended a loader process."""

LINKS_IN_A_CIRCLE = "Symlink loop from "
"""Python 3.11's words where a path is resolved."""

NO_SLURM = 'Could not detect "srun"'
"""submitit's words where there is no SLURM."""


def in_one_line(error: BaseException) -> str | None:
    """One line for an error that a user can cause and mend; None for any other."""
    links = chain_of(error)
    # The first of its kind: Hydra and data loader workers wrap what was raised.
    for link in links:
        if isinstance(link, UserError):
            return one_line(link)
    if (message := explain_os_error(error)) is not None:
        return message
    for link in links:
        if is_out_of_memory(link):
            said = one_line(link)[:LONGEST] or "out of memory"
            return f"{said}; not enough memory: use smaller batches, crops or frames"
        if str(link) == NO_THREAD:
            return beyond_limits(NO_THREAD)
        if isinstance(link, RuntimeError) and any(words in str(link) for words in PEER_GONE):
            return "another process of this run has ended, often for want of memory; give the same command again"
        if str(link).startswith(LOADER_GONE):
            said = one_line(link)[:LONGEST]
            return f"{said}: often for want of memory; give the same command again, with fewer workers"
        if str(link).startswith(LINKS_IN_A_CIRCLE):
            return f"{one_line(link)}: links lead in a circle; remove one"
        if type(link).__name__ == REFUSED_BY_SLURM and not str(link).startswith(FAILED_ON_ITS_NODE):
            said = one_line(link)[-LONGEST:]
            return f"SLURM takes no such job ({said}); set hydra.launcher.timeout_min, .partition or .account for it"
        if type(link).__name__ == ENDED_BY_SLURM:
            return (
                f"SLURM ended a job ({one_line(link)[:LONGEST]}); the others go on: compare them by stvsr.report in "
                "the end, and give that job's settings again with its output_dir, and more memory or time if need be"
            )
        if NO_SLURM in str(link):
            return (
                "no program srun here; start the sweep where SLURM's jobs are submitted, or omit hydra/launcher=slurm"
            )
    return None


def explain_os_error(error: BaseException) -> str | None:
    """One line for what the system refused, also where a library raised its own error from it; None for any other."""
    for link in chain_of(error):
        # Errors that only derive from OSError have no reason of the system's; those of connections are of no file.
        if isinstance(link, OSError) and not isinstance(link, ConnectionError) and link.strerror is not None:
            # A stream that does not wait has no room for the moment.
            if link.errno in OF_LIMITS and "write could not complete" not in link.strerror:
                return beyond_limits(link.strerror)
            named = "" if link.filename is None else f"{link.filename}: "
            if link.errno in OF_A_DISK and not (named and link.errno == errno.EROFS):
                return f"{named}{link.strerror}; make room or check the disk, then give the same command again"
            if named:
                return f"{named}{link.strerror}; choose a file or folder that can be used"
            if link.errno == errno.ENOENT and not _has_current_folder():
                return "the folder that this command was given in does not exist any more; change to one that does"
    return None


def beyond_limits(said: str) -> str:
    """One line for what is told by one of `OF_LIMITS`, or in other words."""
    return (
        f"{said}: the system gives no more threads, memory or open files; raise its limits (ulimit -u, -v, -n, or a "
        "container's --pids-limit and --memory), or use fewer workers"
    )


def _has_current_folder() -> bool:
    try:
        Path.cwd()
    except FileNotFoundError:
        return False
    return True
