"""Clips described without being read, and read as they are described."""

import numpy as np
import pytest
import torch

from stvsr.data.clip_sets import ConcatClipSet, ShortClips
from stvsr.data.synthetic import SyntheticScenes


def scenes(seed: int = 0) -> SyntheticScenes:
    return SyntheticScenes(clips=4, height=32, width=48, seed=seed)


def test_short_clips_describe_what_the_source_gives() -> None:
    clips = ShortClips(name="made", source=scenes())
    assert len(clips) == 4
    for index in range(4):
        footage = scenes().read(index, np.random.default_rng(0))
        info = clips.describe(index)
        assert (info.clip_set, info.name, info.frames, info.motion) == ("made", footage.name, 7, footage.motion)
        assert torch.equal(clips.excerpt(index, 0, 7).hr, footage.frames)


def test_several_sets_keep_their_names_and_order() -> None:
    sets = ConcatClipSet(sets=[ShortClips(name="A", source=scenes()), ShortClips(name="B", source=scenes(1))])
    assert len(sets) == 8
    assert [sets.describe(index).clip_set for index in range(8)] == [*"AAAABBBB"]
    assert torch.equal(sets.excerpt(5, 0, 7).hr, scenes(1).read(1, np.random.default_rng(0)).frames)
    with pytest.raises(IndexError, match="clip index 8 is out of range: 8 clips"):
        sets.describe(8)
