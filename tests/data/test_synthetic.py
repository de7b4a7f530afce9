"""Generated scenes: reproducible, with the motion they claim, and worth learning from.

Clips are compared with their own ground truth. A threshold leaves about a factor of two to the worst of 36 clips;
scenes depend on their seed alone, so that only a change of the code can come near it.
"""

import hashlib
import pickle
import subprocess
import sys
from dataclasses import replace
from functools import cache

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from scene_truth import Truth, motion_of, truth_of
from stvsr.data.clip import MOTION_SPLITS, Footage
from stvsr.data.synthetic import MOTION_RANGES, SyntheticScenes, screen, times
from stvsr.data.textures import DENSITY, sample
from stvsr.errors import InvalidInput

SIDE = 96
UNUSED = np.random.default_rng(0)


def scenes(height: int = SIDE, width: int = SIDE, seed: int = 0, clips: int = 300) -> SyntheticScenes:
    return SyntheticScenes(clips=clips, height=height, width=width, seed=seed)


def read(source: SyntheticScenes, index: int) -> Footage:
    return source.read(index, UNUSED)


@cache
def truth(index: int) -> Truth:
    return truth_of(scenes(), index)


def digest(source: SyntheticScenes, index: int) -> str:
    return hashlib.sha256(read(source, index).frames.numpy().tobytes()).hexdigest()


# Reproducible


def test_a_clip_does_not_depend_on_what_was_read_before_nor_on_the_generator_passed() -> None:
    forwards, backwards = scenes(), scenes()
    first = [digest(forwards, index) for index in (0, 4, 8)]
    second = [digest(backwards, index) for index in (8, 4, 0)]
    assert first == second[::-1]
    other = forwards.read(4, np.random.default_rng(99))
    assert torch.equal(other.frames, read(backwards, 4).frames)


def test_another_process_with_another_number_of_threads_makes_the_same_clip_bit_for_bit() -> None:
    program = (
        "import sys, cv2, torch, hashlib, numpy as np; torch.set_num_threads(2);"
        "from stvsr.data.synthetic import SyntheticScenes; cv2.setNumThreads(2);"
        f"s = SyntheticScenes(clips=300, height={SIDE}, width={SIDE}, seed=0);"
        "print(hashlib.sha256(s.read(5, np.random.default_rng(1)).frames.numpy().tobytes()).hexdigest())"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == digest(scenes(), 5)


def test_a_pickled_source_makes_the_same_clips() -> None:
    source = scenes(seed=3)
    copy = pickle.loads(pickle.dumps(source))
    assert len(copy) == len(source)
    assert digest(copy, 7) == digest(source, 7)


def test_every_seed_and_every_index_has_its_own_scene() -> None:
    digests = {digest(scenes(32, 32, seed), index) for seed in range(3) for index in range(6)}
    assert len(digests) == 18


def test_seed_and_index_decide_the_painting_as_they_decide_the_motion() -> None:
    scene = scenes(32, 32).scene(0)
    painted = [scenes(32, 32, seed)._frames(scene, index) for seed, index in ((0, 0), (1, 0), (0, 1))]
    assert not torch.equal(painted[0], painted[1])
    assert not torch.equal(painted[0], painted[2])


# Splits


def test_splits_have_equal_shares_and_clips_are_named_after_them() -> None:
    source = scenes(32, 36, clips=12)
    clips = [read(source, index) for index in range(len(source))]
    assert [clip.motion for clip in clips] == list(MOTION_SPLITS) * 4
    assert clips[3].name == "synthetic-slow-000003"
    assert all(clip.frames.shape == (7, 3, 32, 36) for clip in clips)


def test_splits_adjoin_without_overlap() -> None:
    ranges = [MOTION_RANGES[split] for split in MOTION_SPLITS]
    assert all(low < high for low, high in ranges)
    assert ranges[0][1] == ranges[1][0]
    assert ranges[1][1] == ranges[2][0]


@pytest.mark.parametrize(("height", "width"), [(32, 32), (64, 112), (128, 128), (32, 160), (256, 448)])
def test_true_mean_motion_falls_within_the_split_at_every_frame_size(height: int, width: int) -> None:
    source = scenes(height, width, seed=5)
    # Clip 99 of 64 x 112 had the largest clock error before the grid that sets the clock was made finer.
    for index in (*range(6 if height > 128 else 18), 99):
        slowest, fastest = MOTION_RANGES[source.entry(index)[1]]
        assert slowest <= motion_of(source, index) <= fastest, f"clip {index}"


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**40),
    index=st.integers(0, 10**6 - 1),
    height=st.integers(8, 20).map(lambda side: 4 * side),
    width=st.integers(8, 20).map(lambda side: 4 * side),
)
def test_any_scene_keeps_the_contract(seed: int, index: int, height: int, width: int) -> None:
    source = scenes(height, width, seed, clips=10**6)
    clip = read(source, index)
    assert clip.frames.shape == (7, 3, height, width)
    assert clip.frames.float().std() > 8, "a scene with next to nothing in it"
    slowest, fastest = MOTION_RANGES[clip.motion]
    assert slowest <= motion_of(source, index) <= fastest


