"""Overlapping stages: each makes its items in a thread of its own, a few ahead of the consumer.

Decoding, the network and encoding release Python's GIL while they work, so three stages keep more than one core, or a
GPU, busy at once. An error in a stage is raised where its next item would have come.
"""

from collections.abc import Generator, Iterator
from queue import Full, Queue
from threading import Event, Thread
from threading import enumerate as all_threads
from typing import TypeVar

Item = TypeVar("Item")

PATIENCE = 5.0
"""Seconds to wait for a stage that is no longer needed to end."""

STAGE = "stvsr stage"
"""Name of the threads."""

POLL = 0.1
"""Seconds between checks whether a stage is still needed."""


def prefetched(items: Iterator[Item], size: int) -> Generator[Item, None, None]:
    """The same items, made in another thread.

    Args:
        items: the iterator that makes them.
        size: how many may wait to be taken.
    """
    # Each item in a tuple; then None, or the error that ended them.
    waiting: Queue[tuple[Item] | BaseException | None] = Queue(size)
    cancelled = Event()

    def hand_over(entry: tuple[Item] | BaseException | None) -> None:
        while not cancelled.is_set():
            try:
                waiting.put(entry, timeout=POLL)
            except Full:
                continue
            return

    def work() -> None:
        try:
            for item in items:
                hand_over((item,))
                if cancelled.is_set():
                    return
            hand_over(None)
        except BaseException as error:
            hand_over(error)

    # A daemon: after an interrupt, nobody need wait for the end of a long computation.
    thread = Thread(target=work, daemon=True, name=STAGE)
    thread.start()
    try:
        while (entry := waiting.get()) is not None:
            if isinstance(entry, BaseException):
                raise entry
            yield entry[0]
    finally:
        cancelled.set()
        thread.join(PATIENCE)


def still_running() -> bool:
    """Whether any stage's thread is alive: after the work, a busy one."""
    return any(thread.name == STAGE for thread in all_threads())
