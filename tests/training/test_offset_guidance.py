"""Offsets guided by optical flow: the right frames, directions and levels, and no loss where flow is unknown."""

import pytest
import torch
from torch import Tensor

from conftest import moving_frames
from stvsr.training.offset_guidance import TOLERANCE, flow_from_missing, offset_fidelity


def constant(down: float, right: float, height: int = 16, width: int = 24) -> Tensor:
    return torch.tensor([down, right]).view(1, 2, 1, 1).expand(1, 2, height, width)


@pytest.mark.parametrize("turned", [False, True], ids=["to the right", "down"])
def test_flow_leads_from_missing_frames_to_the_given_ones_around_them(turned: bool) -> None:
    """At 8 HR pixels per frame, flow is -2 LR pixels to the frame before and +2 to the frame after."""
    hr = moving_frames(7, (96, 128), speed=8)[None] / 255
    still = moving_frames(7, (96, 128), speed=0)[None] / 255
    hr = torch.cat([hr, still])
    if turned:
        hr = hr.transpose(-1, -2)
    flow = torch.unflatten(flow_from_missing(hr), 1, (3, 2))[..., 6:-6, 6:-6]  # (2, 3, b, 2, h, w)
    along, across = (0, 1) if turned else (1, 0)
    for way, expected in zip(flow[:, :, 0], (-2.0, 2.0), strict=True):
        torch.testing.assert_close(way[:, along], torch.full_like(way[:, along], expected), atol=0.25, rtol=0)
        torch.testing.assert_close(way[:, across], torch.zeros_like(way[:, across]), atol=0.25, rtol=0)
    assert flow[:, :, 1].abs().max() < 0.01


@pytest.mark.parametrize("finer", [1, 2, 4])
def test_offsets_at_the_flow_cost_nothing_and_others_their_distance(finer: int) -> None:
    """Distances are in pixels of the finest level, summed over its positions whose flow stays within the frame."""
    flow = constant(0, 4)
    taps = torch.tensor([0.0, 4.0]).repeat(3).view(1, 6, 1, 1).expand(1, 6, 16 // finer, 24 // finer)
    known = 16 * (24 - 4)
    assert offset_fidelity(taps / finer, flow) == 0
    assert offset_fidelity((taps + TOLERANCE) / finer, flow) == 0
    assert offset_fidelity((taps - TOLERANCE - 2) / finer, flow).item() == pytest.approx(2 * 6 * known)


def test_down_is_not_taken_for_right() -> None:
    assert offset_fidelity(constant(3, 0), constant(3, 0)) == 0
    assert offset_fidelity(constant(0, 3), constant(3, 0)) > 0
