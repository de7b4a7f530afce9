"""Draws are a pure function of seed and position; damaged clips are replaced and named, and none ends a run alone."""

from itertools import combinations, product
from typing import Any

import numpy as np
import pytest
import torch

from stvsr.data.augmentation import transform
from stvsr.data.clip import Clip, Footage, to_float
from stvsr.data.datasets import MAX_DAMAGED_IN_A_ROW, TrainingClips, ValidationClips
from stvsr.data.degradation import downsample
from stvsr.errors import DamagedClip


def same(a: Clip, b: Clip) -> bool:
    return a.name == b.name and torch.equal(a.lr, b.lr) and torch.equal(a.hr, b.hr)


def test_a_draw_does_not_depend_on_what_was_drawn_before(noise_source: Any) -> None:
    first = TrainingClips(source=noise_source(), crop=8, draws=20, seed=1)
    second = TrainingClips(source=noise_source(), crop=8, draws=20, seed=1)
    forward = [first[draw] for draw in range(20)]
    backward = [second[draw] for draw in reversed(range(20))][::-1]
    assert all(same(a, b) for a, b in zip(forward, backward, strict=True))
    other_seed = TrainingClips(source=noise_source(), crop=8, draws=20, seed=2)
    assert not all(same(a, other_seed[draw]) for draw, a in enumerate(forward))


def test_every_clip_comes_once_a_pass_and_passes_differ(noise_source: Any) -> None:
    clips = TrainingClips(source=noise_source(clips=9), crop=8, draws=27, seed=0)
    passes = [[clips[draw].name for draw in range(start, start + 9)] for start in (0, 9, 18)]
    assert all(len(set(names)) == 9 for names in passes)
    assert passes[0] != passes[1] != passes[2]


def test_another_seed_and_another_draw_crop_elsewhere(noise_source: Any) -> None:
    """With a single clip, whose order cannot differ."""
    crops = [
        TrainingClips(source=noise_source(clips=1), crop=8, draws=4, seed=seed)[draw].hr
        for seed, draw in product((1, 2), range(4))
    ]
    assert not any(torch.equal(a, b) for a, b in combinations(crops, 2))


def test_another_seed_takes_clips_in_another_order(noise_source: Any) -> None:
    """The clips are no larger than the crop, so only their order can differ."""
    ours, theirs = (
        [clip.name for clip in TrainingClips(source=noise_source(9, (16, 16)), crop=4, draws=9, seed=seed)]
        for seed in (1, 2)
    )
    assert sorted(ours) == sorted(theirs)
    assert ours != theirs


@pytest.mark.parametrize("crop", [4, 8, 12])
def test_a_clip_is_a_crop_of_the_degraded_whole(noise_source: Any, crop: int) -> None:
    clips = TrainingClips(source=noise_source(), crop=crop, draws=16, seed=3)
    # Inside, where the kernel does not reach the crop's border, degrading the crop gives the same pixels.
    inner = slice(2, crop - 2)
    # Enough to include rotated, flipped and reversed ones.
    for clip in (clips[draw] for draw in range(16)):
        assert clip.lr.shape == (4, 3, crop, crop)
        assert clip.hr.shape == (7, 3, 4 * crop, 4 * crop)
        assert torch.equal(clip.lr[..., inner, inner], downsample(clip.hr[::2])[..., inner, inner])


def test_no_crop_reaches_into_rows_and_columns_that_form_no_lr_pixel(noise_source: Any) -> None:
    """Of 35 rows and 38 columns, 32 and 36 do: a 32x32 crop has one vertical and two horizontal positions."""
    source = noise_source(clips=1, size=(35, 38))
    hr = to_float(source.read(0, np.random.default_rng(0)).frames[..., :32, :36])
    lr = downsample(hr[::2])
    ways = [
        {"turns": turns, "flip": flip, "reverse": reverse}
        for turns, flip, reverse in product(range(4), (False, True), (False, True))
    ]
    clips, seen = TrainingClips(source=source, crop=8, draws=12, seed=0), set()
    for clip in (clips[draw] for draw in range(12)):
        places = {
            left
            for left, way in product((0, 1), ways)
            if torch.equal(clip.lr, transform(lr[..., left : left + 8], **way))
            and torch.equal(clip.hr, transform(hr[..., 4 * left : 4 * left + 32], **way))
        }
        assert len(places) == 1
        seen |= places
    assert seen == {0, 1}


