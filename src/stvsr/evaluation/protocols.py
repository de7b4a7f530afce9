"""Protocols: which frames of a clip count, and how clips become one number.

The protocol alone changes a network's published numbers, so each has a name that stands in every table. All cover a
clip with windows of 7 frames and stride 6; the frame that two windows share counts once, from the earlier one.

- `paper`: a last window is moved back to the end of the clip, so that every frame counts (171 on Vid4);
  mean over a clip's frames, then over clips.
- `released`: the authors' script as it stands today has no such window and loses the tail (160 on Vid4).
- `rstt`: as `paper`, but clips are averaged within their top-level folder first, then folders.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from stvsr.data.clip import FRAMES
from stvsr.data.clip_sets import ClipInfo
from stvsr.errors import InvalidInput

STRIDE = FRAMES - 1
"""Neighbouring windows share one frame."""

METHOD = "PSNR and SSIM on Y of BT.601, 8 bit, uncropped"


@dataclass(frozen=True)
class Window:
    """Seven frames that a network makes in one pass; it is given every other one, from the first.

    Attributes:
        first: index of the first frame in its clip.
        kept: the positions within the window, 0 to 6, whose frames count.
    """

    first: int
    kept: range

    @property
    def all_frames(self) -> range:
        """Indices in the clip of all seven."""
        return range(self.first, self.first + FRAMES)

    @property
    def frames(self) -> range:
        """Indices in the clip of the frames that count."""
        return range(self.first + self.kept.start, self.first + self.kept.stop)

    @property
    def given(self) -> list[bool]:
        """For each frame that counts, whether the network was given it."""
        return [position % 2 == 0 for position in self.kept]


@dataclass(frozen=True)
class Protocol:
    """A way to score.

    Attributes:
        name: stands in every table.
        cover_tail: whether a last window is moved back to the end of the clip.
        average_folders: whether clips are averaged within their top-level folder first.
    """

    name: str
    cover_tail: bool
    average_folders: bool

    def __str__(self) -> str:
        tail = "all frames" if self.cover_tail else "whole windows of 7 only, the tail of a clip is left out"
        means = "mean over a clip's frames, then over clips"
        if self.average_folders:
            means += " of a top-level folder, then over folders"
        return f"protocol {self.name}: {METHOD}; {tail}; {means}"

    def windows(self, clip: ClipInfo) -> list[Window]:
        """The windows that cover a clip; no frame counts twice.

        Raises:
            InvalidInput: the clip is shorter than a window.
        """
        if clip.frames < FRAMES:
            raise InvalidInput(
                f"clip {clip.name}: {clip.frames} frames; expected at least {FRAMES}: remove the clip or complete it"
            )
        starts = range(0, clip.frames - FRAMES + 1, STRIDE)
        windows = [Window(first, range(1 if first else 0, FRAMES)) for first in starts]
        covered = starts[-1] + FRAMES
        if self.cover_tail and covered < clip.frames:
            windows.append(Window(clip.frames - FRAMES, range(FRAMES - (clip.frames - covered), FRAMES)))
        return windows

    def mean(self, values: Sequence[float], clips: Sequence[str]) -> float:
        """Averages values of many clips into one.

        Args:
            values: a value for each clip, at least one.
            clips: their names; `00001/0266` lies in the top-level folder `00001`.
        """
        if not self.average_folders:
            return fmean(values)
        folders: dict[str, list[float]] = {}
        for value, clip in zip(values, clips, strict=True):
            folders.setdefault(clip.split("/")[0], []).append(value)
        return fmean(fmean(folder) for folder in folders.values())
