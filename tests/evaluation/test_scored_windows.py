"""Windows as they are read: a network that looks beyond a window is given the clip's frames around it."""

import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from conftest import moving_frames, write_frames, write_video
from stvsr.data.clip import FRAMES, to_float
from stvsr.data.clip_sets import ClipInfo, ConcatClipSet, Excerpt, RandomExcerpts
from stvsr.data.degradation import downsample
from stvsr.data.frame_folders import FrameFolders
from stvsr.data.whole_videos import WholeVideos
from stvsr.errors import DamagedClip, InvalidInput
from stvsr.evaluation.predictions import SavedFrames
from stvsr.evaluation.protocols import Protocol
from stvsr.evaluation.windows import WindowFrames, Windows, plan
from stvsr.models.frame_interpolation.blend import Blend
from stvsr.models.two_stage import FrameUpscaler, TwoStage

PAPER = Protocol("paper", True, False)


@dataclass
class Numbered:
    """A clip in which the brightness of each frame is its number."""

    frames: int
    interrupted_at: int | None = None
    name: str = "clip"
    clip_set: str = "set"
    read: list[range] = field(default_factory=list)

    def __len__(self) -> int:
        return 1

    def describe(self, index: int) -> ClipInfo:
        return ClipInfo(self.clip_set, self.name, self.frames, 0, None)

    def excerpt(self, index: int, first: int, count: int) -> Excerpt:
        frames = range(first, min(first + count, self.frames))
        self.read.append(frames)
        cut = self.interrupted_at in frames[1:]
        brightness = torch.tensor(frames, dtype=torch.uint8)[:, None, None, None]
        return Excerpt(hr=brightness.expand(-1, 3, 12, 16), interruption="scene cut" if cut else None)

    def files(self, index: int, first: int, count: int) -> list[Path]:
        return []


class WithLr(Numbered):
    """A clip with an LR frame for each of its frames, not for every other one."""

    def excerpt(self, index: int, first: int, count: int) -> Excerpt:
        hr = super().excerpt(index, first, count).hr
        return Excerpt(hr=hr, lr=hr[..., ::4, ::4])


def test_lr_frames_of_another_number_are_refused() -> None:
    """Given seven, the network would make 13 frames, and the first seven would be taken for the window."""
    clip = WithLr(frames=7)
    windows = Windows(clips=clip, tasks=plan(clip, PAPER), predictions=None, motion={}, reach=0)
    with pytest.raises(
        InvalidInput, match="clip clip: 7 LR frames for 7 HR frames; expected 4, one for every other HR frame"
    ):
        windows[0]