# Truth


def test_truth_belongs_to_the_clip_that_is_read() -> None:
    made, source = truth(2), scenes()
    assert torch.equal(made.frames, read(source, 2).frames)
    assert made.flow.shape == (6, 2, SIDE, SIDE)
    assert made.visible.shape == (6, SIDE, SIDE)
    assert made.visible.dtype == torch.bool
    assert float(made.flow.norm(dim=1).mean()) == pytest.approx(motion_of(source, 2), rel=1e-4)


@pytest.mark.parametrize("index", range(9))
def test_true_flow_carries_each_frame_into_the_one_before(index: int) -> None:
    made = truth(index)
    frames = made.frames.permute(0, 2, 3, 1).numpy().astype(np.float32)
    x, y = screen(SIDE, SIDE)
    for now, after, flow, visible in zip(frames[:-1], frames[1:], made.flow.numpy(), made.visible.numpy(), strict=True):
        assert visible.mean() > 0.4
        warped = cv2.remap(after, x + flow[0], y + flow[1], cv2.INTER_CUBIC)
        error = np.abs(warped - now)[visible].mean()
        unmoved = np.abs(after - now)[visible].mean()
        assert error < 2.5, "grey levels of 255"
        if index % 3:
            assert error < 0.25 * unmoved


def test_what_an_object_is_about_to_cover_is_not_called_visible() -> None:
    made = truth(5)
    frames = made.frames.permute(0, 2, 3, 1).numpy().astype(np.float32)
    x, y = screen(SIDE, SIDE)
    flow = made.flow[3].numpy()
    error = np.abs(cv2.remap(frames[4], x + flow[0], y + flow[1], cv2.INTER_CUBIC) - frames[3]).mean(-1)
    visible = made.visible[3].numpy()
    assert error[~visible].mean() > 5 * error[visible].mean()


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**40), index=st.integers(0, 299), t=st.floats(-3, 3, width=32))
def test_a_motion_is_inverted_to_a_hundredth_of_a_pixel(seed: int, index: int, t: float) -> None:
    scene = scenes(seed=seed).scene(index)
    x, y = screen(SIDE, SIDE)
    for motion in scene.motions:
        x_again, y_again = motion.project(*motion.locate(x, y, np.float32(t)), np.float32(t))
        assert np.abs(x_again - x).max() < 0.01
        assert np.abs(y_again - y).max() < 0.01


# What a network can learn


@pytest.mark.parametrize(
    ("kind", "stilled"),
    [("velocity", np.zeros(2, np.float32)), ("spin", 0.0), ("zoom", 0.0), ("beat", np.zeros(2, np.float32))],
)
def test_every_layer_translates_turns_zooms_and_sways(kind: str, stilled: object) -> None:
    scene = scenes(128, 128).scene(4)
    x, y = screen(128, 128)
    start, end = np.float32(0), np.float32(1)
    for motion in scene.motions:
        u, v = motion.locate(x, y, start)
        change = np.hypot(
            *np.subtract(motion.project(u, v, end), replace(motion, **{kind: stilled}).project(u, v, end))
        )
        assert change.mean() > 0.03, "HR pixels per frame"


@pytest.mark.parametrize("index", range(9))
def test_motion_is_nearly_uniform_so_that_the_frame_between_two_is_predictable(index: int) -> None:
    source = scenes(128, 128)
    scene = source.scene(index)
    x, y = screen(128, 128)
    for t in times(7)[1:-1]:
        for motion in scene.motions:
            surface = motion.locate(x, y, t)
            before, after = (np.array(motion.project(*surface, t + step)) for step in np.float32([-1, 1]))
            missed = np.hypot(*((before + after) / 2 - np.array(np.broadcast_arrays(x, y)))).mean()
            assert missed < 0.1 * np.hypot(*(after - before)).mean()


@pytest.mark.parametrize("index", range(3))
def test_the_background_reaches_beyond_the_screen_at_all_times(index: int) -> None:
    source = scenes(64, 96)
    scene = source.scene(index)
    rows, columns = scene.paint(np.random.default_rng(0), 64, 96, 7)[0].shape[:2]
    for t in times(7):
        u, v = scene.motions[0].locate(*screen(64, 96), t)
        assert DENSITY * np.abs(u).max() < columns / 2 - 2
        assert DENSITY * np.abs(v).max() < rows / 2 - 2


