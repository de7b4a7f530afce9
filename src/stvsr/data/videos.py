"""Clips streamed from a folder of ordinary video files; nothing is extracted to disk first.

Every file gives `clips_per_video` clips. The possible first frames of a file are divided into as many
equal segments, and each time a clip is read, one is drawn from its segment: 1 means anywhere in the file,
more give more clips to validate on. Where the window crosses a scene cut or a pause (lost frames), another
position is tried: no network could learn what lies between two such frames.

The folder is searched with its subfolders, in sorted order; hidden ones are left out. Files are opened by
the process that reads, at each read (see `decoding.py`), so the source can be pickled and forked.
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
"""Suffixes, in lower or upper case, of containers whose random access is exact or refused in our tests."""

MAX_TRIES = 100
"""Windows checked for cuts before a file is given up."""

PAUSE = 3.0
"""Frames further apart than this many median intervals are not consecutive; those of phones vary less."""


def video_files(root: Path) -> list[Path]:
    """The video files of a folder and its subfolders, sorted; hidden files and folders are left out.

    Raises:
        InvalidInput: no such folder, no video file in it, or a broken or circular link.
    """
    if not root.is_dir():
        raise InvalidInput(f"{root}: no such folder; expected a folder of video files")
    paths = sorted(folder / name for folder, _, names in searched(root, EXTENSIONS) for name in names)
    if not paths:
        raise InvalidInput(f"{root}: no video files there; expected files ending in {', '.join(sorted(EXTENSIONS))}")
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
        # Cuts found in each file, by the window's first frame: a long run draws windows repeatedly.
        self._cuts: defaultdict[Path, dict[int, int]] = defaultdict(dict)
        self.paths = video_files(self.root)

    def __len__(self) -> int:
        return len(self.paths) * self.clips_per_video

    def read(self, index: int, rng: np.random.Generator) -> Footage:
        """A window of file `index // clips_per_video`, at a position that `rng` draws from its segment.

        Height and width are cropped to multiples of 4 at the bottom and right.

        Raises:
            DamagedClip: not a readable video, shorter than a clip, without a window of one scene, or damaged at the
                drawn position; the rest of such a file can be read.
        """
        path = self.paths[index // self.clips_per_video]
        return self._read(path, checked_index(path), index % self.clips_per_video, rng)

    def _read(self, path: Path, video: VideoIndex, number: int, rng: np.random.Generator) -> Footage:
        candidates = first_frames(len(video) - FRAMES + 1, number, self.clips_per_video, rng)
        lost, known_cuts, cuts, deferred, tries = pauses(video), self._cuts[path], set[int](), list[int](), 0
        # `deferred` grows in the loop, and comes after all others.
        for first in chain(candidates, deferred):
            inside = range(first + 1, first + FRAMES)
            if not lost.isdisjoint(inside):
                continue
            # Windows over a known cut come last, so each cut costs one look. They are not skipped: what is a cut varies
            # a little with the window, and whether a file has a usable one must not depend on the order.
            if not cuts.isdisjoint(inside) and first not in deferred:
                deferred.append(first)
                continue
            tries += 1
            if tries > MAX_TRIES:
                break
            if first not in known_cuts:
                frames = read_frames(video, first, FRAMES)
                cut = first_cut(frames)
                if cut is None:
                    name = f"{path.relative_to(self.root).with_suffix('').as_posix()}@{first:06d}"
                    return Footage(frames=whole_pixels(frames).contiguous(), name=name, motion=UNSPLIT)
                known_cuts[first] = first + cut
            cuts.add(known_cuts[first])
        raise DamagedClip(
            f"{path}: no {FRAMES} consecutive frames without a scene cut or a pause; "
            "expected longer scenes: remove the file"
        )


def checked_videos(*, root: str | Path, clips_per_video: int) -> VideoFolder:
    """A video folder to validate on: every file is checked to be a video that is long enough.

    Training skips a damaged file, but validation fails on it, and the first validation may be hours away.

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
    """The index of a file that has at least as many frames as a clip.

    Raises:
        DamagedClip: not a readable video, or too short.
    """
    video = index_video(path)
    if len(video) < FRAMES:
        raise DamagedClip(f"{path}: {len(video)} frames; expected at least {FRAMES}: remove the file")
    return video


def segment(positions: int, number: int, segments: int) -> tuple[int, int]:
    """The half-open range of first frames in segment `number`; never empty, so short files repeat positions.

    Args:
        positions: number of possible first frames, at least 1.
        number: which segment, from 0.
        segments: number of equal segments.
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
    """Numbers of frames that come unusually long after the one before, as where frames were lost."""
    steps = np.diff(video.pts)
    typical = float(np.median(steps)) if steps.size else 0.0
    return set((np.flatnonzero(steps > PAUSE * typical) + 1).tolist())
