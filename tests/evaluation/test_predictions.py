"""Saved frames are matched with the right frames of the truth, or refused."""

from pathlib import Path

import pytest
import torch

from conftest import moving_frames, write_frames
from stvsr.data.clip_sets import ClipInfo
from stvsr.errors import DamagedClip, InvalidInput
from stvsr.evaluation.predictions import SavedFrames, save_frames

FRAMES = moving_frames(9, (16, 24))
CLIP = ClipInfo("set", "a", 9, 1, None)
OTHER = ClipInfo("other", "a", 9, 1, None)


def saved(root: Path, numbers: range = range(1, 10)) -> SavedFrames:
    return SavedFrames(root=root, needed=[(CLIP, "a", list(numbers))])


def test_frames_come_by_number(tmp_path: Path) -> None:
    save_frames(tmp_path / "a", list(range(1, 10)), FRAMES)
    frames = saved(tmp_path)
    assert torch.equal(frames.read(CLIP, [3, 5], (24, 16)), FRAMES[[2, 4]])
    assert frames.files(CLIP, [3, 5]) == [tmp_path / "a" / f"0000000{number}.png" for number in (3, 5)]


def test_a_missing_frame_is_named_unless_it_does_not_count(tmp_path: Path) -> None:
    save_frames(tmp_path / "a", list(range(1, 8)), FRAMES[:7])
    with pytest.raises(InvalidInput, match=r"a: frame 8 is missing \(2 of 9 that count\)"):
        saved(tmp_path)
    saved(tmp_path, range(1, 8))
    with pytest.raises(InvalidInput, match=r"a: frame 8 is missing \(1 of 8 that count\)"):
        SavedFrames(root=tmp_path, needed=[(CLIP, "a", [2, 8]), (CLIP, "a", [1, 2, 3, 4, 5, 6, 7])])


@pytest.mark.parametrize("first", [0, 2])
def test_frames_numbered_one_off_are_refused(tmp_path: Path, first: int) -> None:
    """The number of files is right, but each would be compared with its neighbour."""
    write_frames(tmp_path / "a", FRAMES, first=first)
    with pytest.raises(InvalidInput, match=r"frame (9|1) is missing"):
        saved(tmp_path)


@pytest.mark.parametrize(("first", "extra"), [(0, 0), (1, 10)])
def test_an_extra_frame_is_named(tmp_path: Path, first: int, extra: int) -> None:
    write_frames(tmp_path / "a", moving_frames(10, (16, 24)), first=first)
    with pytest.raises(InvalidInput, match=rf"frame {extra} is not in the ground truth \(1 such"):
        saved(tmp_path)


def test_predictions_may_lack_the_incomplete_last_row_but_nothing_else(tmp_path: Path) -> None:
    write_frames(tmp_path / "a", FRAMES)
    assert saved(tmp_path).read(CLIP, [1], (26, 19)).shape == (1, 3, 16, 24)
    with pytest.raises(DamagedClip, match="frames are 24x16, the ground truth 28x16"):
        saved(tmp_path).read(CLIP, [1], (28, 16))


def test_clips_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    save_frames(tmp_path / "set" / "a", list(range(1, 10)), FRAMES)
    save_frames(tmp_path / "other" / "a", list(range(1, 10)), 255 - FRAMES)
    both = SavedFrames(
        root=tmp_path, needed=[(clip, f"{clip.clip_set}/a", list(range(1, 10))) for clip in (CLIP, OTHER)]
    )
    assert torch.equal(both.read(CLIP, [1], (24, 16)), 255 - both.read(OTHER, [1], (24, 16)))
