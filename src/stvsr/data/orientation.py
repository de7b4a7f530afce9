"""How stored frames become upright: cameras note that instead of turning each frame."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import av
import numpy as np
from av.sidedata.sidedata import SideData
from torch import Tensor


@dataclass(frozen=True)
class Orientation:
    """What has to be done with a stored frame.

    Attributes:
        mirrored: whether left and right are swapped first, as the front cameras of phones note it.
        turns: counter-clockwise quarter turns after that.
    """

    mirrored: bool = False
    turns: int = 0

    @classmethod
    def of(cls, display_matrix: tuple[int, ...] | None) -> "Orientation":
        """What a display matrix says, to the nearest quarter turn."""
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
        """Stored frames as they shall be seen, `(…, h, w)` to `(…, h, w)` or `(…, w, h)`."""
        return (frames.flip(-1) if self.mirrored else frames).rot90(self.turns, dims=(-2, -1))


UPRIGHT = Orientation()
"""Nothing has to be done."""


def side_data(frame: av.VideoFrame) -> dict[str, SideData]:
    """What a decoded frame carries beside its pixels, by PyAV's name; nothing where PyAV has no name for some of it."""
    try:
        # Iteration gives the data, not the keys, whatever PyAV's stubs say.
        carried: Iterable[SideData] = frame.side_data  # type: ignore[assignment]
        return {data.type.name: data for data in carried}
    except ValueError:
        # EXIF, with which cameras write their frames: PyAV 18 has no name for it.
        return {}


def display_matrix(frame: av.VideoFrame) -> tuple[int, ...] | None:
    """How a player moves the pixels of a decoded frame, as FFmpeg stores it (nine numbers); None where it does not."""
    stored = side_data(frame).get("DISPLAYMATRIX")
    if stored is not None:
        return tuple(np.frombuffer(bytes(stored), np.int32).tolist())
    # Where PyAV hides it, all but a mirroring can be had.
    if frame.rotation == 0:
        return None
    cosine, sine = (round(2**16 * part(math.radians(frame.rotation))) for part in (math.cos, math.sin))
    return (cosine, -sine, 0, sine, cosine, 0, 0, 0, 2**30)
