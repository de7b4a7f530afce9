"""Tests of `stvsr.models.blocks`."""

import pytest
import torch

from stvsr.models.blocks import ResidualBlock, conv3x3, conv_part, exact_conv, residual_blocks


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_small_residuals_of_a_long_trunk_are_not_rounded_away_under_autocast(dtype: torch.dtype) -> None:
    """Seen on a trained network: summed in bfloat16, its 40 blocks lost several grey levels.

    Each of these 40 blocks adds 1e-3 to features of 1, less than half of what bfloat16 can tell apart there (4e-3).
    """
    trunk = residual_blocks(40, channels=4)
    with torch.no_grad():
        for name, parameter in trunk.named_parameters():
            parameter.fill_(1e-3 if name.endswith("conv2.bias") else 0)
        with torch.autocast("cpu", dtype):
            output = trunk(torch.ones(1, 4, 5, 6, dtype=dtype))
    torch.testing.assert_close(output.float(), torch.full((1, 4, 5, 6), 1.04), atol=1e-4, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_without_autocast_a_trunk_keeps_the_precision_of_its_input(dtype: torch.dtype) -> None:
    trunk = residual_blocks(2, channels=4).to(dtype)
    assert trunk(torch.rand(1, 4, 5, 6, dtype=dtype)).dtype == dtype


def test_shares_of_joined_maps_add_up_to_the_convolution_of_all() -> None:
    """Maps may differ in width; in any order of the parts, the bias is added once."""
    conv = conv3x3(6, 4).double()
    first, second, third = (torch.randn(1, channels, 5, 7, dtype=torch.float64) for channels in (1, 3, 2))
    summed = conv_part(conv, third, 4) + conv_part(conv, first, 0) + conv_part(conv, second, 1)
    torch.testing.assert_close(summed, conv(torch.cat([first, second, third], dim=1)))


def test_an_exact_convolution_is_not_rounded_under_autocast() -> None:
    conv, features = conv3x3(3, 4), torch.rand(1, 3, 5, 6)
    expected = conv(features)
    with torch.autocast("cpu", torch.bfloat16):
        found = exact_conv(conv, features)
        from_reduced = exact_conv(conv, features.bfloat16())
    torch.testing.assert_close(found, expected)
    assert from_reduced.dtype == torch.float32


def test_a_residual_block_begins_without_biases_at_a_tenth_of_hes_weights() -> None:
    torch.manual_seed(0)
    for conv in (block := ResidualBlock(32)).conv1, block.conv2:
        assert not conv.bias.any()
        assert conv.weight.std().item() == pytest.approx(0.1 * (2 / (9 * 32)) ** 0.5, rel=0.03)
