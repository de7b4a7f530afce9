"""Clips streamed from a folder of ordinary video files; nothing is extracted to disk first.

Every file gives `clips_per_video` clips. The possible first frames of a file are divided into as many
equal segments, and chance picks one of its segment each time a clip is read: 1 means anywhere in the file,
more give more clips to validate on. A position is given up for another where the window crosses a
scene cut or a pause (lost frames): what lies between two such frames is nothing a network could learn.

The folder is searched with its subfolders, in sorted order; hidden ones are left out. Files are opened by
the process that reads, at each read (see `decoding.py`), so the source pickles and forks.
"""

from collections import defaultdict
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import numpy as np

from stvsr.config import check_int
from stvsr.data.clip import FRAMES, UNSPLIT, Footage, whole_pixels
from stvsr.data.decoding import VideoIndex, index_video, read_frames
from stvsr.data.folders import searched
from stvsr.data.scene_cuts import first_cut
from stvsr.errors import DamagedClip, InvalidInput

EXTENSIONS = {".avi", ".m4v", ".mkv", ".mov", ".mp4", ".webm"}
"""Containers whose random access is exact or refused in our tests, in lower or upper case."""

MAX_TRIES = 100
"""Windows looked at in search of one without a cut, before a file is given up."""

PAUSE = 3.0
"""Frames further apart than this many usual intervals are not consecutive. Phones vary theirs by less."""


def video_files(root: Path) -> list[Path]:
    """The video files of a folder and its subfolders, sorted; hidden files and folders are left out.

    Raises:
        InvalidInput: no such folder, no video file in it, or a link that leads nowhere or around in a circle.
    """
    if not root.is_dir():
        raise InvalidInput(f"{root}: no such folder; expected a folder of video files")
    paths = sorted(folder / name for folder, _, names in searched(root, EXTENSIONS) for name in names)
    if not paths:
        raise InvalidInput(
            f"{root}: no video file there; expected files with the ending {', '.join(sorted(EXTENSIONS))}"
        )
    return paths


class VideoFolder:
    """Clips at random positions of the video files of a folder.

    Args:
        root: the folder; subfolders are searched too.
        clips_per_video: clips of one file, each from its own segment.

    Raises:
        InvalidInput: no such folder, no video file in it, or a count below 1.
    """

    def __init__(self, *, root: str | Path, clips_per_video: int) -> None:
        check_int("clips_per_video", clips_per_video, least=1)
        self.root = Path(root)
        self.clips_per_video = clips_per_video
        # Where the windows of a file have a cut, by first frame: a long run comes by again and again.
        self._cuts: defaultdict[Path, dict[int, int]] = defaultdict(dict)
        self.paths = video_files(self.root)

    def __len__(self) -> int:
        return len(self.paths) * self.clips_per_video

    def read(self, index: int, rng: np.random.Generator) -> Footage:
        """A window of file `index // clips_per_video`, at a position that `rng` draws from its segment.

        Height and width are cropped to multiples of 4 at the bottom and right.

        Raises:
            DamagedClip: no readable video, shorter than a clip, without a window that shows one scene, or damaged
                at the drawn position; the rest of such a file can be read.
        """
        path = self.paths[index // self.clips_per_video]
        return self._read(path, checked_index(path), index % self.clips_per_video, rng)

    def _read(self, path: Path, video: VideoIndex, number: int, rng: np.random.Generator) -> Footage:
        candidates = first_frames(len(video) - FRAMES + 1, number, self.clips_per_video, rng)
        lost, known, cuts, put_off, tries = pauses(video), self._cuts[path], set[int](), list[int](), 0
        # What is put off while others are looked at comes after them.
        for first in chain(candidates, put_off):
            inside = range(first + 1, first + FRAMES)
            if not lost.isdisjoint(inside):
                continue
            # A window over a known cut crosses it, so each cut costs one look; but what is one depends a little on the
            # window, so such windows come last: whether a file has a window must not hang on the order.
            if not cuts.isdisjoint(inside) and first not in put_off:
                put_off.append(first)
                continue
            tries += 1
            if tries > MAX_TRIES:
                break
            if first not in known:
                frames = read_frames(video, first, FRAMES)
                cut = first_cut(frames)
                if cut is None:
                    name = f"{path.relative_to(self.root).with_suffix('').as_posix()}@{first:06d}"
                    return Footage(frames=whole_pixels(frames).contiguous(), name=name, motion=UNSPLIT)
                known[first] = first + cut
            cuts.add(known[first])
        raise DamagedClip(
            f"{path}: no {FRAMES} consecutive frames without a scene cut or a pause; "
            "expected longer scenes: remove the file"
        )


def checked_videos(*, root: str | Path, clips_per_video: int) -> VideoFolder:
    """A folder every file of which is a video that is long enough: to validate on.

    A training goes on without a damaged file, a validation does not, and the first one may be hours away.

    Args:
        root: as of `VideoFolder`.
        clips_per_video: as of `VideoFolder`.

    Raises:
        InvalidInput: as `VideoFolder`.
        DamagedClip: names the first file that cannot be read, or is shorter than a clip.
    """
    folder = VideoFolder(root=root, clips_per_video=clips_per_video)
    for path in folder.paths:
        checked_index(path)
    return folder


def checked_index(path: Path) -> VideoIndex:
    """The index of a file that has a clip's frames at least.

    Raises:
        DamagedClip: no readable video, or a shorter one.
    """
    video = index_video(path)
    if len(video) < FRAMES:
        raise DamagedClip(f"{path}: {len(video)} frames; expected at least {FRAMES}: remove the file")
    return video


def segment(positions: int, number: int, segments: int) -> tuple[int, int]:
    """The half-open range of first frames in segment `number`; never empty, so short files repeat positions.

    Args:
        positions: first frames that a window may have, at least 1.
        number: which segment, from 0.
        segments: into how many equal segments the positions are divided.
    """
    low = number * positions // segments
    return low, max(low + 1, (number + 1) * positions // segments)


def first_frames(positions: int, number: int, segments: int, rng: np.random.Generator) -> Iterator[int]:
    """Every possible first frame once: those of the segment in random order, then the others in random order.

    The others serve a segment without a usable window: a file is given up only when all of it has none.
    """
    low, high = segment(positions, number, segments)
    yield from (rng.permutation(high - low) + low).tolist()
    others = np.concatenate([np.arange(low), np.arange(high, positions)])
    yield from rng.permutation(others).tolist()


def pauses(video: VideoIndex) -> set[int]:
    """Frames that follow the one before after an unusually long time, as where frames were lost."""
    steps = np.diff(video.pts)
    usual = float(np.median(steps)) if steps.size else 0.0
    return set((np.flatnonzero(steps > PAUSE * usual) + 1).tolist())
