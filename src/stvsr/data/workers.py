"""How loader processes handle signals, and how they hand over what they read."""

import multiprocessing
import os
import resource
import signal
import threading
from contextlib import suppress
from multiprocessing.connection import Listener

from torch import Tensor
from torch.utils.data import get_worker_info

from stvsr.errors import InvalidInput, one_line


def leave_signals_to_parent(worker: int) -> None:
    """Lets nobody but its parent end a loader process; meant as a `DataLoader`'s `worker_init_fn`.

    Ctrl-C reaches every process of a terminal, and a cluster's SIGTERM every process of a job. The parent decides when
    to stop, and needs its loaders until then.

    Args:
        worker: number of the process, which a `DataLoader` passes.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # macOS does not tell who sent a signal.
    if hasattr(signal, "sigwaitinfo"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        # Not os.getppid(), which may be a server that forks on the parent's behalf.
        parent = multiprocessing.parent_process()
        assert parent is not None
        threading.Thread(target=_exit_on_sigterm_from, args=(parent.pid,), daemon=True).start()


def prepare_for(workers: int) -> None:
    """Makes sure that loader processes can hand over what they read.

    Raises the open-file limit of this process and its children to the most that the system allows: each tensor handed
    over takes a file in both processes, and one more in a thread while it is sent.

    Args:
        workers: how many there will be.

    Raises:
        InvalidInput: they could not: they would print a traceback, and this process would wait forever.
    """
    if workers == 0:
        return
    _, hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    # macOS names a limit that it then refuses.
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard_limit, hard_limit))
    try:
        # A lock needs /dev/shm, a socket the folder of temporary files.
        multiprocessing.Lock()
        with Listener():
            pass
    except OSError as error:
        raise InvalidInput(
            f"loader processes could not pass on what they read ({error}): they need write access to /dev/shm and to "
            "a temporary folder with a short path (TMPDIR=/tmp); or choose 0 workers"
        ) from None


def share_with_parent(*frames: Tensor) -> None:
    """Moves what a loader process has read into memory that its parent shares; does nothing in another process.

    Left to the loader, a thread would do so later and, if it failed, only print a traceback, while the parent waited
    forever.

    Raises:
        InvalidInput: there is not enough of such memory.
    """
    if get_worker_info() is None:
        return
    for tensor in frames:
        try:
            tensor.share_memory_()  # type: ignore[no-untyped-call]
        except RuntimeError as error:
            raise InvalidInput(
                f"no room in /dev/shm for another {tensor.nbytes / 2**20:.1f} MiB read by a loader process "
                f"({one_line(error)[-80:]}); start the container with more (docker run --shm-size=2g), or choose "
                "fewer workers: 0 needs none"
            ) from None


def _exit_on_sigterm_from(parent: int) -> None:
    """Ends this process when its parent sends SIGTERM, as Python does at exit to the children that are left."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)
