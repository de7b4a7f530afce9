"""Every frame of every length is made exactly once, in windows that stay within their scene."""

from itertools import pairwise

import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor

from stvsr.data.clip import GIVEN
from stvsr.video.windows import Window, windows


def stream(cuts: list[bool]) -> list[tuple[Tensor, bool]]:
    """Frames filled with their number, each with whether a scene starts there."""
    return [(torch.full((3, 1, 1), number), cut) for number, cut in enumerate(cuts)]


def numbers(window: Window) -> list[int]:
    return [int(frame[0, 0, 0]) for frame in window.frames]


def made(window: Window) -> list[float]:
    """Times of the frames that count, in input frames; a held frame has the time of the one it repeats."""
    given = numbers(window)
    times = [given[0] + position / 2 for position in window.kept]
    return times + times[-1:] * window.hold


@example([True] * 13)
@given(st.lists(st.booleans(), min_size=1, max_size=40))
def test_n_frames_become_2n_minus_1_in_order_whatever_the_cuts(cuts: list[bool]) -> None:
    cuts[0] = False
    expected: list[float] = [0.0]
    for number, cut in enumerate(cuts[1:], start=1):
        expected += [number - 1.0 if cut else number - 0.5, float(number)]
    assert [time for window in windows(stream(cuts)) for time in made(window)] == expected


@given(st.lists(st.booleans(), min_size=1, max_size=40))
def test_no_window_crosses_a_cut_or_is_shorter_than_its_scene_allows(cuts: list[bool]) -> None:
    cuts[0] = True
    starts = [number for number, cut in enumerate(cuts) if cut] + [len(cuts)]
    lengths = {first: stop - first for first, stop in pairwise(starts)}
    for window in windows(stream(cuts)):
        given = numbers(window)
        assert given == list(range(given[0], given[0] + len(given)))
        scene = max(start for start in lengths if start <= given[0])
        assert given[-1] < scene + lengths[scene]
        assert len(given) == min(GIVEN, lengths[scene])


def test_neighbours_share_one_frame_and_the_last_window_is_moved_back() -> None:
    assert [numbers(window) for window in windows(stream([False] * 9))] == [[0, 1, 2, 3], [3, 4, 5, 6], [5, 6, 7, 8]]
    assert [window.kept for window in windows(stream([False] * 9))] == [range(7), range(1, 7), range(3, 7)]


def test_nothing_becomes_nothing() -> None:
    assert list(windows([])) == []


def test_a_window_is_given_out_as_soon_as_the_next_frame_is_there() -> None:
    """The stream is not read to its end first."""
    taken = 0

    def frames() -> object:
        nonlocal taken
        for frame in stream([False] * 100):
            taken += 1
            yield frame

    next(windows(frames()))  # type: ignore[arg-type]
    assert taken == GIVEN + 1
