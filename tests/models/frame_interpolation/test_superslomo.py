"""SuperSloMo: the published network's numbers, its sampling grid, frames of any size, and that it learns."""

import math
from collections.abc import Callable
from datetime import datetime
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from conftest import check_golden, psnr
from stvsr.models.frame_interpolation.superslomo import SuperSloMo, warp
from stvsr.models.weight_files import find_tensors, load_weights

PUBLISHED = SuperSloMo.weight_files[0]


@pytest.fixture
def small() -> SuperSloMo:
    torch.manual_seed(0)
    return SuperSloMo(channels=(8, 8, 16, 16, 16, 16))


def test_published_weights_compute_what_the_published_network_computes(golden_state: Callable[..., Any]) -> None:
    """Tolerance 2e-3 of the output's std: float32 and float64 differ by up to 5e-4 of it (golden/README.md)."""
    state = golden_state("superslomo", gains=[("conv3.weight", 5.0)], default=1.8)
    file: dict[str, Any] = {"epoch": 199, "timestamp": datetime(2018, 12, 1), "valLoss": [[1.0]]}
    for name, tensor in state.items():
        network_name, _, own = name.partition(".")
        file.setdefault(network_name, {})[own] = tensor
    tensors = find_tensors(file)
    assert PUBLISHED.fits(tensors)
    network = SuperSloMo()
    load_weights(network, tensors, PUBLISHED, origin="file")
    frames = torch.from_numpy(np.random.RandomState(2020).random_sample((1, 2, 3, 64, 96))).float()
    with torch.no_grad():
        output = network(frames[:, 0], frames[:, 1])
    check_golden(output, "superslomo", tolerance=2e-3)


@pytest.mark.parametrize(("h", "w"), [(32, 64), (8, 8), (33, 45), (64, 9)])
def test_frames_of_any_size_keep_it_alone_and_in_batches(small: SuperSloMo, h: int, w: int) -> None:
    before, after = torch.rand(2, 3, 3, h, w)
    together = small(before, after)
    assert together.shape == (3, 3, h, w)
    with torch.no_grad():
        one_by_one = torch.cat([small(b[None], a[None]) for b, a in zip(before, after, strict=True)])
    torch.testing.assert_close(one_by_one, together, rtol=1e-4, atol=1e-4)


def test_padding_is_that_of_the_whole_frame(small: SuperSloMo) -> None:
    """Reflection continues the cut frame exactly as the whole frame goes on."""
    half = torch.rand(2, 1, 3, 32, 17)
    whole = torch.cat([half, half[..., 1:16].flip(-1)], dim=-1)
    with torch.no_grad():
        torch.testing.assert_close(small(*half), small(*whole)[..., :17])


def warp_slowly(frames: Tensor, flow: Tensor) -> Tensor:
    """`warp` of one frame, pixel by pixel."""
    _, c, h, w = frames.shape
    output = frames.new_zeros(1, c, h, w)
    for row in range(h):
        for column in range(w):
            u, v = flow[0, :, row, column].tolist()
            x, y = (column + u) * (w - 1) / w, (row + v) * (h - 1) / h
            for j in (math.floor(y), math.floor(y) + 1):
                for k in (math.floor(x), math.floor(x) + 1):
                    if 0 <= j < h and 0 <= k < w:
                        output[..., row, column] += (1 - abs(y - j)) * (1 - abs(x - k)) * frames[..., j, k]
    return output


@pytest.mark.parametrize("reach", [0.0, 0.5, 20.0])
def test_warp_reads_on_the_published_networks_grid(reach: float) -> None:
    frames = torch.rand(1, 2, 6, 9, dtype=torch.float64)
    flow = reach * torch.randn(1, 2, 6, 9, dtype=torch.float64)
    torch.testing.assert_close(warp(frames, flow), warp_slowly(frames, flow))


def test_gradients_of_the_warp_are_those_of_finite_differences() -> None:
    frames = torch.rand(1, 2, 4, 5, dtype=torch.float64, requires_grad=True)
    flow = torch.rand(1, 2, 4, 5, dtype=torch.float64).mul(3).sub(1.5).requires_grad_()
    assert torch.autograd.gradcheck(warp, (frames, flow))


def test_every_parameter_takes_part(small: SuperSloMo) -> None:
    small(*torch.rand(2, 1, 3, 64, 64)).square().sum().backward()
    idle = [name for name, p in small.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert idle == []


def test_flows_are_exact_under_autocast(small: SuperSloMo) -> None:
    given = [small.prepare(frames) for frames in torch.rand(2, 1, 3, 32, 32)]
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        made = small.synthesise(*given)
    assert {part.dtype for part in made} == {torch.float32}


@pytest.mark.slow
def test_a_small_one_learns_motion(generated_clip: Tensor, overfitted: Callable[..., float]) -> None:
    """It starts from the mean of the two frames, and reaches 9 dB more."""
    before, target, after = generated_clip[2:5, None, :, 48:80, 48:80]
    torch.manual_seed(1)
    network: nn.Module = SuperSloMo(channels=(8, 8, 16, 16, 16, 16))
    reached = overfitted(network, [before, after], target, steps=60, rate=3e-3)
    blend = psnr((before + after) / 2, target)
    assert reached > blend + 5, f"{reached:.1f} dB against {blend:.1f} dB"