def test_paint_is_rounded_to_the_nearest_grey_level() -> None:
    """With truncation, all frames would be half a grey level too dark."""
    scene = scenes(32, 36).scene(0)
    plain = [np.full((*np.shape(opacity), 3), 100.6, np.float32) for opacity in scene.opacities]
    plain[0] = np.full((1000, 1000, 3), 100.6, np.float32)
    assert (scene.render(plain, 32, 36, np.float32(0)) == 101).all()


@pytest.mark.parametrize("index", range(9))
def test_no_edge_of_an_object_is_left_out_of_what_is_painted(index: int) -> None:
    scene = scenes().scene(index)
    x, y = screen(SIDE, SIDE)
    for t in times(7):
        for motion, opacity in zip(scene.motions[1:], scene.opacities[1:], strict=True):
            left, right, top, bottom = motion.bounds(opacity.shape[0] / (2 * DENSITY), t)
            seen = sample(opacity, *motion.locate(x, y, t), cv2.INTER_LINEAR) > 0
            seen[max(0, top) : max(0, bottom), max(0, left) : max(0, right)] = False
            assert not seen.any()


def test_objects_hide_one_another_and_the_background() -> None:
    for index in range(6):
        scene = scenes().scene(index)
        shares = scene.shares(*screen(SIDE, SIDE), np.float32(0))
        assert 3 <= len(shares) <= 5
        np.testing.assert_allclose(shares.sum(0), 1, atol=1e-5)
        assert 0.1 < shares[0].mean() < 0.98


def test_a_quarter_of_the_size_loses_detail_but_not_the_picture() -> None:
    source = scenes(128, 128)
    levels = []
    for index in range(12):
        luma = read(source, index).frames[::3].double().mean(1, keepdim=True)
        small = F.interpolate(luma, scale_factor=0.25, mode="bicubic", antialias=True)
        again = F.interpolate(small.round(), scale_factor=4, mode="bicubic")
        levels.append(float(10 * torch.log10(255**2 / (again - luma).square().mean())))
    assert 25 < np.mean(levels) < 31, f"bicubic x4 PSNR in dB: {np.round(levels, 1)}"
    assert min(levels) > 20
    assert max(levels) < 40


def high_band(frames: np.ndarray) -> float:
    """Mean power in the upper fifth of the frequency band, relative to that in its middle."""
    luma = frames.mean(1) - frames.mean((1, 2, 3))[:, None, None]
    window = np.hanning(luma.shape[1])[:, None] * np.hanning(luma.shape[2])
    power = np.abs(np.fft.fft2(luma * window)) ** 2
    frequency = np.hypot(np.fft.fftfreq(luma.shape[1])[:, None], np.fft.fftfreq(luma.shape[2]))
    upper, middle = (frequency > 0.4) & (frequency <= 0.5), (frequency > 0.1) & (frequency <= 0.25)
    return float(power[:, upper].mean() / power[:, middle].mean())


def test_frames_are_band_limited_where_plain_decimation_is_not() -> None:
    source = scenes(128, 128)
    for index in range(6):
        frames = read(source, index).frames.double().numpy()
        assert high_band(frames) < 0.03
        assert high_band(frames[..., ::4, ::4]) > 3 * high_band(frames)


# Refusals


@pytest.mark.parametrize(
    ("argument", "value", "expected"),
    [
        ("clips", 0, "a whole number, 1 or more"),
        ("clips", 1.5, "a whole number, 1 or more"),
        ("clips", "many", "a whole number, 1 or more"),
        ("height", 28, "a whole number, 32 or more"),
        ("height", 64.0, "a whole number, 32 or more"),
        ("height", 66, "a multiple of 4: use 64"),
        ("width", 16, "a whole number, 32 or more"),
        ("width", 33, "a multiple of 4: use 32"),
        ("seed", -1, "a whole number, 0 or more"),
        ("seed", None, "a whole number, 0 or more"),
    ],
)
def test_a_bad_argument_is_refused_in_one_line(argument: str, value: object, expected: str) -> None:
    with pytest.raises(InvalidInput, match=f"^{argument}={value}; expected {expected}$"):
        SyntheticScenes(**({"clips": 3, "height": 32, "width": 32, "seed": 0} | {argument: value}))  # type: ignore[arg-type]


@pytest.mark.parametrize("index", [-1, 3])
def test_an_index_without_a_clip_is_refused(index: int) -> None:
    with pytest.raises(IndexError, match="expected 0 to 2"):
        read(scenes(32, 32, clips=3), index)
