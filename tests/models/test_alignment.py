"""Alignment without motion equals its definition, written from scratch; autocast rounds no offset."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stvsr.models.alignment import AlignedFusion, DeformableSampling, NaiveAlignment


def joined(*maps: Tensor) -> Tensor:
    return torch.cat(maps, dim=1)


def fused_from_scratch(fusion: AlignedFusion, *maps: Tensor) -> Tensor:
    """Ablation (a), of which no numbers are published: maps concatenated before convolutions, coarse to fine."""
    lrelu = partial(F.leaky_relu, negative_slope=0.1)
    up = partial(F.interpolate, scale_factor=2, mode="bilinear")
    pyramid, aligned = fusion.pyramid, []
    for align, level1 in zip((fusion.align_first, fusion.align_second), maps, strict=True):
        assert isinstance(align, NaiveAlignment)
        level2 = lrelu(pyramid.conv2(lrelu(pyramid.down2(level1))))
        level3 = lrelu(pyramid.conv3(lrelu(pyramid.down3(level2))))
        at3 = lrelu(align.conv3(level3))
        at2 = lrelu(align.merge2(joined(align.conv2(level2), up(at3))))
        aligned.append(align.merge1(joined(align.conv1(level1), up(at2))))
    return fusion.fuse(joined(*aligned))


def test_alignment_without_motion_is_a_convolution_of_each_level_coarse_to_fine() -> None:
    torch.manual_seed(0)
    first, second = (NaiveAlignment(channels=4) for _ in range(2))
    fusion = AlignedFusion(channels=4, align_first=first, align_second=second).double()
    maps = [torch.randn(2, 4, 8, 12, dtype=torch.float64) for _ in range(2)]
    partners = (fusion.as_first, fusion.as_second)
    with torch.no_grad():
        expected = fused_from_scratch(fusion, *maps)
        apart = fusion(*(as_partner(fusion.pyramid(level1)) for as_partner, level1 in zip(partners, maps, strict=True)))
        for found in (apart, fusion.of_maps(*maps)):
            torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_autocast_rounds_no_offset(dtype: torch.dtype) -> None:
    """Whatever the features' dtype: bfloat16 would round a large offset by a sixteenth of a pixel and more."""
    torch.manual_seed(0)
    sampling = DeformableSampling(channels=8, deformable_groups=2)
    nn.init.normal_(sampling.offset_mask.weight, std=2.0)
    features = torch.randn(1, 8, 5, 7).to(dtype)
    with torch.no_grad():
        expected = sampling.predict_offset(features.float())
        with torch.autocast("cpu", torch.bfloat16):
            found = sampling.predict_offset(features)
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)
