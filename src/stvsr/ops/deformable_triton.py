"""The deformable convolution of `stvsr.ops.deformable` in Triton: one kernel forward, two backward.

No copy of the input per tap goes through memory, only the input, the offsets, the mask and the output. As an operator
it is `torch.ops.stvsr.deform_conv2d`, with its gradient, its rule for autocast and what `torch.compile` and
`torch.export` need. The module can be imported anywhere; `available` tells where it can run.

The kernels read features with the channels of a pixel adjacent: a deformable group samples all its channels at one
place, then contiguous in memory. `channels_last` features are taken as they are, others transposed once.
"""

import math
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

from stvsr.errors import InvalidInput
from stvsr.ops.deformable_cpu import TAPS, check_shapes, power_of_two

try:
    from stvsr.ops.deformable_kernels import forward_kernel, input_gradients_kernel, weight_gradient_kernel
except ModuleNotFoundError:  # Triton has no wheels for macOS
    forward_kernel = input_gradients_kernel = weight_gradient_kernel = None

Answer = TypeVar("Answer")

# Chosen so that with 64 channels of any dtype nothing spills out of the registers of an H100, and fixed rather than
# tuned when first called: the same input gives the same output in every run.
PIXELS = 32
"""Pixels per block: 768 blocks at 24 maps of 32x32, enough for every multiprocessor."""

STAGES = 2
"""Taps in flight at once (pipelining), each with its own weights in a multiprocessor's shared memory."""

LAUNCH = {"pixels": PIXELS, "num_warps": 8, "enable_fp_fusion": True}

PROGRAMS_PER_TAP = 64
"""Programs per tap in the gradient kernels; they share the blocks."""

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def constant_when_compiled(function: Callable[..., Answer]) -> Callable[..., Answer]:
    """Like `torch.compiler.assume_constant_result`, but without importing the compiler, which takes seconds."""
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


@constant_when_compiled
def available(gpu: int | None = None) -> bool:
    """Whether the kernels can run: Triton is installed and supports the GPU (compute capability 8.0 or newer).

    Args:
        gpu: its number; the current one where not given.
    """
    return forward_kernel is not None and torch.cuda.is_available() and torch.cuda.get_device_capability(gpu) >= (8, 0)


