"""Stages that overlap: each makes its items in a thread of its own, a few ahead of who takes them.

Decoding, the network and encoding leave Python's lock while they work, so three stages keep more than one core, or a
GPU, busy at once. An error of a stage comes out where its next item would have.
"""

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from queue import Full, Queue
from threading import Event, Thread
from threading import enumerate as all_threads
from typing import Generic, TypeVar

Item = TypeVar("Item")

PATIENCE = 5.0
"""Seconds to wait for a stage to end that is no longer needed."""

STAGE = "stvsr stage"
"""Name of the threads."""

POLL = 0.1
"""Seconds between two looks whether a stage is still needed."""


@dataclass(frozen=True)
class _Made(Generic[Item]):
    """An item, or what ended them."""

    item: Item | None = None
    end: bool = False
    error: BaseException | None = None


def prefetched(items: Iterator[Item], size: int) -> Generator[Item, None, None]:
    """The same items, made in another thread.

    Args:
        items: where they come from.
        size: how many may wait to be taken.
    """
    waiting: Queue[_Made[Item]] = Queue(size)
    unwanted = Event()

    def hand_over(made: _Made[Item]) -> None:
        while not unwanted.is_set():
            try:
                waiting.put(made, timeout=POLL)
            except Full:
                continue
            return

    def work() -> None:
        try:
            for item in items:
                hand_over(_Made(item))
                if unwanted.is_set():
                    return
            hand_over(_Made(end=True))
        except BaseException as error:
            hand_over(_Made(error=error))

    # A daemon: whoever is interrupted in the middle of a long computation need not wait for its end.
    thread = Thread(target=work, daemon=True, name=STAGE)
    thread.start()
    try:
        while True:
            made = waiting.get()
            if made.error is not None:
                raise made.error
            if made.end:
                return
            yield made.item  # type: ignore[misc]
    finally:
        unwanted.set()
        thread.join(PATIENCE)


def still_running() -> bool:
    """Whether a stage that nobody wants any more is in the middle of something."""
    return any(thread.name == STAGE for thread in all_threads())
