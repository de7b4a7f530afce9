"""Recomputation keeps only inputs and does not change values or gradients."""

import pytest
import torch
from torch import Tensor

from stvsr.ops.recomputation import recomputed


def several_steps(first: Tensor, second: Tensor) -> Tensor:
    return (first.sin() * second.exp()).tanh()


def test_only_inputs_are_kept_and_gradients_are_the_same() -> None:
    inputs = [torch.randn(4, 5, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    expected = torch.autograd.grad(several_steps(*inputs).sum(), inputs)
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        output = recomputed(several_steps, *inputs)
    assert {tensor.data_ptr() for tensor in kept} <= {tensor.data_ptr() for tensor in inputs}
    for found, other in zip(torch.autograd.grad(output.sum(), inputs), expected, strict=True):
        assert torch.equal(found, other)


def test_the_state_of_random_numbers_is_not_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU's state would be copied to the CPU, which waits for it."""
    asked: list[bool] = []
    monkeypatch.setattr(torch, "get_rng_state", lambda: asked.append(True))
    recomputed(several_steps, *(torch.ones(2, requires_grad=True) for _ in range(2))).sum().backward()
    assert not asked


def test_what_draws_random_numbers_draws_the_same_again() -> None:
    """Otherwise a custom dropout would have the gradients of another draw."""
    given = torch.ones(100, requires_grad=True)
    output = recomputed(torch.nn.functional.dropout, given, may_draw=True)
    torch.rand(7)
    (gradient,) = torch.autograd.grad(output.sum(), given)
    assert torch.equal(gradient, output)
    assert 0 < output.count_nonzero() < 100


def test_without_gradients_the_function_is_just_called() -> None:
    with torch.no_grad():
        assert recomputed(lambda: "a value of any kind") == "a value of any kind"
