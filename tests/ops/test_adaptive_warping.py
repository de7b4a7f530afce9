"""Adaptive warping against its definition, pixel by pixel; against bilinear sampling; its gradient."""

import pytest
import torch
from torch import Tensor

from stvsr.ops.adaptive_warping import adaptive_warping, taps_of
from stvsr.ops.sampling import pixel_positions, sample_at

SHAPES = [(2, 3, 6, 9), (1, 4, 7, 5), (1, 1, 1, 6), (1, 2, 1, 1)]


def arguments(shape: tuple[int, ...], reach: float) -> list[Tensor]:
    """Features, flow and kernel."""
    b, c, h, w = shape
    generator = torch.Generator().manual_seed(0)
    features, flow, kernel = (
        torch.randn(b, count, h, w, generator=generator, dtype=torch.float64) for count in (c, 2, 16)
    )
    return [features, reach * flow, kernel]


def warp(features: Tensor, flow: Tensor, kernel: Tensor) -> Tensor:
    return adaptive_warping(features, taps_of(flow, kernel))


def by_definition(features: Tensor, flow: Tensor, kernel: Tensor) -> Tensor:
    b, _, h, w = features.shape
    output = features.clone()
    for n in range(b):
        for y in range(h):
            for x in range(w):
                of_x, of_y = flow[n, 0, y, x].item(), flow[n, 1, y, x].item()
                to_x, to_y = x + of_x, y + of_y
                if not (0 <= to_x <= w - 1 and 0 <= to_y <= h - 1 and abs(of_x) < w / 2 and abs(of_y) < h / 2):
                    continue
                left, top = int(to_x), int(to_y)
                right_share, bottom_share = to_x - left, to_y - top
                total = torch.zeros_like(output[n, :, y, x])
                for j in range(4):
                    for i in range(4):
                        share = (right_share if i >= 2 else 1 - right_share) * (
                            bottom_share if j >= 2 else 1 - bottom_share
                        )
                        row, column = min(max(top - 1 + j, 0), h - 1), min(max(left - 1 + i, 0), w - 1)
                        total += share * kernel[n, 4 * j + i, y, x] * features[n, :, row, column]
                output[n, :, y, x] = total
    return output


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("reach", [0.0, 0.4, 2.0, 20.0], ids=lambda reach: f"flow{reach}")
def test_warping_is_the_sum_over_a_kernel_in_bilinear_quarters(shape: tuple[int, ...], reach: float) -> None:
    """Border pixels are repeated; a pixel whose flow leads outside keeps its value, and nothing wraps around."""
    inputs = arguments(shape, reach)
    torch.testing.assert_close(warp(*inputs), by_definition(*inputs))


def test_features_in_any_memory_layout_give_the_same() -> None:
    features, flow, kernel = arguments((2, 3, 6, 9), 1.0)
    last = features.contiguous(memory_format=torch.channels_last)
    assert torch.equal(warp(last, flow, kernel), warp(features, flow, kernel))


def test_four_ones_in_the_middle_sample_bilinearly() -> None:
    features, flow, kernel = arguments((2, 3, 12, 16), 0.5)
    kernel.zero_()
    kernel[:, [5, 6, 9, 10]] = 1
    positions = pixel_positions(12, 16, like=flow) + flow
    inside = (positions[:, :1] >= 0) & (positions[:, :1] <= 15) & (positions[:, 1:] >= 0) & (positions[:, 1:] <= 11)
    torch.testing.assert_close(
        warp(features, flow, kernel), torch.where(inside, sample_at(features, positions), features)
    )


def test_a_flow_over_half_the_frame_is_not_followed() -> None:
    features, flow, kernel = arguments((1, 2, 4, 8), 0.0)
    flow[:, 0, :, 0] = 4.0
    assert torch.equal(warp(features, flow, kernel)[..., 0], features[..., 0])
    flow[:, 0, :, 0] = 3.9
    assert not torch.equal(warp(features, flow, kernel)[..., 0], features[..., 0])


@pytest.mark.parametrize("reach", [0.4, 3.0])
def test_gradient_is_that_of_the_values(reach: float) -> None:
    inputs = [tensor.requires_grad_() for tensor in arguments((2, 1, 3, 4), reach)]
    assert torch.autograd.gradcheck(warp, inputs)


def test_training_keeps_less_than_the_taps_read() -> None:
    kept: dict[int, int] = {}
    inputs = [tensor.requires_grad_() for tensor in arguments((1, 64, 16, 16), 1.0)]
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.update({t.data_ptr(): t.numel()}) or t, lambda t: t):
        warp(*inputs)
    assert sum(kept.values()) < 5 * inputs[0].numel()


def test_features_that_autocast_rounded_are_warped() -> None:
    taps = taps_of(torch.zeros(1, 2, 4, 4), torch.ones(1, 16, 4, 4))
    assert adaptive_warping(torch.rand(1, 3, 4, 4).bfloat16(), taps).dtype == torch.float32
