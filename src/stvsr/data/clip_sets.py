"""Clips to be scored: of any length, described without being read, and read a few frames at a time.

Training takes a random clip of seven frames from a `Source`. Scoring takes every frame of every clip, so it must
know beforehand which clips there are and how long they are: that is a `ClipSet`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from torch import Tensor

from stvsr.data.clip import FRAMES, UNSPLIT, Footage, Source, check_motion
from stvsr.errors import DamagedClip, InvalidInput


@dataclass(frozen=True)
class ClipInfo:
    """What is known about a clip before it is read.

    Attributes:
        clip_set: the set it belongs to, for example `Vid4`.
        name: unique in its set, for example `calendar` or `00001/0266`.
        frames: number of frames.
        first_number: the number of its first frame in file names; the others follow without a gap.
        motion: one of `MOTION_SPLITS` if the data states it; None if it has to be measured.
    """

    clip_set: str
    name: str
    frames: int
    first_number: int
    motion: str | None

    def __post_init__(self) -> None:
        if self.motion is not None:
            check_motion(self.name, self.motion)

    def footage(self, frames: Tensor, first: int) -> Footage:
        """Some of the clip's frames, as a source gives them; `first` is the index of the first, counted from 0."""
        return Footage(frames, f"{self.name}@{self.first_number + first:06d}", self.motion or UNSPLIT)


@dataclass(frozen=True)
class Excerpt:
    """Consecutive frames of a clip.

    Attributes:
        hr: `(t, 3, H, W)`, uint8.
        lr: `((t+1)/2, 3, h, w)`, uint8: every other frame from the first, where LR frames are given; else None.
        interruption: why these frames do not belong together, for example a scene cut; None if they do.
        pauses: indices of the frames that follow a pause, counted from 0.
    """

    hr: Tensor
    lr: Tensor | None = None
    interruption: str | None = None
    pauses: frozenset[int] = frozenset()


class ClipSet(Protocol):
    """Clips that can be described and read in any order, from any process."""

    def __len__(self) -> int:
        """Number of clips."""
        ...

    def describe(self, index: int) -> ClipInfo:
        """What clip `index` is, without reading its frames."""
        ...

    def excerpt(self, index: int, first: int, count: int) -> Excerpt:
        """Frames `first … first + count - 1` of clip `index`, counted from 0.

        Raises:
            DamagedClip: the frames cannot be read as they should be.
        """
        ...

    def files(self, index: int, first: int, count: int) -> list[Path]:
        """The files that `excerpt` reads; none if clips are generated."""
        ...


class NamedSource(Source, Protocol):
    """A source whose clips all have the same length and are named without being read."""

    first_number: int
    frames: int

    def entry(self, index: int) -> tuple[str, str]:
        """Name and motion split of clip `index`."""
        ...

    def files(self, index: int) -> list[Path]:
        """The files that `read` reads, frame by frame; none if clips are generated."""
        ...


def read_fixed(source: Source, index: int) -> Footage:
    """Reads clip `index` the same way every time, whatever a training run's seed; raises as `Source.read`."""
    return source.read(index, np.random.default_rng((0, index)))


class ShortClips:
    """The clips of a source, whole: Vimeo-90K's septuplets, generated scenes.

    Args:
        name: of the set, in tables.
        source: where they come from.
    """

    def __init__(self, *, name: str, source: NamedSource) -> None:
        self.name = name
        self.source = source

    def __len__(self) -> int:
        return len(self.source)

    def describe(self, index: int) -> ClipInfo:
        """Name and motion as the source has them."""
        name, motion = self.source.entry(index)
        known = None if motion == UNSPLIT else motion
        return ClipInfo(self.name, name, self.source.frames, self.source.first_number, known)

    def excerpt(self, index: int, first: int, count: int) -> Excerpt:
        """Reads the clip and takes the frames."""
        return Excerpt(hr=read_fixed(self.source, index).frames[first : first + count])

    def files(self, index: int, first: int, count: int) -> list[Path]:
        """All files of the clip, which is read whole."""
        return self.source.files(index)


class ConcatClipSet:
    """Clip sets one after the other, to be scored in one run; each keeps its own rows.

    Args:
        sets: the clip sets.
    """

    def __init__(self, *, sets: Sequence[ClipSet]) -> None:
        self.sets = list(sets)

    def __len__(self) -> int:
        return sum(len(clips) for clips in self.sets)

    def describe(self, index: int) -> ClipInfo:
        """The description by the set that has the clip."""
        clips, index = self._locate(index)
        return clips.describe(index)

    def excerpt(self, index: int, first: int, count: int) -> Excerpt:
        """The excerpt read by the set that has the clip."""
        clips, index = self._locate(index)
        return clips.excerpt(index, first, count)

    def files(self, index: int, first: int, count: int) -> list[Path]:
        """The files named by the set that has the clip."""
        clips, index = self._locate(index)
        return clips.files(index, first, count)

    def _locate(self, index: int) -> tuple[ClipSet, int]:
        place = index
        for clips in self.sets:
            if place < len(clips):
                return clips, place
            place -= len(clips)
        raise IndexError(f"clip index {index} is out of range: {len(self)} clips")


class RandomExcerpts:
    """Clips of seven frames from anywhere in the clips of a set, to train on.

    Args:
        clips: the clips; each at least seven frames long.
    """

    def __init__(self, *, clips: ClipSet) -> None:
        self.clips = clips

    def __len__(self) -> int:
        return len(self.clips)

    def read(self, index: int, rng: np.random.Generator) -> Footage:
        """Seven frames of clip `index` from a position that `rng` draws.

        Raises:
            DamagedClip: the clip is too short, is interrupted there, or cannot be read.
            InvalidInput: the set has LR frames of its own, which training would ignore.
        """
        info = self.clips.describe(index)
        if info.frames < FRAMES:
            raise DamagedClip(f"clip {info.name}: {info.frames} frames; expected at least {FRAMES}: remove the clip")
        first = int(rng.integers(info.frames - FRAMES + 1))
        excerpt = self.clips.excerpt(index, first, FRAMES)
        if excerpt.interruption is not None:
            raise DamagedClip(f"clip {info.name}: {excerpt.interruption} in frames {first} to {first + FRAMES - 1}")
        if excerpt.lr is not None:
            raise InvalidInput(f"clip {info.name}: has LR frames; training makes its own from HR: leave them out")
        return info.footage(excerpt.hr, first)
