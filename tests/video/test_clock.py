"""Times are exact: no rate drifts, however the container rounds times."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stvsr.video.clock import Clock, InputTimes, constant_rate, mean_rate, snapped, times_of

FILM = Fraction(24000, 1001)
RATES = [FILM, Fraction(25), Fraction(30000, 1001), Fraction(30), Fraction(60), Fraction(60000, 1001)]


@pytest.mark.parametrize("rate", RATES)
def test_a_constant_rate_is_doubled_exactly(rate: Fraction) -> None:
    clock = Clock(InputTimes(rate), interpolated=True, slow_motion=False)
    assert clock.rate == 2 * rate
    for number in (0, 1, 2, 100_001):
        assert clock.ticks(number) * clock.time_base == number / (2 * rate)


@pytest.mark.parametrize("rate", RATES)
def test_slow_motion_keeps_the_rate_and_doubles_the_duration(rate: Fraction) -> None:
    clock = Clock(InputTimes(rate), interpolated=True, slow_motion=True)
    assert (clock.rate, clock.stretch) == (rate, 2)
    assert clock.ticks(2 * 50) * clock.time_base == 2 * 50 / rate


def test_without_interpolation_rate_and_times_stay() -> None:
    clock = Clock(InputTimes(FILM), interpolated=False, slow_motion=False)
    assert (clock.rate, clock.count(7), clock.ticks(3) * clock.time_base) == (FILM, 7, 3 / FILM)


@pytest.mark.parametrize("slow_motion", [False, True])
def test_varying_times_are_kept_and_new_frames_stand_in_the_middle(slow_motion: bool) -> None:
    pts = np.array([10, 13, 20, 21])
    clock = Clock(InputTimes(Fraction(30), pts, Fraction(1, 90)), interpolated=True, slow_motion=slow_motion)
    seconds = [clock.ticks(number) * clock.time_base / clock.stretch * 90 for number in range(7)]
    assert seconds == [0, Fraction(3, 2), 3, Fraction(13, 2), 10, Fraction(21, 2), 11]
    before = [clock.ticks(number) * clock.time_base * clock.rate for number in (-1, -2)]
    assert before == [-1, -2], "at the mean rate"


@pytest.mark.parametrize(("interpolated", "slow_motion"), [(True, False), (True, True), (False, False)])
def test_a_picture_alone_is_shown_as_long_as_in_the_input(interpolated: bool, slow_motion: bool) -> None:
    """It is not shortened by half an interval, as no second frame follows."""
    rate = Fraction(1, 5)
    clock = Clock(InputTimes(rate, np.arange(1), 1 / rate, held=1, even=True), interpolated, slow_motion)
    assert clock.ticks(clock.count(1)) * clock.time_base == 5 * clock.stretch


@pytest.mark.parametrize(("interpolated", "slow_motion"), [(True, False), (True, True), (False, False)])
def test_the_last_frame_lasts_as_long_as_a_usual_one_also_where_the_rate_varies(
    interpolated: bool, slow_motion: bool
) -> None:
    """So the output ends half an input interval before the input, as at a constant rate."""
    pts = np.array([10, 13, 20, 23, 26])
    clock = Clock(InputTimes(Fraction(30), pts, Fraction(1, 90)), interpolated, slow_motion)
    last = clock.count(len(pts)) - 1
    assert (clock.ticks(last + 1) - clock.ticks(last)) * clock.time_base == 1 / clock.rate


def test_varying_times_without_interpolation_are_those_of_the_input() -> None:
    pts = np.array([10, 13, 20, 21])
    clock = Clock(InputTimes(Fraction(30), pts, Fraction(1, 90)), interpolated=False, slow_motion=False)
    assert [clock.ticks(number) * clock.time_base * 90 for number in range(4)] == [0, 3, 10, 11]


@given(st.lists(st.integers(1, 500), min_size=1, max_size=30))
def test_times_ascend_whatever_the_input_does(steps: list[int]) -> None:
    pts = np.cumsum([0, *steps])
    for interpolated, slow in ((True, False), (True, True), (False, False)):
        clock = Clock(InputTimes(Fraction(7), pts, Fraction(1, 1000)), interpolated, slow)
        ticks = [clock.ticks(number) for number in range(-3, clock.count(len(pts)) + 1)]
        assert ticks == sorted(set(ticks))


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("frames", [2, 30, 5000])
def test_milliseconds_of_matroska_are_seen_through(rate: Fraction, frames: int) -> None:
    pts = np.array([round(1000 * number / rate) for number in range(frames)])
    # Matroska stores nanoseconds per frame, from which FFmpeg derives a close fraction.
    declared = Fraction(10**9, round(10**9 / rate)).limit_denominator(1000)
    assert constant_rate(pts, Fraction(1, 1000), (declared,)) == rate


def test_a_rate_that_the_times_do_not_have_is_not_believed() -> None:
    jittering = np.array([0, 33, 70, 100, 129, 170])
    assert constant_rate(jittering, Fraction(1, 1000), (Fraction(30), None, Fraction(25))) is None
    assert constant_rate(np.arange(0, 400, 40), Fraction(1, 1000), (Fraction(30), None, Fraction(25))) == 25
    # For example, an AVI file that lacks one frame: there the time unit is one frame.
    assert constant_rate(np.array([0, 1, 2, 4, 5]), Fraction(1, 25), (Fraction(25),)) is None


def test_the_mean_rate_of_a_long_video_fits_into_32_bits() -> None:
    pts = np.arange(200_000) * 1501 + np.arange(200_000) % 11
    rate = mean_rate(pts, Fraction(1, 90_000))
    assert max(rate.numerator, rate.denominator) < 2**31
    assert float(rate) == pytest.approx(90_000 / 1501, rel=1e-7)


def test_a_rate_of_its_own_is_left_as_it_is() -> None:
    assert snapped(Fraction(24)) == 24
    assert snapped(Fraction(23976, 1000)) == FILM
    assert snapped(Fraction(15, 2)) == Fraction(15, 2)


@pytest.mark.parametrize(("lasts", "held"), [(0, 0), (10, 0), (14, 0), (16, 2), (50, 5)])
def test_a_last_frame_that_stays_noticeably_longer_is_held(lasts: int, held: int) -> None:
    times = times_of(np.array([5, 15, 25, 35]), Fraction(1, 100), [Fraction(10)], lasts)
    assert (times.rate, times.start, times.held, times.varies) == (10, Fraction(1, 20), held, False)
    assert (times.pts is None) is (held == 0)
    varying = times_of(np.array([5, 15, 25, 39]), Fraction(1, 100), [Fraction(10)], lasts)
    assert (varying.held, varying.varies) == (lasts if held else 0, True)


def test_of_a_part_the_last_frame_is_held_where_it_is_that_of_the_whole() -> None:
    whole = InputTimes(Fraction(10), np.arange(4), Fraction(1, 10), held=30, even=True)
    assert [whole.part(1, stop).held for stop in (3, 4)] == [0, 30]


def test_a_part_begins_where_it_is_asked_for() -> None:
    times = InputTimes(Fraction(25), start=Fraction(7))
    assert times.first_at(Fraction(1), 100) == 25
    assert times.first_at(Fraction(101, 100), 100) == 26, "not before"
    assert times.first_at(Fraction(99), 100) == 100
    assert times.part(25, 30).start == 8
    varying = InputTimes(Fraction(25), np.array([50, 60, 90, 95]), Fraction(1, 100), Fraction(1, 2))
    assert [varying.first_at(Fraction(second, 100), 4) for second in (0, 10, 11, 46)] == [0, 1, 2, 4]
    assert varying.first_at(Fraction(21, 200), 4) == 2, "not before, also by less than a unit"
    part = varying.part(2, 4)
    assert (part.start, part.pts.tolist()) == (Fraction(9, 10), [90, 95])  # type: ignore[union-attr]
