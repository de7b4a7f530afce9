"""Processing in chunks changes no result."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from stvsr.models import chunking
from stvsr.models.alignment import AlignedFusion, Alignment, FeaturePyramid, NaiveAlignment, Pyramid
from stvsr.models.chunking import frames_per_chunk, needs_chunks, rows_per_chunk, unchunked
from stvsr.models.interpolation import FusedInterpolation
from stvsr.models.propagation import AlignedConvLSTM, Bidirectional, ConvLSTMCell
from stvsr.models.reconstruction import REACH, Reconstruction

LR = (2, 4, 3, 72, 8)
"""Higher than two strips of 16 times `REACH` rows."""


@pytest.fixture
def largest(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """The most maps, or rows of maps, that each part has processed at once."""
    seen: dict[str, int] = {}

    def watch(cls: type[nn.Module], name: str, what: str, size: Callable[..., int]) -> None:
        original = getattr(cls, name)

        def watched(self: nn.Module, *arguments: Tensor) -> object:
            seen[what] = max(seen.get(what, 0), size(*arguments))
            return original(self, *arguments)

        monkeypatch.setattr(cls, name, watched)

    watch(FeaturePyramid, "forward", "maps aligned", len)
    watch(ConvLSTMCell, "forward", "rows of gates", lambda gates, *states: gates.shape[-2])
    watch(Reconstruction, "_enlarge", "rows enlarged", lambda features: features.shape[-2])
    return seen


@pytest.mark.parametrize("variant", "abcde")
def test_large_frames_go_in_turns_and_give_what_they_give_together(
    small_network: Callable[..., nn.Module],
    monkeypatch: pytest.MonkeyPatch,
    largest: dict[str, int],
    variant: str,
) -> None:
    """Chunks are pairs, steps of the recurrence and, in a batch of two clips, single frames and strips of rows."""
    network, lr = small_network(variant), torch.rand(LR)
    with torch.no_grad():
        together = network(lr)
        assert largest["maps aligned"] == (14 if variant in "de" else 8)
        assert largest["rows enlarged"] == LR[-2]
        assert largest.get("rows of gates") == (LR[-2] if variant in "cde" else None)
        largest.clear()
        monkeypatch.setattr(chunking, "LARGEST_WHOLE", 1)
        turned = network(lr)
    assert largest["maps aligned"] == 2
    assert largest["rows enlarged"] <= 16 * REACH + 2 * REACH
    assert largest.get("rows of gates", 0) <= 16 + 2
    torch.testing.assert_close(turned, together, rtol=1e-5, atol=1e-6)


class Shift(Alignment):
    """A contributor's alignment: it defines `forward` alone, and uses the target itself."""

    def forward(self, source: Pyramid, share_of_source: tuple[Tensor, ...], target: tuple[Tensor, ...]) -> Tensor:
        """The source, moved to the right where the target is bright."""
        assert share_of_source == ()
        return source.level1.roll(1, -1) * target[0].sigmoid()


@pytest.mark.parametrize("align", [Shift, partial(NaiveAlignment, channels=8)], ids=["Shift", "NaiveAlignment"])
def test_an_alignment_of_ones_own_needs_forward_alone(
    small_network: Callable[..., nn.Module], monkeypatch: pytest.MonkeyPatch, align: Callable[[], Alignment]
) -> None:
    """In the interpolation and in the recurrence, on small frames and on large ones, with gradients and without."""
    network, lr = small_network("e"), torch.rand(LR)

    def fusion() -> AlignedFusion:
        return AlignedFusion(channels=8, align_first=align(), align_second=align())

    network.interpolation = FusedInterpolation(fusion())
    recurrence = AlignedConvLSTM(channels=8, align_hidden=fusion(), align_cell=fusion())
    network.propagation = Bidirectional(channels=8, recurrence=recurrence)
    together = network(lr)
    monkeypatch.setattr(chunking, "LARGEST_WHOLE", 1)
    with torch.no_grad():
        torch.testing.assert_close(network(lr), together.detach(), rtol=1e-5, atol=1e-6)
    together.sum().backward()
    assert network.features.head.weight.grad.any()


@pytest.mark.parametrize("variant", "de")
def test_turns_have_the_types_of_numbers_that_all_at_once_has_under_autocast(
    small_network: Callable[..., nn.Module], monkeypatch: pytest.MonkeyPatch, variant: str
) -> None:
    """If one of the two ran in float32, they would differ by more than one rounding to bfloat16's 8 bits."""
    network, lr = small_network(variant), torch.rand(LR)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        together = network(lr)
        monkeypatch.setattr(chunking, "LARGEST_WHOLE", 1)
        turned = network(lr)
    assert turned.dtype == together.dtype
    assert (turned - together).abs().max() < 2**-8 * together.std()


def test_strips_of_rows_look_as_far_as_the_layers_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """With one row less, the rows at their borders would differ."""
    torch.manual_seed(0)
    stage, features = Reconstruction(channels=8, residual_blocks_count=0), torch.rand(1, 8, 70, 6)
    with torch.no_grad():
        together = stage(features)
        monkeypatch.setattr(chunking, "LARGEST_WHOLE", 1)
        torch.testing.assert_close(stage(features), together, rtol=1e-5, atol=1e-6)
        monkeypatch.setattr("stvsr.models.reconstruction.REACH", REACH - 1)
        assert (stage(features) - together).abs().max() > 1e-4


def test_nothing_is_taken_in_turns_where_gradients_are_wanted_or_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunking, "LARGEST_WHOLE", 1)
    frames = torch.rand(5, 1, 2, 2)
    assert not needs_chunks(frames)
    assert frames_per_chunk(frames) == 5
    with torch.no_grad():
        assert needs_chunks(frames)
        assert frames_per_chunk(frames) == 1
        with unchunked():
            assert not needs_chunks(frames)
            assert frames_per_chunk(frames) == 5
        assert needs_chunks(frames)


@given(st.integers(1, 9), st.integers(1, 5000), st.integers(1, 5000), st.integers(1, 4))
def test_at_least_one_frame_and_rows_enough_for_their_reach_are_taken(
    count: int, height: int, width: int, reach: int
) -> None:
    features = torch.empty(1, device="meta").expand(count, 1, height, width)
    with torch.no_grad():
        together = frames_per_chunk(features)
    assert 1 <= together <= count
    assert together == 1 or together * height * width <= chunking.LARGEST_WHOLE
    rows = rows_per_chunk(features, reach=reach)
    assert 2 * reach <= rows / 8
    assert rows * width <= max(chunking.LARGEST_WHOLE, 16 * reach * width)


def test_the_frames_of_vid4_are_taken_whole() -> None:
    """In chunks, frames this small would leave a GPU waiting for kernel launches."""
    assert chunking.LARGEST_WHOLE >= 180 * 144


def test_an_error_does_not_end_the_turns_of_what_comes_later() -> None:
    before = chunking.LARGEST_WHOLE
    with pytest.raises(ZeroDivisionError), unchunked():
        1 / 0  # noqa: B018
    after, chunking.LARGEST_WHOLE = chunking.LARGEST_WHOLE, before
    assert after == before
