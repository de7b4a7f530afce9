"""Tests of `stvsr.models.blocks`."""

import pytest
import torch

from stvsr.models.blocks import residual_blocks


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


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_without_autocast_a_trunk_keeps_the_precision_of_its_input(dtype: torch.dtype) -> None:
    trunk = residual_blocks(2, channels=4).to(dtype)
    assert trunk(torch.rand(1, 4, 5, 6, dtype=dtype)).dtype == dtype