@pytest.mark.parametrize(
    ("clip", "error", "says"),
    [
        (WithLr(frames=7), InvalidInput, "clip clip: has LR frames; training makes its own"),
        (Numbered(frames=7, interrupted_at=3), DamagedClip, "clip clip: scene cut in frames 0 to 6"),
    ],
)
def test_training_does_not_pass_over_what_a_clip_says_of_itself(
    clip: Numbered, error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        RandomExcerpts(clips=clip).read(0, np.random.default_rng(0))


class Still(Numbered):
    """A clip in which only the last frame has moved."""

    def excerpt(self, index: int, first: int, count: int) -> Excerpt:
        moved = moving_frames(2, (32, 48), speed=4)
        return Excerpt(hr=moved[[int(frame == self.frames - 1) for frame in range(first, first + count)]])


class Around(FrameUpscaler):
    """Sums each frame and its neighbours within reach; missing neighbours count as zero."""

    title = "around"

    def __init__(self, reach: int) -> None:
        super().__init__()
        self.reach = reach

    def forward(self, frames: Tensor) -> Tensor:
        t = frames.shape[1]
        sums = [frames[:, max(0, at - self.reach) : at + self.reach + 1].sum(dim=1) for at in range(t)]
        return torch.stack(sums, dim=1).repeat_interleave(4, -1).repeat_interleave(4, -2)


def windows_of(clips: Numbered | FrameFolders | WholeVideos, reach: int) -> Windows:
    return Windows(clips=clips, tasks=plan(clips, PAPER), predictions=None, motion={}, reach=reach)


def numbers(window: WindowFrames) -> list[int]:
    """Numbers of the `Numbered` frames that the network is given."""
    return (window.lr[:, 0, 0, 0] * 255).round().int().tolist()


@given(frames=st.integers(FRAMES, 40), reach=st.integers(0, 7))
def test_frames_of_windows_are_those_of_the_whole_clip(frames: int, reach: int) -> None:
    clip, system = Numbered(frames), TwoStage(interpolator=Blend(), upscaler=Around(reach))
    windows = windows_of(clip, system.reach)
    for at in range(len(windows)):
        window = windows[at]
        # A last window that was moved back may begin at an odd frame; the network is then given the odd frames.
        parity = window.task.window.first % 2
        whole = system(downsample(to_float(clip.excerpt(0, 0, frames).hr[parity::2]))[None])[0]
        made = system(window.lr[None])[0, window.inside : window.inside + FRAMES]
        first = window.task.window.first - parity
        torch.testing.assert_close(made, whole[first : first + FRAMES], msg=f"window at {window.task.window.first}")


@pytest.mark.parametrize(
    ("reach", "expected"),
    [
        (0, [[0, 2, 4, 6], [6, 8, 10, 12], [12, 14, 16, 18], [13, 15, 17, 19]]),
        (1, [[0, 2, 4, 6, 8], [4, 6, 8, 10, 12, 14], [10, 12, 14, 16, 18], [11, 13, 15, 17, 19]]),
        (2, [[0, 2, 4, 6, 8, 10], [2, 4, 6, 8, 10, 12, 14, 16], [8, 10, 12, 14, 16, 18], [9, 11, 13, 15, 17, 19]]),
    ],
)
def test_a_network_is_given_as_many_frames_around_a_window_as_it_reaches(reach: int, expected: list[list[int]]) -> None:
    windows = windows_of(Numbered(20), reach)
    assert [numbers(windows[at]) for at in range(len(windows))] == expected


def test_what_is_scored_is_the_window_alone() -> None:
    window = windows_of(Numbered(25), reach=2)[1]
    assert window.hr[:, 0, 0, 0].tolist() == list(range(6, 13))
    assert len(window.motion) == len(window.pairs) == len(window.task.window.kept)


@pytest.mark.parametrize("cut", [4, 14])
def test_a_window_near_a_cut_stands_alone(cut: int) -> None:
    window = windows_of(Numbered(25, interrupted_at=cut), reach=2)[1]
    assert (window.interruption, window.inside, numbers(window)) == (None, 0, [6, 8, 10, 12])


def test_a_window_that_crosses_a_cut_is_interrupted_still() -> None:
    assert windows_of(Numbered(25, interrupted_at=8), reach=2)[1].interruption == "scene cut"


def test_a_cut_in_a_video_beside_a_window_ends_what_a_network_is_given(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", torch.cat([moving_frames(7, (48, 64)), 255 - moving_frames(7, (48, 64), seed=5)]))
    first = windows_of(WholeVideos(root=tmp_path), reach=2)[0]
    assert (first.interruption, len(first.lr)) == (None, 4)


def test_a_window_is_read_anew_when_a_frame_around_it_changed(tmp_path: Path) -> None:
    write_frames(tmp_path / "clip", moving_frames(13, (32, 48)))
    states = []
    for reach in (0, 1):
        windows = windows_of(FrameFolders(root=tmp_path), reach)
        states.append((windows.state(windows.tasks[0]), windows[0].state))
    (tmp_path / "clip" / "00000009.png").unlink()
    write_frames(tmp_path / "clip", 255 - moving_frames(1, (32, 48)), first=9)
    for reach, (before, read) in enumerate(states):
        windows = windows_of(FrameFolders(root=tmp_path), reach)
        assert before == read
        assert (windows.state(windows.tasks[0]) == before) is (reach == 0)


def test_a_set_that_is_named_twice_is_refused() -> None:
    """Otherwise frames and rows of one would be taken for those of the other."""
    with pytest.raises(InvalidInput, match="two clips are called clip in set; rename one"):
        plan(ConcatClipSet(sets=[Numbered(7), Numbered(9)]), PAPER)


def test_a_clip_whose_name_is_no_text_is_refused_before_anything_is_scored() -> None:
    with pytest.raises(InvalidInput, match=r"clip 'caf.*': the name is not UTF-8"):
        plan(Numbered(7, name="caf\udce9"), PAPER)
    clips = Numbered(7, clip_set="caf\udce9")
    with pytest.raises(InvalidInput, match=r"the clip set 'caf.*': the name is not UTF-8"):
        plan(clips, PAPER)


def test_saved_frames_are_cut_to_whole_lr_pixels_as_the_truth_is(tmp_path: Path) -> None:
    write_frames(tmp_path / "clip", moving_frames(7, (35, 50)))
    clips = FrameFolders(root=tmp_path)
    tasks = plan(clips, PAPER)
    saved = SavedFrames(root=tmp_path, needed=[(task.clip, task.folder, task.numbers) for task in tasks])
    window = Windows(clips=clips, tasks=tasks, predictions=saved, motion={}, reach=0)[0]
    assert window.prediction is not None
    assert torch.equal(window.prediction, window.hr)


def test_motion_of_which_a_part_is_known_is_measured() -> None:
    """An earlier protocol may have left out the tail."""
    clip = Still(7)
    tasks = plan(clip, PAPER)
    whole = windows_of(clip, reach=0)[0]
    known = {pair: 0.0 for pair in whole.pairs[1:3] if pair is not None}
    again = Windows(clips=clip, tasks=tasks, predictions=None, motion=known, reach=0)[0]
    assert again.motion == whole.motion


class Lacking(Numbered):
    """A clip that has lost a frame since it was described."""

    def excerpt(self, index: int, first: int, count: int) -> Excerpt:
        return super().excerpt(index, first, count - 1)


def test_a_clip_that_lost_a_frame_is_damaged() -> None:
    with pytest.raises(DamagedClip, match="6 frames from 6 on; expected 7: the clip has changed"):
        windows_of(Lacking(13), reach=0)[1]


def test_frames_that_are_written_while_they_are_read_are_not_those_that_are_there_now(tmp_path: Path) -> None:
    write_frames(tmp_path / "clip", moving_frames(7, (32, 48)))

    class Meanwhile(FrameFolders):
        def excerpt(self, index: int, first: int, count: int) -> Excerpt:
            read = super().excerpt(index, first, count)
            os.utime(tmp_path / "clip" / "00000003.png", ns=(0, 0))
            return read

    windows = windows_of(Meanwhile(root=tmp_path), reach=0)
    assert windows[0].state != windows.state(windows.tasks[0])


@pytest.mark.parametrize("frames", [7, 10])
def test_motion_is_that_from_the_frame_before(frames: int) -> None:
    """Only the last frame of the clip moves; 10 frames need a window that is moved back."""
    clip = Still(frames)
    window = windows_of(clip, reach=0)[-1]
    motion = window.motion
    kept = len(window.task.window.kept)
    assert len(motion) == len(window.pairs) == kept
    assert (motion[0] is None) == (window.pairs[0] is None) == (kept == FRAMES)
    assert [value > 0.5 for value in motion if value is not None][-2:] == [False, True]
