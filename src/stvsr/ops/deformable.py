"""Modulated deformable convolution (Zhu et al., "Deformable ConvNets v2", CVPR 2019), the paper's DConv.

One function, `deform_conv2d`, is what the rest of the package calls. Three equivalent back ends stand behind it:

- `torchvision`: the compiled operator, the reference. On a CPU it uses one core.
- `blocked` (`deformable_cpu.py`): all cores of a CPU, in pieces that stay in its cache.
- `triton` (`deformable_triton.py`): fused kernels for a GPU, without a copy of the input for each tap.

`auto` takes `triton` on a GPU where it runs and agrees with `torchvision`, and `blocked` on a CPU; the config key
`deformable` chooses another. Offsets are `(y, x)` pairs per kernel tap in pixels, group-major, as torchvision lays them
out; samples outside the features are zero. `benchmarks/deformable.py` compares them.
"""

import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import is_fake

from stvsr.devices import check_answering
from stvsr.errors import InvalidInput
from stvsr.ops import deformable_triton
from stvsr.ops.deformable_cpu import KERNEL, TAPS, blocked_deform_conv2d, check_shapes
from stvsr.ops.deformable_triton import constant_when_compiled, triton_deform_conv2d

Operator = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]


class Sizes(NamedTuple):
    """The sizes that a GPU kernel is compiled for."""

    channels: int
    groups: int
    outputs: int


