"""The batches of an evaluation shared among processes, each with a device and a file of records of its own."""

import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.queues import Queue
from queue import Empty
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from stvsr.config import resolved
from stvsr.devices import chosen_device
from stvsr.errors import InvalidInput, UserError
from stvsr.evaluation.job import Job
from stvsr.evaluation.progress import BatchRecord, Progress, progress_folder
from stvsr.explanations import in_one_line

PATIENCE = 1.0
"""Seconds between checks that the processes are alive."""


def score_here(job: Job, progress: Progress, todo: list[int], rank: int = 0) -> Iterator[BatchRecord]:
    """Scores batches in this process; each is recorded before it is yielded."""
    with progress.part(rank) as part:
        for record in job.scorer.run(todo):
            part.add(record)
            yield record


def score_in_processes(config: DictConfig, identity: dict[str, Any], todo: list[int]) -> Iterator[int]:
    """Scores batches in `config.processes` processes.

    Args:
        config: of the evaluation, whose progress lies in its `output_dir`.
        identity: what decides the scores; each process checks it.
        todo: numbers of the batches.

    Yields:
        The number of windows of each batch that was scored and recorded.

    Raises:
        UserError: a process failed or was killed.
    """
    context = multiprocessing.get_context("spawn")
    queue: Queue[Any] = context.Queue()
    settings = resolved(config)
    count = config.processes
    # Dealt out one by one, as long clips, and slow ones, lie side by side.
    processes = [
        context.Process(target=_work, args=(settings, identity, todo[rank::count], rank, queue))
        for rank in range(count)
    ]
    try:
        with _ctrl_c_ignored():
            for process in processes:
                process.start()
        finished = 0
        while finished < count:
            try:
                message = queue.get(timeout=PATIENCE)
            except Empty:
                _check_alive(processes)
                continue
            if isinstance(message, str):
                raise UserError(message)
            if message is None:
                finished += 1
            else:
                yield message
        # They exit by themselves: one that is terminated while it exits prints a traceback.
        for process in processes:
            process.join(PATIENCE)
    finally:
        # Only those that were started.
        for process in filter(lambda process: process.pid is not None, processes):
            process.terminate()
            process.join()


@contextmanager
def _ctrl_c_ignored() -> Iterator[None]:
    """Ignores Ctrl-C while processes are started, which inherit this: only their parent is to end them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


def _check_alive(processes: list[Any]) -> None:
    for rank, process in enumerate(processes):
        if process.exitcode not in (None, 0):
            raise UserError(
                f"process {rank} of {len(processes)} ended with status {process.exitcode} (-9: killed, often because "
                "memory ran out); run the same command again to continue, with processes=1 if need be"
            )


def _work(settings: dict[str, Any], identity: dict[str, Any], todo: list[int], rank: int, queue: "Queue[Any]") -> None:
    """One process: scores its batches and reports how many windows each had; None at the end, a message on error."""
    # Exit cleanly on SIGTERM: if it were killed outright, its loader processes would print errors.
    signal.signal(signal.SIGTERM, _exit_on_signal)
    # Back to the default: a spawned process would spawn its loaders too, and each would import everything anew.
    multiprocessing.set_start_method(None, force=True)
    config = OmegaConf.create(settings)
    parent = multiprocessing.parent_process()
    torch.set_num_threads(threads_each(config.processes))
    try:
        job = Job(config, chosen_device(config.device, rank))
        if job.progress_key() != identity:
            raise InvalidInput(
                "what is scored has changed since the evaluation began (the checkpoint of a run in progress? the code? "
                "a method with different weights each time?); once it no longer changes, use another output_dir"
            )
        for record in score_here(job, Progress(progress_folder(config), identity), todo, rank):
            queue.put(len(record.windows))
            if parent is None or not parent.is_alive():
                return
        queue.put(None)
    except Exception as error:
        message = in_one_line(error)
        if message is None:
            # A bug, not a user's mistake: the traceback goes to the terminal, and the message refers to it.
            traceback.print_exc()
            message = f"process {rank} failed, see its traceback above; this is a bug of stvsr"
        # On this message the parent terminates all processes, but this one is exiting already.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        queue.put(message)


def threads_each(processes: int) -> int:
    """How many threads each of several processes uses: its share of the cores that this job was given."""
    # A cluster gives a job some of the machine's cores; not every system tells which.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // processes)


def _exit_on_signal(number: int, frame: object) -> None:
    # As shells report a signal; 0 would be read as success.
    sys.exit(128 + number)


def check_processes(count: int, device: str) -> None:
    """Refuses several processes on a single GPU, or on anything but `auto`, `cpu` and an available `cuda`.

    Raises:
        InvalidInput: says what to choose.
    """
    if count > 1 and ":" in device:
        raise InvalidInput(f"processes={count} on device={device}; expected device=cuda, so that each has a GPU")
    # Checked here because this process never opens the device itself.
    usable = ("auto", "cpu", "cuda") if torch.cuda.is_available() else ("auto", "cpu")
    if count > 1 and device not in usable:
        raise InvalidInput(f"processes={count} on device={device}; expected {' or '.join(usable)}")
