"""Stages overlap, errors are passed on, and a stage ends when its items are no longer wanted."""

import threading
import time
from collections.abc import Iterator

import pytest

from stvsr.video import prefetch
from stvsr.video.prefetch import prefetched, still_running


def test_items_come_in_order_and_all_of_them() -> None:
    assert list(prefetched(iter(range(100)), 3)) == list(range(100))
    assert list(prefetched(iter([None, 0, None]), 1)) == [None, 0, None]


def test_the_next_items_are_made_while_one_is_used() -> None:
    begun = threading.Event()

    def watched() -> Iterator[int]:
        yield from range(3)
        begun.set()
        yield 3

    items = prefetched(watched(), 2)
    assert next(items) == 0
    # Two items wait in the queue, a third in the thread.
    assert begun.wait(10)
    assert list(items) == [1, 2, 3]


def test_no_more_than_asked_for_wait() -> None:
    made = []

    def counted() -> Iterator[int]:
        for number in range(100):
            made.append(number)
            yield number

    items = prefetched(counted(), 2)
    next(items)
    time.sleep(0.3)
    assert len(made) <= 4, "one taken, two that wait, one in the hand"
    items.close()  # type: ignore[attr-defined]


def test_an_error_comes_out_after_the_items_before_it() -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise ValueError("oops")

    items = prefetched(broken(), 5)
    assert next(items) == 1
    with pytest.raises(ValueError, match="oops"):
        next(items)


def test_a_stage_that_nobody_wants_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    # Threads left behind by earlier tests do not count.
    before = set(threading.enumerate())
    monkeypatch.setattr(prefetch, "all_threads", lambda: set(threading.enumerate()) - before)
    assert not still_running()
    items = prefetched(iter(range(10**9)), 2)
    next(items)
    assert still_running()
    items.close()  # type: ignore[attr-defined]
    assert not still_running()
