"""Optical flow: its direction and unit, pairs, small frames, and what a network needs of it."""

import subprocess
import sys

import cv2
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from conftest import moving_frames
from stvsr.data.optical_flow import optical_flow

SIZE = (64, 96)


@pytest.mark.parametrize("finest_scale", [0, 1])
@pytest.mark.parametrize("axis", ["x", "y"])
def test_flow_says_in_pixels_where_what_is_here_is_there(axis: str, finest_scale: int) -> None:
    """The picture moves by 3 pixels, to the right or down."""
    frames = moving_frames(2, SIZE, speed=3)
    if axis == "y":
        frames = frames.transpose(-1, -2)
    there, back = optical_flow(frames, [(0, 1), (1, 0)], finest_scale=finest_scale)
    moved = torch.tensor([3.0, 0.0] if axis == "x" else [0.0, 3.0])
    torch.testing.assert_close(there.mean((1, 2)), moved, rtol=0, atol=0.15)
    torch.testing.assert_close(back.mean((1, 2)), -moved, rtol=0, atol=0.15)


def test_the_finest_scale_is_nearer_to_the_truth() -> None:
    """The picture moves by 20 pixels at four times the size: by 5 pixels here."""
    large = moving_frames(5, (4 * SIZE[0], 4 * SIZE[1]), speed=5)
    planes = large[[0, 4]].float()
    frames = torch.nn.functional.interpolate(planes, size=SIZE, mode="area").round().byte()
    errors = []
    for finest_scale in (0, 1):
        flow = optical_flow(frames, [(0, 1)], finest_scale=finest_scale)[0]
        errors.append((flow - torch.tensor([5.0, 0.0]).view(2, 1, 1)).norm(dim=0).median().item())
    assert errors[0] < errors[1] < 0.3


def test_a_pair_does_not_depend_on_others_and_a_frame_does_not_move_to_itself() -> None:
    frames = moving_frames(4, SIZE, speed=2)
    pairs = [(1, 0), (1, 1), (1, 2), (1, 3)]
    flow = optical_flow(frames, pairs, finest_scale=0)
    assert flow.shape == (4, 2, *SIZE)
    assert not flow[1].any()
    alone = [optical_flow(frames, [pair], finest_scale=0)[0] for pair in pairs]
    assert torch.equal(flow, torch.stack(alone))


@pytest.mark.parametrize("size", [(1, 1), (8, 8), (7, 13), (12, 40), (40, 12), (15, 15), (16, 16), (31, 33)])
@pytest.mark.parametrize("finest_scale", [0, 1])
def test_small_frames_do_not_crash(size: tuple[int, int], finest_scale: int) -> None:
    """OpenCV's DIS crashes the process on frames with sides of fewer than 16 pixels."""
    frames = torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8)
    flow = optical_flow(frames, [(0, 1)], finest_scale=finest_scale)
    assert flow.shape == (1, 2, *size)
    assert flow.isfinite().all()


def test_the_number_of_threads_changes_nothing() -> None:
    frames, before = moving_frames(2, SIZE, speed=2.5), cv2.getNumThreads()
    flows = []
    try:
        for threads in (1, 2, 5):
            cv2.setNumThreads(threads)
            flows.append(optical_flow(frames, [(0, 1)], finest_scale=0))
    finally:
        cv2.setNumThreads(before)
    assert torch.equal(flows[0], flows[1])
    assert torch.equal(flows[0], flows[2])


def test_tensors_without_content_have_flow_without_content() -> None:
    with FakeTensorMode():
        flow = optical_flow(torch.empty(3, 3, 20, 30, dtype=torch.uint8), [(0, 1), (2, 1)], finest_scale=0)
    assert flow.shape == (2, 2, 20, 30)
    assert flow.dtype == torch.float32


@pytest.mark.parametrize("module", ["optical_flow", "scene_cuts", "synthetic"])
def test_opencv_keeps_to_one_thread_whatever_uses_it(module: str) -> None:
    """OpenCV's threads do not survive the fork of loader processes, and would compete with them."""
    code = f"import cv2; cv2.setNumThreads(4); import stvsr.data.{module}; print(cv2.getNumThreads())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"