def triton_deform_conv2d(features: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The fused operator; shapes as in `stvsr.ops.deformable.deform_conv2d`.

    Features, weight and bias are of one dtype: float32, bfloat16 or float16; autocast casts them. Offset and mask may
    be of any floating dtype, and autocast leaves them. Positions and sums are float32. Products of float32 are exact
    unless `torch.backends.cuda.matmul` allows TF32. A program holds all channels; it is designed for up to 128.

    Returns:
        `(b, c_out, h, w)` in the memory format of the features. Gradients of features and weight are summed in no
        fixed order, so their last bits differ from run to run.

    Raises:
        InvalidInput: shapes, dtypes or devices do not belong together.
    """
    output: Tensor = torch.ops.stvsr.deform_conv2d(features, offset, mask, weight, bias)
    return output


def _check(features: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, bias: Tensor) -> None:
    """Refuses arguments with which the kernels, which trust them, would read out of bounds."""
    check_shapes(features, offset, mask, weight, bias)
    others = (offset, mask, weight, bias)
    if features.dtype not in DTYPES or not features.dtype == weight.dtype == bias.dtype:
        raise InvalidInput(
            f"features {features.dtype}, weight {weight.dtype}, bias {bias.dtype}: expected one of {DTYPES} for all"
        )
    if any(tensor.device != features.device for tensor in others):
        raise InvalidInput(f"devices {[str(t.device) for t in others]}: expected {features.device}, as the features")


def _sizes(features: Tensor, mask: Tensor, weight: Tensor) -> dict[str, Any]:
    """What the kernels are compiled for."""
    groups, outputs = mask.shape[1] // TAPS, weight.shape[0]
    depth, groups_2 = features.shape[1] // groups, power_of_two(groups)
    return {
        "groups": groups,
        "depth": depth,
        "outputs": outputs,
        "groups_2": groups_2,
        # No side of a matrix product may be below 16.
        "depth_2": max(power_of_two(depth), 16 // groups_2),
        "outputs_2": max(power_of_two(outputs), 16),
        # Reflects the older `allow_tf32` too, which cannot be read once this has been set.
        "precision": "tf32" if torch.backends.cuda.matmul.fp32_precision == "tf32" else "ieee",
    }


def _launch_options(sizes: dict[str, Any], features: Tensor) -> dict[str, Any]:
    """How kernels of these sizes are launched on the features' device."""
    if not features.is_cuda:  # in Triton's interpreter
        return {**LAUNCH, "num_stages": STAGES}
    device = torch.cuda.get_device_properties(features.device)
    # AMD GPUs have only the ordinary limit.
    shared = getattr(device, "shared_memory_per_block_optin", device.shared_memory_per_block)
    return {**LAUNCH, "num_stages": _pipeline_stages(sizes, features.element_size(), shared)}


def _pipeline_stages(sizes: dict[str, Any], element_size: int, shared: int) -> int:
    """How many taps fit into `shared` bytes of shared memory: 128 channels in float32 need more than some GPUs have."""
    channels = sizes["groups_2"] * sizes["depth_2"]
    needed = STAGES * channels * sizes["outputs_2"] + PIXELS * channels
    return STAGES if element_size * needed <= shared else 1


def _empty_like(features: Tensor, channels: int) -> Tensor:
    """Uninitialised, with so many channels, else like the features, also in memory format."""
    b, _, h, w = features.shape
    dense = features.is_contiguous() or not features.is_contiguous(memory_format=torch.channels_last)
    memory_format = torch.contiguous_format if dense else torch.channels_last
    return torch.empty((b, channels, h, w), dtype=features.dtype, device=features.device, memory_format=memory_format)


def _channels_last(tensor: Tensor) -> Tensor:
    """`(b, c, h, w)` to `(b, h, w, c)`, contiguous."""
    return tensor.permute(0, 2, 3, 1).contiguous()


def _tap_first(weight: Tensor) -> Tensor:
    """`(c_out, c, 3, 3)` to `(3, 3, c, c_out)`, contiguous."""
    return weight.permute(2, 3, 1, 0).contiguous()


@torch.library.custom_op("stvsr::deform_conv2d", mutates_args=())
def _forward(features: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    _check(features, offset, mask, weight, bias)
    b, _, h, w = features.shape
    output = _empty_like(features, weight.shape[0])
    sizes = _sizes(features, mask, weight)
    with torch.cuda.device_of(features):  # type: ignore[no-untyped-call]
        forward_kernel[(b * math.ceil(h * w / PIXELS),)](
            _channels_last(features),
            offset.contiguous(),
            mask.contiguous(),
            _tap_first(weight),
            bias.contiguous(),
            output,
            h,
            w,
            output.stride(1),
            output.stride(3),
            **sizes,
            **_launch_options(sizes, features),
        )
    return output


@_forward.register_fake
def _(features: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    _check(features, offset, mask, weight, bias)
    return _empty_like(features, weight.shape[0])


@torch.library.custom_op("stvsr::deform_conv2d_backward", mutates_args=())
def _backward(
    grad: Tensor, features: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, needed: list[bool]
) -> list[Tensor]:
    """The needed ones of the gradients of features, offset, mask and weight."""
    if torch.are_deterministic_algorithms_enabled() and not torch.is_deterministic_algorithms_warn_only_enabled():
        # As PyTorch's own operators do if they add in changing order.
        raise InvalidInput(
            "deformable=triton: gradients on a GPU are summed in no fixed order; deterministic algorithms are not "
            "supported: leave out trainer.deterministic, or train on a CPU"
        )
    b, c, h, w = features.shape
    gradients = _empty_gradients(features, offset, mask, weight, needed)
    grad_features, grad_offset, grad_mask, grad_weight = gradients
    inputs = (_channels_last(grad), _channels_last(features), offset.contiguous(), mask.contiguous())
    sizes = _sizes(features, mask, weight)
    arguments = {"b": b, "h": h, "w": w, **sizes, **_launch_options(sizes, features)}
    grid = (9 * min(b * math.ceil(h * w / PIXELS), PROGRAMS_PER_TAP),)
    # Sums are float32 and laid out as the kernels want them.
    with torch.cuda.device_of(features):  # type: ignore[no-untyped-call]
        if any(needed[:3]):
            total = grad.new_zeros((b, h, w, c), dtype=torch.float32) if grad_features is not None else None
            input_gradients_kernel[grid](*inputs, _tap_first(weight), total, grad_offset, grad_mask, **arguments)
            if grad_features is not None and total is not None:
                grad_features.copy_(total.permute(0, 3, 1, 2))
        if grad_weight is not None:
            total = grad.new_zeros((3, 3, c, weight.shape[0]), dtype=torch.float32)
            weight_gradient_kernel[grid](*inputs, total, **arguments)
            grad_weight.copy_(total.permute(3, 2, 0, 1))
    return [gradient for gradient in gradients if gradient is not None]


def _empty_gradients(
    features: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, needed: list[bool]
) -> list[Tensor | None]:
    others = [torch.empty_like(tensor, memory_format=torch.contiguous_format) for tensor in (offset, mask, weight)]
    gradients = [_empty_like(features, features.shape[1]), *others]
    return [gradient if need else None for gradient, need in zip(gradients, needed, strict=True)]


@_backward.register_fake
def _(grad: Tensor, features: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, needed: list[bool]) -> list[Tensor]:
    gradients = _empty_gradients(features, offset, mask, weight, needed)
    return [gradient for gradient in gradients if gradient is not None]


def _setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:4])


def _gradients(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    *needed, bias = ctx.needs_input_grad
    computed = iter(torch.ops.stvsr.deform_conv2d_backward(grad, *ctx.saved_tensors, needed) if any(needed) else ())
    return (*(next(computed) if need else None for need in needed), grad.sum((0, 2, 3)) if bias else None)


_forward.register_autograd(_gradients, setup_context=_setup_context)


def _cast_for_autocast(features: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Leaves offset and mask, unlike `register_autocast`: below float32, large offsets lose their fractions."""
    device = features.device.type
    dtype = torch.get_autocast_dtype(device)
    with torch.autocast(device, enabled=False):
        return triton_deform_conv2d(features.to(dtype), offset, mask, weight.to(dtype), bias.to(dtype))


_library = torch.library.Library("stvsr", "FRAGMENT")  # type: ignore[no-untyped-call]
for _key in ("AutocastCUDA", "AutocastCPU"):
    _library.impl("deform_conv2d", _cast_for_autocast, _key)  # type: ignore[no-untyped-call]
