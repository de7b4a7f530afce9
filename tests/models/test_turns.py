"""What is taken in turns gives what it gives together."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from stvsr.models import turns
from stvsr.models.reconstruction import REACH, Reconstruction
from stvsr.models.turns import frames_together, in_turns, rows_together


@pytest.mark.parametrize("frames", [2, 4])
@pytest.mark.parametrize("variant", "abcde")
def test_large_frames_in_turns_are_those_made_together(
    small_network: Callable[..., nn.Module], monkeypatch: pytest.MonkeyPatch, variant: str, frames: int
) -> None:
    """Pairs, directions in time, frames and, as the frames are higher than 16 times their reach, strips of rows."""
    network, lr = small_network(variant), torch.rand(2, frames, 3, 72, 8)
    assert lr.shape[-2] > 2 * rows_together(torch.empty(1, 2**20), reach=REACH)
    with torch.no_grad():
        together = network(lr)
        monkeypatch.setattr(turns, "AT_ONCE", 1)
        assert in_turns(lr)
        torch.testing.assert_close(network(lr), together, rtol=1e-5, atol=1e-6)


def test_strips_of_rows_look_as_far_as_the_layers_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """With one row less, the rows at their borders would differ."""
    torch.manual_seed(0)
    stage, features = Reconstruction(channels=8, residual_blocks_count=0), torch.rand(1, 8, 70, 6)
    with torch.no_grad():
        together = stage(features)
        monkeypatch.setattr(turns, "AT_ONCE", 1)
        torch.testing.assert_close(stage(features), together, rtol=1e-5, atol=1e-6)
        monkeypatch.setattr("stvsr.models.reconstruction.REACH", REACH - 1)
        assert (stage(features) - together).abs().max() > 1e-4


def test_nothing_is_taken_in_turns_where_gradients_are_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "AT_ONCE", 1)
    assert not in_turns(torch.rand(1, 2, 2))
    with torch.no_grad():
        assert in_turns(torch.rand(1, 2, 2))


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(1, 4))
def test_at_least_one_frame_and_rows_enough_for_their_reach_are_taken(height: int, width: int, reach: int) -> None:
    features = torch.empty(1, device="meta").expand(height, width)
    assert frames_together(features) >= 1
    rows = rows_together(features, reach=reach)
    assert 2 * reach <= rows / 8
    assert rows * width <= max(turns.AT_ONCE, 16 * reach * width)
