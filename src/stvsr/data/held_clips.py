"""Clips held in memory, every window of which is trained on.

A small collection of videos easily fits in memory, and a GPU consumes clips faster than they can be decoded. So every
clip is decoded once, at the start, and each of its windows of seven frames comes once per pass, so that long clips
come more often. Windows that cross a scene cut or a pause are left out.
"""

from concurrent.futures import ThreadPoolExecutor
from itertools import chain, pairwise
from pathlib import Path

import numpy as np
from torch import Tensor
from tqdm import tqdm

from stvsr.data.clip import FRAMES, Footage, whole_pixels
from stvsr.data.clip_sets import ClipSet, ConcatClipSet, ShortClips
from stvsr.data.scene_cuts import scene_starts
from stvsr.data.synthetic import SyntheticScenes
from stvsr.data.whole_videos import WholeVideos
from stvsr.errors import InvalidInput
from stvsr.terminal import BAR


class HeldClips:
    """Every window of seven frames of the clips of a set, as a source.

    Loader processes share the frames with the process that forked them.

    Args:
        clips: the clips; those shorter than seven frames have no window.

    Raises:
        InvalidInput: none of the clips has a window.
        DamagedClip: a clip cannot be read.
    """

    def __init__(self, *, clips: ClipSet) -> None:
        self.infos = [clips.describe(index) for index in range(len(clips))]
        with ThreadPoolExecutor() as pool:
            reading = pool.map(lambda index: _read_clip(clips, index), range(len(clips)))
            read = list(tqdm(reading, "reading clips", len(clips), leave=False, **BAR))
        self.frames = [frames for frames, _ in read]
        self.windows = [(index, first) for index, (_, firsts) in enumerate(read) for first in firsts]
        if not self.windows:
            raise InvalidInput(
                f"{len(clips)} clip(s), none with {FRAMES} frames of one scene; expected at least one: choose others"
            )

    def __len__(self) -> int:
        return len(self.windows)

    def read(self, index: int, rng: np.random.Generator) -> Footage:
        """Window `index`; ignores `rng`."""
        clip, first = self.windows[index]
        return self.infos[clip].footage(self.frames[clip][first : first + FRAMES], first)


def videos_with_scenes(*, root: str | Path, scenes: int, side: int) -> HeldClips:
    """The video files of a folder and generated scenes.

    Args:
        root: the folder; subfolders are searched too.
        scenes: how many scenes; each is one window.
        side: of their square frames, HR pixels.
    """
    generated = SyntheticScenes(clips=scenes, height=side, width=side, seed=0)
    return HeldClips(clips=ConcatClipSet(sets=[WholeVideos(root=root), ShortClips(name="synthetic", source=generated)]))


def _read_clip(clips: ClipSet, index: int) -> tuple[Tensor, list[int]]:
    """All frames of a clip, cut to sides that are multiples of 4, and the first frame of each of its windows."""
    excerpt = clips.excerpt(index, 0, clips.describe(index).frames)
    frames = whole_pixels(excerpt.hr).contiguous()
    starts = [position for position, (_, cut) in enumerate(scene_starts(frames)) if cut or position in excerpt.pauses]
    scenes = pairwise([0, *starts, len(frames)])
    return frames, list(chain.from_iterable(range(first, end - FRAMES + 1) for first, end in scenes))