def torchvision_deform_conv2d(features: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The compiled operator; see `deform_conv2d`.

    Raises:
        RuntimeError: a CUDA graph is being recorded, which misses what this launches on the default stream.
    """
    # Imported here, as that takes seconds and most processes never use it.
    from torchvision.ops import deform_conv2d as operator

    has_values = not torch.compiler.is_compiling() and not is_fake(offset)
    if has_values and offset.is_cuda and torch.cuda.is_current_stream_capturing():
        raise RuntimeError("torchvision's deformable convolution cannot be recorded")
    if has_values and offset.device.type == "cpu" and offset.isnan().any():
        # For NaN it would read anywhere in a CPU's memory and crash the process.
        is_nan = torch.unflatten(offset, 1, (-1, 2)).isnan().any(dim=2)
        offset, mask = offset.nan_to_num(), mask.masked_fill(is_nan, torch.nan)
    output: Tensor = operator(features, offset, weight, bias, padding=KERNEL // 2, mask=mask)
    return output


AUTO = "auto"

BACKENDS: dict[str, Operator] = {
    "torchvision": torchvision_deform_conv2d,
    "blocked": blocked_deform_conv2d,
    "triton": triton_deform_conv2d,
}

_chosen = AUTO


def use_backend(name: str) -> str:
    """Chooses the back end that `deform_conv2d` runs from now on, in this process.

    Args:
        name: one of `BACKENDS`, or `auto`.

    Returns:
        What was chosen before.

    Raises:
        InvalidInput: an unknown name, or a back end that cannot run here.
    """
    global _chosen
    if name != AUTO and name not in BACKENDS:
        raise InvalidInput(f"deformable={name}; expected {', '.join([AUTO, *BACKENDS])}")
    if name == "triton" and not deformable_triton.available():
        raise InvalidInput(
            "deformable=triton: needs Triton and a GPU of compute capability 8.0 or newer; use deformable=auto"
        )
    before, _chosen = _chosen, name
    return before


def backend_on(device: torch.device | str, dtype: torch.dtype, sizes: Sizes) -> str:
    """The name in `BACKENDS` of what `deform_conv2d` runs.

    Args:
        device: where the features are.
        dtype: of the computation (`computed_in`).
        sizes: of the convolution.

    Raises:
        InvalidInput: the chosen back end does not run there.
    """
    device = torch.device(device)
    if _chosen == "triton" and device.type != "cuda":
        raise InvalidInput("deformable=triton on a CPU: use deformable=auto, or a GPU")
    if _chosen != AUTO:
        return _chosen
    if device.type != "cuda":
        # To a compiler or an export, blocks would be hundreds of small operations.
        return "torchvision" if torch.compiler.is_compiling() else "blocked"
    if dtype in deformable_triton.DTYPES and _triton_agrees(device.index, dtype, *sizes):
        return "triton"
    return "torchvision"


def computed_in(features: Tensor) -> torch.dtype:
    """The dtype in which a GPU kernel takes features: that of autocast, where it is active."""
    device = features.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else features.dtype


def deform_conv2d(features: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Modulated deformable 3x3 convolution with stride 1 and padding 1.

    Args:
        features: `(b, c, h, w)`.
        offset: `(b, groups * 9 * 2, h, w)`, displacement of each tap in pixels, `(y, x)` pairs, group-major.
        mask: `(b, groups * 9, h, w)`, weight of each tap, in [0, 1].
        weight: `(c_out, c, 3, 3)`.
        bias: `(c_out,)`.

    Returns:
        `(b, c_out, h, w)`.

    Raises:
        InvalidInput: the shapes do not belong together, or the chosen back end does not run there.
    """
    check_shapes(features, offset, mask, weight, bias)
    # The weight's channels: a compiler may not know the features' beforehand.
    sizes = Sizes(channels=weight.shape[1], groups=mask.shape[1] // TAPS, outputs=weight.shape[0])
    operator = BACKENDS[backend_on(features.device, computed_in(features), sizes)]
    return operator(features, offset, mask, weight, bias)


@constant_when_compiled
def _triton_agrees(gpu: int | None, dtype: torch.dtype, channels: int, groups: int, outputs: int) -> bool:
    """Whether the Triton kernels of these sizes run on this GPU and agree with torchvision, tried once.

    Takes plain numbers, because `torch.compile` would pass on a `Sizes` without its content.
    """
    return _try_triton(Sizes(channels, groups, outputs), dtype, gpu)


@cache
def _try_triton(sizes: Sizes, dtype: torch.dtype, gpu: int | None) -> bool:
    if not deformable_triton.available(gpu):
        return False
    device = torch.device("cuda", torch.cuda.current_device() if gpu is None else gpu)
    try:
        # In a thread of its own, without the caller's state: the first call may come under autocast, in which the two
        # round differently, with gradients off, or inside activation checkpointing.
        with ThreadPoolExecutor(1) as thread, _nondeterministic():
            agrees = thread.submit(_agree, sizes, dtype, device).result()
    except Exception as error:  # a compiler or a driver may raise anything
        check_answering(device)
        warnings.warn(f"the Triton kernel does not run here ({error}); torchvision's is used", stacklevel=2)
        return False
    if not agrees:
        warnings.warn("the Triton kernel and torchvision's differ on this GPU; torchvision's is used", stacklevel=2)
    return agrees


@contextmanager
def _nondeterministic() -> Iterator[None]:
    """Turns off deterministic algorithms, which would refuse the gradients to compare, though inference needs none."""
    enabled = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(False)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(enabled, warn_only=warn_only)


def _agree(
    sizes: Sizes, dtype: torch.dtype, device: torch.device, *, extent: tuple[int, int, int] = (24, 32, 32)
) -> bool:
    """Whether the two give the same output and gradients, torchvision's in float32.

    Args:
        sizes: of the convolution.
        dtype: in which the Triton kernels compute.
        device: where to compute.
        extent: number, height and width of the maps; by default those of the paper's training.
    """
    (channels, groups, outputs), draw = sizes, torch.Generator().manual_seed(0)
    b, h, w = extent
    shapes = (
        (b, channels, h, w),
        (b, 2 * groups * TAPS, h, w),
        (b, groups * TAPS, h, w),
        (outputs, channels, KERNEL, KERNEL),
        (outputs,),
    )
    features, offset, *others = (torch.randn(shape, generator=draw) for shape in shapes)
    # Positions that float32 holds exactly: if rounding moved one to another cell, gradients would differ.
    offset = (1024 * offset).round() / 1024
    inputs = [features.to(dtype), offset, *(tensor.to(dtype) for tensor in others)]
    gradient = torch.randn((b, outputs, h, w), generator=draw).to(dtype)
    results = []
    for run, in_float32 in ((triton_deform_conv2d, False), (torchvision_deform_conv2d, True)):
        given = [(tensor.float() if in_float32 else tensor).to(device).requires_grad_() for tensor in inputs]
        output = run(*given)
        gradients = torch.autograd.grad(output, given, gradient.to(output))
        results.append([tensor.float() for tensor in (output, *gradients)])
    # Compared in the mean: bfloat16 has 8 bits, and TF32, where it is allowed, 11; single gradients of offsets, sums of
    # few terms, are off by more.
    return all(
        bool((actual - expected).square().mean() < 1e-4 * expected.square().mean())
        for actual, expected in zip(*results, strict=True)
    )
