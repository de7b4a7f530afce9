"""How to turn stored frames upright: cameras note the rotation instead of rotating each frame."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import av
import numpy as np
from av.sidedata.sidedata import SideData
from torch import Tensor


@dataclass(frozen=True)
class Orientation:
    """What turns a stored frame upright.

    Attributes:
        mirrored: whether left and right are swapped first, as the front cameras of phones ask for it.
        turns: counter-clockwise quarter turns after that.
    """

    mirrored: bool = False
    turns: int = 0

    @classmethod
    def of(cls, display_matrix: tuple[int, ...] | None) -> "Orientation":
        """The orientation in a display matrix, to the nearest quarter turn."""
        if display_matrix is None:
            return cls()
        # A pixel at (x, y), to the right and down, is shown at (a x + c y, b x + d y).
        a, b, _, c, d = display_matrix[:5]
        mirrored = a * d < b * c
        if mirrored:
            a, b = -a, -b
        return cls(mirrored, round(-math.atan2(b, a) / (math.pi / 2)) % 4)

    @property
    def swaps_sides(self) -> bool:
        """Whether width and height change places."""
        return self.turns % 2 == 1

    def upright(self, frames: Tensor) -> Tensor:
        """Turns stored frames upright: `(…, h, w)` to `(…, h, w)` or `(…, w, h)`."""
        return (frames.flip(-1) if self.mirrored else frames).rot90(self.turns, dims=(-2, -1))


UPRIGHT = Orientation()
"""The orientation of frames stored upright."""


def side_data(frame: av.VideoFrame) -> dict[str, SideData]:
    """Side data of a decoded frame by PyAV's names; empty if PyAV has no name for some of it."""
    try:
        # Iteration gives the data, not the keys, whatever PyAV's stubs say.
        entries: Iterable[SideData] = frame.side_data  # type: ignore[assignment]
        return {data.type.name: data for data in entries}
    except ValueError:
        # EXIF, which cameras add to their frames: PyAV 18 has no name for it.
        return {}


def display_matrix(frame: av.VideoFrame) -> tuple[int, ...] | None:
    """The display matrix of a decoded frame, as FFmpeg stores it (nine numbers); None if it has none."""
    stored = side_data(frame).get("DISPLAYMATRIX")
    if stored is not None:
        return tuple(np.frombuffer(bytes(stored), np.int32).tolist())
    # Where PyAV hides it, the rotation gives all but a mirroring.
    if frame.rotation == 0:
        return None
    cosine, sine = (round(2**16 * function(math.radians(frame.rotation))) for function in (math.cos, math.sin))
    return (cosine, -sine, 0, sine, cosine, 0, 0, 0, 2**30)
