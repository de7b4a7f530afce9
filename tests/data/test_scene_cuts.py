import numpy as np
import pytest
import torch
from scenedetect import ContentDetector, FrameTimecode, StatsManager
from torch import Tensor

from stvsr.data.scene_cuts import REACH, _stands_out, content_changes, first_cut, scene_starts


def texture(seed: int, size: int = 320) -> Tensor:
    """A smooth random colour picture, `(3, size, size)` uint8."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 12, 12, generator=generator) * 255
    return torch.nn.functional.interpolate(coarse, size=size, mode="bilinear")[0].to(torch.uint8)


def pan(picture: Tensor, speed: int, frames: int = 7) -> Tensor:
    """A pan over a picture by `speed` pixels a frame: `(frames, 3, 64, 96)`."""
    return torch.stack([picture[:, 40:104, speed * i : speed * i + 96] for i in range(frames)])


@pytest.mark.parametrize("position", range(1, 7))
def test_a_cut_is_found_at_every_place_in_the_window(position):
    frames = torch.cat([pan(texture(1), 2)[:position], pan(texture(2), 2)[position:]])
    assert first_cut(frames) == position


def test_the_first_of_two_cuts_is_found():
    scenes = [pan(texture(seed), 2) for seed in (1, 2, 3)]
    assert first_cut(torch.cat([scenes[0][:2], scenes[1][2:5], scenes[2][5:]])) == 2


@pytest.mark.parametrize("speed", [0, 2, 10, 30])
def test_fast_camera_motion_is_no_cut(speed):
    frames = pan(texture(1), speed)
    if speed == 30:
        assert content_changes(frames).min() > 27, "a motion that PySceneDetect's own threshold takes for cuts"
    assert first_cut(frames) is None


def test_slow_brightening_is_no_cut():
    frames = torch.stack([(texture(1)[:, :64, :96] * (0.4 + 0.1 * i)).to(torch.uint8) for i in range(7)])
    assert first_cut(frames) is None


@pytest.mark.parametrize("times", [2, 3])
def test_fast_motion_is_no_cut_where_every_frame_is_repeated(times):
    """As 30 frames a second stored as 60. Only the first and last step, near just one other each, may pass for cuts.

    A cut in such a video is still found.
    """
    moving = pan(texture(1), 30, 8).repeat_interleave(times, 0)
    assert content_changes(moving).max() > 27
    found = {number for number, (_, starts) in enumerate(scene_starts(moving)) if starts}
    assert found <= {times, 7 * times}
    scenes = torch.cat([pan(texture(1), 4, 6), pan(texture(2), 4, 6)]).repeat_interleave(times, 0)
    assert [number for number, (_, starts) in enumerate(scene_starts(scenes)) if starts] == [6 * times]


@pytest.mark.parametrize("first", [0, 1])
def test_a_repeated_frame_is_no_cut_in_a_window_of_seven(first):
    assert first_cut(pan(texture(1), 30, 8).repeat_interleave(2, 0)[first + 2 : first + 9]) is None


@pytest.mark.parametrize("changes", [(0.6, 40, 0.8, 60, 1.1, 0.5), (0.5, 1.2, 45, 0.5, 30, 0.5)])
def test_both_of_two_cuts_in_a_still_scene_stand_out(changes):
    """Even beside grain or a small movement."""
    found = [c for place, c in enumerate(changes) if _stands_out(c, np.delete(changes, place))]
    assert found == [c for c in changes if c >= 30]


@pytest.mark.parametrize(
    ("change", "others", "is_cut"),
    [
        # 1.7 times the usual change.
        *((33.9, (20, 20, 20, 20, 20), False), (34.1, (20, 20, 20, 20, 20), True)),
        # In a still scene, a change of 20.
        *((19.9, (2, 2, 2, 2, 2), False), (20.1, (2, 2, 2, 2, 2), True)),
        # Changes below 1 come from frames shown twice and do not count as usual.
        *((30, (0.9, 0.9, 0.9, 25, 25), False), (30, (1.1, 1.1, 1.1, 25, 25), True)),
    ],
)
def test_a_cut_is_a_large_change_that_is_many_times_the_usual_one(change, others, is_cut):
    assert _stands_out(change, np.array(others)) is is_cut


def test_two_frames_and_one_frame_are_decided_too():
    pair = torch.stack([texture(1), texture(2)])
    assert first_cut(pair) == 1
    assert first_cut(pair[:1]) is None


@pytest.mark.parametrize("position", range(1, 12))
def test_a_stream_tells_where_a_scene_starts_and_keeps_every_frame_in_order(position):
    frames = torch.cat([pan(texture(1), 2, 12)[:position], pan(texture(2), 2, 12)[position:]])
    given = list(scene_starts(frames))
    assert all(torch.equal(ours, theirs) for (ours, _), theirs in zip(given, frames, strict=True))
    assert [number for number, (_, starts) in enumerate(given) if starts] == [position]


@pytest.mark.parametrize("frames", [0, 1, REACH, 2 * REACH + 2])
def test_a_stream_of_one_scene_has_no_start(frames):
    assert [starts for _, starts in scene_starts(pan(texture(1), 2, 12)[:frames])] == [False] * frames


def test_a_stream_is_read_no_further_ahead_than_needed():
    read = []
    stream = scene_starts(read.append(number) or frame for number, frame in enumerate(pan(texture(1), 2, 12)))
    next(stream)
    assert read == [*range(REACH + 1)]


def test_wide_frames_are_thinned_before_they_are_compared():
    """Of 520 columns, 260 are compared: the others would add only grain and computing time."""
    frames = torch.full((2, 3, 40, 520), 100, dtype=torch.uint8)
    frames[1, :, 1::2] = frames[1, :, :, 1::2] = 200
    assert content_changes(frames).tolist() == [0]
    assert content_changes(frames[..., :511]).item() > 20


def test_changes_are_those_of_pyscenedetect():
    frames = torch.cat([pan(texture(1), 5), pan(texture(2), 9)])
    detector = ContentDetector()
    detector.stats_manager = StatsManager()
    times = [FrameTimecode(number, fps=30.0) for number in range(len(frames))]
    for time, image in zip(times, frames.flip(1).permute(0, 2, 3, 1).contiguous().numpy(), strict=True):
        detector.process_frame(time, image)
    expected = [detector.stats_manager.get_metrics(time, ["content_val"])[0] for time in times[1:]]
    np.testing.assert_allclose(content_changes(frames), expected, rtol=1e-9)
