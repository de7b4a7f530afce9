"""What loader processes do with signals."""

import os
import signal
import threading


def leave_signals_to_parent(worker: int) -> None:
    """Lets nobody but its parent end a loader process; for the `worker_init_fn` of a `DataLoader`.

    Ctrl-C reaches every process of a terminal, and a cluster's SIGTERM every process of a job. The parent decides when
    to stop, and needs its loaders until then.

    Args:
        worker: number of the process, which a `DataLoader` passes.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # macOS does not tell who sends a signal.
    if hasattr(signal, "sigwaitinfo"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()


def _end_with(parent: int) -> None:
    """Ends this process when its parent sends SIGTERM, as Python does with children that are left at its end."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)
