"""Stages that overlap: each makes its items in a thread of its own, a few ahead of who takes them.

Decoding, the network and encoding leave Python's lock while they work, so three stages keep more than one core, or a
GPU, busy at once. An error of a stage comes out where its next item would have.
"""

from collections.abc import Generator, Iterator
from queue import Full, Queue
from threading import Event, Thread
from threading import enumerate as all_threads
from typing import TypeVar

Item = TypeVar("Item")

PATIENCE = 5.0
"""Seconds to wait for a stage to end that is no longer needed."""

STAGE = "stvsr stage"
"""Name of the threads."""

POLL = 0.1
"""Seconds between two looks whether a stage is still needed."""


def prefetched(items: Iterator[Item], size: int) -> Generator[Item, None, None]:
    """The same items, made in another thread.

    Args:
        items: where they come from.
        size: how many may wait to be taken.
    """
    # Each item in a tuple; then None, or the error that ended them.
    waiting: Queue[tuple[Item] | BaseException | None] = Queue(size)
    unwanted = Event()

    def hand_over(made: tuple[Item] | BaseException | None) -> None:
        while not unwanted.is_set():
            try:
                waiting.put(made, timeout=POLL)
            except Full:
                continue
            return

    def work() -> None:
        try:
            for item in items:
                hand_over((item,))
                if unwanted.is_set():
                    return
            hand_over(None)
        except BaseException as error:
            hand_over(error)

    # A daemon: whoever is interrupted in the middle of a long computation need not wait for its end.
    thread = Thread(target=work, daemon=True, name=STAGE)
    thread.start()
    try:
        while (made := waiting.get()) is not None:
            if isinstance(made, BaseException):
                raise made
            yield made[0]
    finally:
        unwanted.set()
        thread.join(PATIENCE)


def still_running() -> bool:
    """Whether a stage that nobody wants any more is in the middle of something."""
    return any(thread.name == STAGE for thread in all_threads())
