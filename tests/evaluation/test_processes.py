"""How processes share the machine's cores and GPUs, and what a failing one reports."""

import errno
import os
from collections.abc import Callable
from contextlib import nullcontext
from queue import SimpleQueue
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hydra.errors import InstantiationException

from stvsr.errors import InvalidInput
from stvsr.evaluation import processes


@pytest.mark.parametrize(("count", "threads"), [(1, 3), (2, 1), (4, 1)])
def test_processes_share_the_cores_that_the_job_was_given(
    monkeypatch: pytest.MonkeyPatch, count: int, threads: int
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 8, 9}, raising=False)
    assert processes.threads_each(count) == threads
    # Not on every system.
    monkeypatch.delattr(os, "sched_getaffinity")
    assert processes.threads_each(count) == 64 // count


def wrapped(error: Exception) -> Exception:
    """The error as Hydra raises it if the class it instantiates fails."""
    outer = InstantiationException("Error in call to target 'stvsr.evaluation.windows.Windows'")
    outer.__cause__ = error
    return outer


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device; make room"),
        (PermissionError(errno.EACCES, "Permission denied", "a.mp4"), "a.mp4: Permission denied; choose"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"), "CUDA out of memory. Tried to allocate; not"),
        (wrapped(InvalidInput("data.root=nowhere: no folder")), "data.root=nowhere: no folder"),
        (KeyError("oops"), "process 1 failed, see its traceback above; this is a bug of stvsr"),
    ],
)
def test_what_a_user_can_mend_in_a_process_is_no_bug_of_ours(
    monkeypatch: pytest.MonkeyPatch, error: Exception, says: str
) -> None:
    def job(*arguments: Any) -> None:
        raise error

    assert said_by_a_process(monkeypatch, job).startswith(says)


def test_a_process_does_not_score_what_has_changed_since_the_evaluation_began(monkeypatch: pytest.MonkeyPatch) -> None:
    """A training run keeps rewriting its last checkpoint."""
    job = SimpleNamespace(progress_key=lambda: {"checkpoint": "newer"})
    assert said_by_a_process(monkeypatch, lambda *arguments: job).startswith("what is scored has changed")


@pytest.mark.parametrize(
    ("count", "device", "has_gpu", "says"),
    [
        (2, "cuda:0", True, "processes=2 on device=cuda:0; expected device=cuda, so that each has a GPU"),
        (2, "gpu", True, "processes=2 on device=gpu; expected auto or cpu or cuda"),
        (2, "cuda", False, "processes=2 on device=cuda; expected auto or cpu"),
        (2, "cuda", True, None),
        (2, "auto", False, None),
        (2, "cpu", False, None),
        (1, "cuda:0", True, None),
    ],
)
def test_several_processes_share_no_gpu_and_need_a_device_that_is_there(
    monkeypatch: pytest.MonkeyPatch, count: int, device: str, has_gpu: bool, says: str | None
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    with nullcontext() if says is None else pytest.raises(InvalidInput, match=f"^{says}$"):
        processes.check_processes(count, device)


def said_by_a_process(monkeypatch: pytest.MonkeyPatch, job: Callable[..., object]) -> str:
    """The message that a process with this job sends to its parent."""
    monkeypatch.setattr(processes, "Job", job)
    # Runs in this process, as a spawned one would not have the patch; changes to process-wide state are disabled.
    for changes in ("signal.signal", "multiprocessing.set_start_method", "torch.set_num_threads"):
        monkeypatch.setattr(changes, lambda *arguments, **options: None)
    queue: SimpleQueue[Any] = SimpleQueue()
    begun_with = {"checkpoint": "older"}
    processes._work({"processes": 2, "device": "cpu"}, begun_with, [0], 1, queue)  # type: ignore[arg-type]
    said: str = queue.get_nowait()
    return said