def test_crop_as_large_as_the_frame_is_allowed(noise_source: Any) -> None:
    assert TrainingClips(source=noise_source(size=(32, 32)), crop=8, draws=1, seed=0)[0].hr.shape[-1] == 32


class Damaged:
    """All clips but the good ones are damaged."""

    def __init__(self, whole: Any, good: set[int]) -> None:
        self.whole, self.good = whole, good

    def __len__(self) -> int:
        return len(self.whole)

    def read(self, index: int, rng: np.random.Generator) -> Footage:
        if index not in self.good:
            raise DamagedClip(f"clip {index} is damaged")
        return self.whole.read(index, rng)


def test_a_damaged_clip_is_replaced_and_named(noise_source: Any) -> None:
    clips = TrainingClips(source=Damaged(noise_source(clips=6), good={0, 1, 2, 4, 5}), crop=8, draws=6, seed=0)
    drawn = [clips[draw] for draw in range(6)]
    assert [clip.skipped for clip in drawn if clip.skipped] == [("clip 3 is damaged",)]
    assert all(clip.name != "noise-3" for clip in drawn)


def test_a_folder_half_of_which_is_damaged_is_trained_on(noise_source: Any) -> None:
    """By chance, two of 2,000 draws follow ten damaged ones."""
    clips = TrainingClips(source=Damaged(noise_source(clips=40), good=set(range(20))), crop=8, draws=2000, seed=0)
    assert max(len(clips[draw].skipped) for draw in range(2000)) >= 10


def test_many_damaged_clips_in_a_row_are_an_error(noise_source: Any) -> None:
    clips = TrainingClips(source=Damaged(noise_source(clips=40), good=set()), crop=8, draws=1, seed=0)
    with pytest.raises(DamagedClip, match=f"{MAX_DAMAGED_IN_A_ROW} damaged clips in a row"):
        clips[0]


def test_clips_too_small_for_the_crop_say_how_large_a_crop_may_be(noise_source: Any) -> None:
    clips = TrainingClips(source=noise_source(clips=40, size=(48, 64)), crop=32, draws=1, seed=0)
    with pytest.raises(DamagedClip, match=r"64x48, too small for a crop of 128x128; .* at most 12"):
        clips[0]
    clips = TrainingClips(source=noise_source(clips=1, size=(12, 64)), crop=32, draws=1, seed=0)
    with pytest.raises(DamagedClip, match=r"64x12, too small for a crop of 128x128; remove it$"):
        clips[0]


def test_scoring_takes_whole_frames_and_cuts_odd_edges(noise_source: Any) -> None:
    source = noise_source(size=(50, 67))
    clip = ValidationClips(source=source)[1]
    expected = source.read(1, np.random.default_rng(0)).frames[..., :48, :64].float() / 255
    assert torch.equal(clip.hr, expected)
    assert torch.equal(clip.lr, downsample(expected)[::2])
    assert clip.motion == "medium"


def test_scoring_does_not_skip_damaged_clips(noise_source: Any) -> None:
    with pytest.raises(DamagedClip, match="clip 1"):
        ValidationClips(source=Damaged(noise_source(), good={0}))[1]


@pytest.mark.parametrize("clips", [TrainingClips, ValidationClips])
def test_a_loop_over_clips_ends(noise_source: Any, clips: Any) -> None:
    class Endless(noise_source):  # type: ignore[misc]
        def read(self, index: int, rng: np.random.Generator) -> Footage:
            footage: Footage = super().read(index % len(self), rng)
            return footage

    data = clips(source=Endless(2), **({"crop": 4, "draws": 2, "seed": 0} if clips is TrainingClips else {}))
    assert len(list(data)) == 2
    for outside in (-1, 2):
        with pytest.raises(IndexError, match=f" {outside} is out of range: 2 "):
            data[outside]
