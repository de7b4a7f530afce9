"""Separable convolution in tiles: the plain sum's values and gradients, without its memory."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from stvsr.errors import InvalidInput
from stvsr.ops import separable_convolution as module
from stvsr.ops.separable_convolution import separable_convolution


def filter_slowly(frames: Tensor, vertical: Tensor, horizontal: Tensor) -> Tensor:
    """The plain sum of the definition."""
    taps, (h, w) = vertical.shape[1], frames.shape[-2:]
    padded = F.pad(frames, [taps // 2] * 4, mode="replicate")
    return sum(  # type: ignore[return-value]
        padded[..., r : r + h, s : s + w] * vertical[:, r : r + 1] * horizontal[:, s : s + 1]
        for r in range(taps)
        for s in range(taps)
    )


def arguments(b: int, c: int, h: int, w: int, taps: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(b, c, h, w), (b, taps, h, w), (b, taps, h, w)]
    return [torch.randn(shape, generator=generator, dtype=dtype).requires_grad_() for shape in shapes]


@pytest.mark.parametrize("tile", [(16, 64), (3, 5)], ids=str)
@pytest.mark.parametrize("shape", [(2, 3, 18, 20, 7), (1, 1, 5, 3, 11), (1, 2, 17, 66, 1), (1, 3, 1, 1, 3)], ids=str)
def test_tiles_of_any_size_agree_with_the_plain_sum_in_values_and_gradients(
    monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...], tile: tuple[int, int]
) -> None:
    monkeypatch.setattr(module, "TILE", tile)
    inputs = arguments(*shape)
    ours, expected = separable_convolution(*inputs), filter_slowly(*inputs)
    torch.testing.assert_close(ours, expected)
    weights = torch.randn_like(expected)
    gradients = [torch.autograd.grad((output * weights).sum(), inputs) for output in (ours, expected)]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)
    with torch.no_grad():
        assert torch.equal(separable_convolution(*inputs), ours)


def test_gradients_are_those_of_finite_differences(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TILE", (2, 3))
    assert torch.autograd.gradcheck(separable_convolution, arguments(1, 2, 3, 4, 3))


def test_filters_are_not_turned_and_the_border_is_repeated() -> None:
    frames = torch.arange(12.0).view(1, 1, 3, 4)
    below, right = torch.zeros(1, 3, 3, 4), torch.zeros(1, 3, 3, 4)
    below[:, 2], right[:, 2] = 1, 1
    expected = torch.tensor([[5.0, 6, 7, 7], [9, 10, 11, 11], [9, 10, 11, 11]])
    assert torch.equal(separable_convolution(frames, below, right)[0, 0], expected)


def test_float32_agrees_to_its_precision_also_under_autocast() -> None:
    inputs = [t.detach() for t in arguments(1, 3, 40, 70, 51, torch.float32)]
    expected = filter_slowly(*(t.double() for t in inputs))
    with torch.autocast("cpu", torch.bfloat16):
        ours = separable_convolution(*inputs)
    assert ours.dtype == torch.float32
    assert (ours - expected).abs().max() < 1e-5 * expected.std()


class LargestTensor(TorchDispatchMode):
    """Records the size of the largest tensor of any operation."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and not func.is_view:
            self.elements = max(self.elements, result.numel())
        return result


def test_memory_does_not_grow_with_the_windows() -> None:
    """All windows at once would be 3 * 51 times as large as the filters of one direction."""
    inputs = arguments(1, 3, 128, 192, 51, torch.float32)
    kept: dict[int, int] = {}
    with LargestTensor() as largest, torch.no_grad():
        separable_convolution(*inputs)
    assert largest.elements < 0.5 * inputs[1].numel()
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: kept.update({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes()}) or t, lambda t: t
    ):
        output = separable_convolution(*inputs)
    padded = 4 * 3 * (128 + 50) * (192 + 50)
    assert sum(kept.values()) <= sum(t.nbytes for t in inputs[1:]) + padded + 2 * output.nbytes


@pytest.mark.parametrize(
    ("vertical", "horizontal"),
    [((1, 4, 6, 5), (1, 4, 6, 5)), ((1, 3, 6, 5), (1, 5, 6, 5)), ((1, 3, 5, 6), (1, 3, 5, 6)), ((2, 3, 6, 5),) * 2],
    ids=["even", "different", "turned", "batch"],
)
def test_shapes_that_do_not_belong_together_are_refused(vertical: tuple[int, ...], horizontal: tuple[int, ...]) -> None:
    with pytest.raises(InvalidInput, match=r"expected \(1, k, 6, 5\)"):
        separable_convolution(torch.zeros(1, 3, 6, 5), torch.zeros(vertical), torch.zeros(horizontal))
