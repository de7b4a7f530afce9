"""When each frame is shown, in exact rational numbers from the input to the output.

If the input has a constant rate, its times are `k / rate`, not what its container rounded them to (Matroska rounds to
milliseconds). Otherwise the input's own times are kept, and a synthesised frame is shown midway between its neighbours.
`n` frames at 25 fps become `2n-1` at 50 fps: nothing is extrapolated after the last frame, so the output ends half an
input frame earlier. A last frame that is held, as in animations, is held as long, less that half.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from math import ceil

import numpy as np
import numpy.typing as npt

NTSC = Fraction(1000, 1001)

HELD = 1.5
"""A last frame shown for more than so many median intervals is held, as in animations."""

RATE_DENOMINATOR = 10_000
"""The largest denominator of a rate: encoders and containers have 32 bits each for numerator and denominator."""


@dataclass(frozen=True)
class InputTimes:
    """The times of a stream of input frames.

    Attributes:
        rate: frames per second; the mean where the rate varies.
        pts: times of the frames in units of `time_base`; None at a constant rate, unless the last frame is held.
        time_base: seconds.
        start: when the first frame is shown, in seconds of the file's own time.
        held: how long the last frame is shown where that is longer than usual, in units of `time_base`; else 0.
        even: whether `pts` exist only because the last frame is held; they are spaced evenly, at `rate`.
    """

    rate: Fraction
    pts: npt.NDArray[np.int64] | None = None
    time_base: Fraction = Fraction(1)
    start: Fraction = Fraction(0)
    held: int = 0
    even: bool = False

    @property
    def varies(self) -> bool:
        """Whether intervals between frames vary in the whole input, of which this may be a part."""
        return self.pts is not None and not self.even

    def part(self, first: int, stop: int) -> "InputTimes":
        """The times of frames `first … stop - 1`."""
        if self.pts is None:
            return InputTimes(rate=self.rate, start=self.start + first / self.rate)
        pts = self.pts[first:stop]
        start = self.start + int(pts[0] - self.pts[0]) * self.time_base
        return replace(self, pts=pts, start=start, held=self.held if stop == len(self.pts) else 0)

    def first_at(self, seconds: Fraction, count: int) -> int:
        """The first of `count` frames that is shown `seconds` after the first or later; `count` if none is."""
        if self.pts is None:
            return min(count, ceil(seconds * self.rate))
        return int(np.searchsorted(self.pts, int(self.pts[0]) + ceil(seconds / self.time_base)))


@dataclass(frozen=True)
class Clock:
    """The times of the output frames, counted from the first of them.

    Attributes:
        times: of the input frames.
        interpolated: whether there is an output frame between two input frames.
        slow_motion: whether the duration doubles instead of the rate.
    """

    times: InputTimes
    interpolated: bool
    slow_motion: bool

    @property
    def stretch(self) -> int:
        """How many times as long the output lasts as the input."""
        return 2 if self.slow_motion else 1

    @property
    def rate(self) -> Fraction:
        """Output frames per second."""
        return self.times.rate * self._factor / self.stretch

    @property
    def time_base(self) -> Fraction:
        """The unit of `ticks`, in seconds."""
        return 1 / self.rate if self.times.pts is None else self.times.time_base / 2

    @property
    def _factor(self) -> int:
        """Output frames from one input frame to the next."""
        return 2 if self.interpolated else 1

    def count(self, frames: int) -> int:
        """Output frames of so many input frames."""
        return 2 * frames - 1 if self.interpolated else frames

    def ticks(self, number: int) -> int:
        """When output frame `number` is shown, in units of `time_base`; negative ones at the mean rate."""
        pts = self.times.pts
        if pts is None:
            return number
        if number < 0:
            return number * round(1 / self.rate / self.time_base)
        first, between = divmod(number, self._factor)
        if first + between >= len(pts):
            return self.ticks(self.count(len(pts)) - 1) + self.stretch * self._last_duration(pts)
        return int(pts[first] + pts[first + between] - 2 * pts[0]) * self.stretch

    def _last_duration(self, pts: npt.NDArray[np.int64]) -> int:
        """How long the last output frame is shown, in half units of `pts`: as usual, or longer if it is held."""
        if len(pts) == 1:
            return 2 * max(round(1 / self.times.rate / self.times.time_base), self.times.held, 1)
        median = max(1, round(float(np.median(np.diff(pts)))))
        # Half an interval less: no synthesised frame follows.
        return 2 * max(median, self.times.held) - (median if self.interpolated else 0)


def times_of(
    pts: npt.NDArray[np.int64], time_base: Fraction, declared: Sequence[Fraction | None], last_duration: int
) -> InputTimes:
    """The times of a file.

    Args:
        pts: as for `constant_rate`.
        time_base: as for `constant_rate`.
        declared: as for `constant_rate`.
        last_duration: how long the last frame is shown, in units of `time_base`; 0 if unknown.
    """
    rate, start = constant_rate(pts, time_base, declared), int(pts[0]) * time_base
    # A single frame counts as held.
    held = last_duration if len(pts) == 1 or last_duration > HELD * np.median(np.diff(pts)) else 0
    if rate is None:
        return InputTimes(mean_rate(pts, time_base), pts, time_base, start, held)
    if held:
        return InputTimes(rate, np.arange(len(pts)), 1 / rate, start, round(held * time_base * rate), even=True)
    return InputTimes(rate, start=start)


def constant_rate(
    pts: npt.NDArray[np.int64], time_base: Fraction, declared: Sequence[Fraction | None]
) -> Fraction | None:
    """The declared rate that all times fit, up to the rounding of their unit, or None.

    Args:
        pts: times, ascending.
        time_base: their unit in seconds.
        declared: rates that the file declares, the most credible first.
    """
    steps = (pts - pts[0]).astype(np.float64)
    for rate in declared:
        if not rate:
            continue
        exact = snapped(rate)
        # The first time and the frame's own are rounded; more than half a frame is never accepted.
        tolerance = min(float(time_base * exact) * (1 + 1e-6), 0.5)
        if np.abs(steps * float(time_base * exact) - np.arange(len(pts))).max() <= tolerance:
            return exact
    return None


def mean_rate(pts: npt.NDArray[np.int64], time_base: Fraction) -> Fraction:
    """Frames per second on average: a hint for encoders, so it is rounded to what they take.

    Args:
        pts: times, ascending, at least two.
        time_base: their unit in seconds.
    """
    return ((len(pts) - 1) / (int(pts[-1] - pts[0]) * time_base)).limit_denominator(RATE_DENOMINATOR)


def snapped(rate: Fraction) -> Fraction:
    """The integer or NTSC rate that a rounded one means: 24000/1001 for 23.976; else itself."""
    for nominal in (Fraction(round(rate)), round(rate / NTSC) * NTSC):
        if nominal and abs(rate - nominal) < nominal / 50_000:
            return nominal
    return rate
