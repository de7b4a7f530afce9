"""Clips held in memory: every window once, none over a cut, frames as the set gives them."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from stvsr.data.clip import FRAMES, UNSPLIT
from stvsr.data.clip_sets import ClipInfo, Excerpt, ShortClips
from stvsr.data.held_clips import HeldClips
from stvsr.data.synthetic import SyntheticScenes
from stvsr.errors import InvalidInput

RNG = np.random.default_rng(0)


class Recordings:
    """A clip set of given frames."""

    def __init__(self, clips: Sequence[torch.Tensor], pauses: frozenset[int] = frozenset()) -> None:
        self.clips = clips
        self.pauses = pauses

    def __len__(self) -> int:
        return len(self.clips)

    def describe(self, index: int) -> ClipInfo:
        return ClipInfo("recordings", f"clip{index}", len(self.clips[index]), 10, None)

    def excerpt(self, index: int, first: int, count: int) -> Excerpt:
        return Excerpt(hr=self.clips[index][first : first + count], pauses=self.pauses)


def recording(frames: int, *, level: int = 0, size: tuple[int, int] = (16, 20)) -> torch.Tensor:
    """Frames whose grey level tells their number."""
    values = level + torch.arange(frames, dtype=torch.uint8)
    return values.view(-1, 1, 1, 1).expand(-1, 3, *size).contiguous()


def test_every_window_comes_once_a_pass_under_the_number_of_its_first_frame() -> None:
    clips = [recording(9), recording(6), recording(7, level=50)]
    source = HeldClips(clips=Recordings(clips))
    read = [source.read(index, RNG) for index in range(len(source))]
    assert [footage.name for footage in read] == ["clip0@000010", "clip0@000011", "clip0@000012", "clip2@000010"]
    assert [int(footage.frames[0, 0, 0, 0]) for footage in read] == [0, 1, 2, 50]
    assert all(footage.frames.shape == (FRAMES, 3, 16, 20) and footage.motion == UNSPLIT for footage in read)


def test_no_window_crosses_a_scene_cut() -> None:
    clip = torch.cat([recording(8), recording(9, level=200)])
    source = HeldClips(clips=Recordings([clip]))
    assert [first for _, first in source.windows] == [0, 1, 8, 9, 10]


def test_no_window_crosses_a_pause() -> None:
    source = HeldClips(clips=Recordings([recording(17)], pauses=frozenset({9})))
    assert [first for _, first in source.windows] == [0, 1, 2, 9, 10]


def test_an_incomplete_last_row_or_column_is_cut() -> None:
    source = HeldClips(clips=Recordings([recording(7, size=(18, 23))]))
    assert source.read(0, RNG).frames.shape[-2:] == (16, 20)


def test_generated_scenes_keep_their_motion_split() -> None:
    scenes = SyntheticScenes(clips=3, height=32, width=32, seed=0)
    source = HeldClips(clips=ShortClips(name="synthetic", source=scenes))
    assert [source.read(index, RNG).motion for index in range(len(source))] == ["slow", "medium", "fast"]
    assert torch.equal(source.read(1, RNG).frames, scenes.read(1, RNG).frames)


def test_clips_without_a_window_are_refused() -> None:
    with pytest.raises(InvalidInput, match=r"1 clip.*7 frames"):
        HeldClips(clips=Recordings([recording(6)]))
