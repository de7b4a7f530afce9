"""Offsets held to optical flow: the right frames, direction and level, and nothing where nobody knows."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from conftest import moving_frames
from stvsr.models.alignment import naive_fusion
from stvsr.models.zooming_slow_mo import ZoomingSlowMo
from stvsr.training.offset_guidance import TOLERANCE, flow_from_missing, listening, offset_fidelity


def constant(down: float, right: float, height: int = 16, width: int = 24) -> Tensor:
    return torch.tensor([down, right]).view(1, 2, 1, 1).expand(1, 2, height, width)


@pytest.mark.parametrize("turned", [False, True], ids=["to the right", "down"])
def test_flow_leads_from_missing_frames_to_the_given_ones_around_them(turned: bool) -> None:
    """A picture that moves by 8 HR pixels a frame: 2 LR pixels back to the frame before, 2 on to the one after."""
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


@pytest.mark.parametrize("level", [1, 2, 4])
def test_offsets_at_the_flow_cost_nothing_and_others_their_distance(level: int) -> None:
    """On a coarser level a displacement is of fewer pixels; columns whose flow leads out of the frame do not count."""
    flow = constant(0, 4)
    taps = torch.tensor([0.0, 4.0 / level]).repeat(3).view(1, 6, 1, 1).expand(1, 6, 16 // level, 24 // level)
    assert offset_fidelity(taps, flow) == 0
    assert offset_fidelity(taps + TOLERANCE, flow) == 0
    known = (16 // level) * ((24 - 4) // level)
    assert offset_fidelity(taps - TOLERANCE - 2, flow).item() == pytest.approx(2 * 6 * known)


def test_down_is_not_taken_for_right() -> None:
    assert offset_fidelity(constant(3, 0), constant(3, 0)) == 0
    assert offset_fidelity(constant(0, 3), constant(3, 0)) > 0


def test_offsets_are_heard_of_both_maps_finest_level_first(small_network: Callable[..., ZoomingSlowMo]) -> None:
    fusion = small_network().interpolation.fusion
    features = torch.rand(2, 1, 8, 16, 16)
    pyramids = [fusion.pyramid(frame) for frame in features]
    with listening(fusion) as heard:
        fusion(fusion.as_first(pyramids[0]), fusion.as_second(pyramids[1]))
    assert [[offset.shape[-1] for offset in offsets] for offsets in heard] == [[16, 8, 4], [16, 8, 4]]
    with listening(fusion) as changed:
        fusion(fusion.as_first(pyramids[0]), fusion.as_second(pyramids[0]))
    assert all(not torch.equal(one, other) for one, other in zip(heard[0], changed[0], strict=True))
    assert all(not module._forward_hooks for module in fusion.modules())


def test_a_fusion_without_offsets_is_silent() -> None:
    with listening(naive_fusion(channels=8)) as heard:
        pass
    assert heard == [[], []]


def test_offsets_learn_where_to_sample(small_network: Callable[..., ZoomingSlowMo]) -> None:
    """Fidelity alone moves offsets from zero to the flow of one clip."""
    fusion = small_network().interpolation.fusion
    hr = moving_frames(3, (64, 64), speed=8)[None] / 255
    flow = flow_from_missing(hr)
    with torch.no_grad():
        pyramids = [fusion.pyramid(torch.rand(1, 8, 16, 16)) for _ in range(2)]
    optimizer = torch.optim.Adam(nn.ModuleList([fusion.align_first, fusion.align_second]).parameters(), lr=0.01)
    distances = []
    for _ in range(60):
        with listening(fusion) as heard:
            fusion(fusion.as_first(pyramids[0]), fusion.as_second(pyramids[1]))
        distance = sum(offset_fidelity(o, f) for offsets, f in zip(heard, flow, strict=True) for o in offsets)
        optimizer.zero_grad()
        distance.backward()
        optimizer.step()
        distances.append(distance.item())
    assert distances[-1] < 0.2 * distances[0]
