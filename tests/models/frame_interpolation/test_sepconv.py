"""SepConv: the authors' network's numbers, frames of any size, and that it learns."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from conftest import check_golden, psnr
from stvsr.errors import InvalidInput
from stvsr.models.frame_interpolation.sepconv import SepConv
from stvsr.models.weight_files import find_tensors, load_weights

PUBLISHED = SepConv.weight_files[0]


def small(seed: int = 0) -> SepConv:
    torch.manual_seed(seed)
    return SepConv(channels=(8, 8, 8, 8, 8), taps=11, multiple_of=32)


def noise(h: int, w: int) -> tuple[Tensor, Tensor]:
    frames = torch.from_numpy(np.random.RandomState(2020).random_sample((1, 2, 3, h, w))).float()
    return frames[:, 0], frames[:, 1]


def test_published_weights_compute_what_the_authors_network_computes(golden_state: Callable[..., Any]) -> None:
    """Tolerance 1e-4 of the output's std: float32 and float64 differ by less than 1e-5 of it (golden/README.md)."""
    tensors = find_tensors(golden_state("sepconv", gains=[(".7.weight", 0.1)], default=1.4))
    assert PUBLISHED.fits(tensors)
    network = SepConv()
    load_weights(network, tensors, PUBLISHED, origin="file")
    with torch.no_grad():
        bare = network.synthesise(*noise(64, 96))
        # The golden output has the channels as given; the whole network reverses their order.
        padded = network(*(frames.flip(1) for frames in noise(70, 90))).flip(1)
    check_golden(bare, "sepconv", tolerance=1e-4)
    check_golden(padded, "sepconv", tolerance=1e-4, kind="padded_")


@pytest.mark.parametrize(("h", "w"), [(32, 64), (8, 8), (33, 45), (64, 9)])
def test_frames_of_any_size_keep_it_alone_and_in_batches(h: int, w: int) -> None:
    network, (before, after) = small(), torch.rand(2, 3, 3, h, w)
    together = network(before, after)
    assert together.shape == (3, 3, h, w)
    with torch.no_grad():
        one_by_one = torch.cat([network(b[None], a[None]) for b, a in zip(before, after, strict=True)])
    torch.testing.assert_close(one_by_one, together, rtol=1e-4, atol=1e-5)


def test_padding_repeats_the_right_and_bottom_edge() -> None:
    network, cut = small(), torch.rand(2, 1, 3, 30, 27)
    whole = torch.cat([cut, cut[..., -1:].expand(-1, -1, -1, -1, 5)], dim=-1)
    whole = torch.cat([whole, whole[..., -1:, :].expand(-1, -1, -1, 2, -1)], dim=-2)
    with torch.no_grad():
        torch.testing.assert_close(network(*cut), network(*whole)[..., :30, :27])


def test_a_padding_that_five_levels_do_not_divide_is_refused() -> None:
    for multiple in (48, 0, -32):
        with pytest.raises(InvalidInput, match=f"multiple_of={multiple}; expected a multiple of 32"):
            SepConv(multiple_of=multiple)


@pytest.mark.parametrize("taps", [-1, 0, 4])
def test_filters_without_a_middle_are_refused(taps: int) -> None:
    with pytest.raises(InvalidInput, match=f"taps={taps}; expected an odd number"):
        SepConv(taps=taps)


def test_every_parameter_takes_part() -> None:
    network = small()
    network(*torch.rand(2, 1, 3, 64, 64)).square().sum().backward()
    idle = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert idle == []


@pytest.mark.slow
def test_a_small_one_learns_motion(generated_clip: Tensor, overfitted: Callable[..., float]) -> None:
    """It reaches 4 to 7 dB more than the mean of the two frames; untrained it is far worse."""
    before, target, after = generated_clip[2:5, None, :, 48:80, 48:80]
    network: nn.Module = small()
    reached = overfitted(network, [before, after], target, steps=100, rate=1e-2)
    blend = psnr((before + after) / 2, target)
    assert reached > blend + 3, f"{reached:.1f} dB against {blend:.1f} dB"
