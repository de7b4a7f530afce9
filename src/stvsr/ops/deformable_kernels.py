"""The Triton kernels of `stvsr.ops.deformable_triton`; a separate module, as it cannot be imported without Triton.

A program takes a block of pixels; for a tap it gathers the samples of all channels from four corners each, interpolates
them and multiplies them by the tap's weight, all on chip. Samples are recomputed for the gradients, not kept.

Memory indices have 64 bits: a batch of large frames has more than 2^31 offsets. Taps count row by row. Tiles are
`(pixels, groups, channels of a group)`, or `(pixels, channels)` for a matrix product; their sides are powers of two,
named `..._2` where the true size may be smaller.
"""

from typing import Any

import triton  # type: ignore[import-untyped]
import triton.language as tl  # type: ignore[import-untyped]


@triton.jit  # type: ignore[untyped-decorator]
def _locate(
    offset_ptr: tl.tensor,
    mask_ptr: tl.tensor,
    image: tl.tensor,
    pixel: tl.tensor,
    tap: tl.tensor,
    h: tl.tensor,
    w: tl.tensor,
    groups: tl.constexpr,
    depth: tl.constexpr,
    groups_2: tl.constexpr,
    depth_2: tl.constexpr,
) -> Any:
    """Where a tap samples.

    Returns:
        The indices into the mask and the y offsets, and whether they exist; the mask; the fractions (y, x) within the
        cell of four pixels; the index into the features of the upper left one; which sides of the cell exist: upper,
        lower, left, right.
    """
    pixel = pixel[:, None, None]
    group, channel = tl.arange(0, groups_2)[None, :, None], tl.arange(0, depth_2)[None, None, :]
    plane = (image * groups + group) * 9 + tap
    mask_index, offset_index = plane * (h * w) + pixel, plane * (2 * h * w) + pixel
    exists = (pixel < h * w) & (group < groups)
    modulation = tl.load(mask_ptr + mask_index, mask=exists, other=0.0).to(tl.float32)
    y = tl.load(offset_ptr + offset_index, mask=exists, other=0.0).to(tl.float32) + (pixel // w + tap // 3 - 1)
    x = tl.load(offset_ptr + offset_index + h * w, mask=exists, other=0.0).to(tl.float32) + (pixel % w + tap % 3 - 1)
    # Far away gives zeros, as just outside does, but may not fit into an integer. NaN stays, to show in the output.
    y = tl.clamp(y, -2.0, h + 1.0, propagate_nan=tl.PropagateNan.ALL)
    x = tl.clamp(x, -2.0, w + 1.0, propagate_nan=tl.PropagateNan.ALL)
    top, left = tl.floor(y), tl.floor(x)
    row, column = top.to(tl.int32), left.to(tl.int32)
    corner = ((image * h + row) * w + column) * (groups * depth) + group * depth + channel
    some = exists & (channel < depth)
    return (
        mask_index,
        offset_index,
        exists,
        modulation,
        y - top,
        x - left,
        corner,
        some & (row >= 0) & (row < h),
        some & (row >= -1) & (row < h - 1),
        (column >= 0) & (column < w),
        (column >= -1) & (column < w - 1),
    )


@triton.jit  # type: ignore[untyped-decorator]
def _gather(
    features_ptr: tl.tensor,
    corner: tl.tensor,
    step: tl.tensor,
    line: tl.tensor,
    upper: tl.tensor,
    lower: tl.tensor,
    left: tl.tensor,
    right: tl.tensor,
) -> Any:
    """The features `f` of the cell, zero where it lies outside, as `f00, f10-f00, f01-f00, f11-f10-f01+f00`."""
    f00 = tl.load(features_ptr + corner, mask=upper & left, other=0.0).to(tl.float32)
    f01 = tl.load(features_ptr + corner + step, mask=upper & right, other=0.0).to(tl.float32)
    f10 = tl.load(features_ptr + corner + line, mask=lower & left, other=0.0).to(tl.float32)
    f11 = tl.load(features_ptr + corner + line + step, mask=lower & right, other=0.0).to(tl.float32)
    return f00, f10 - f00, f01 - f00, (f11 - f10) - (f01 - f00)


@triton.jit  # type: ignore[untyped-decorator]
def _weight_tile(
    groups: tl.constexpr,
    depth: tl.constexpr,
    outputs: tl.constexpr,
    groups_2: tl.constexpr,
    depth_2: tl.constexpr,
    outputs_2: tl.constexpr,
) -> Any:
    """Indices into the `(channels, outputs)` weight of a tap, whether they exist, and the outputs as a row."""
    inner, output = tl.arange(0, groups_2 * depth_2)[:, None], tl.arange(0, outputs_2)[None, :]
    group, channel = inner // depth_2, inner % depth_2
    exists = (group < groups) & (channel < depth) & (output < outputs)
    return (group * depth + channel) * outputs + output, exists, output


@triton.jit  # type: ignore[untyped-decorator]
def _grad_tile(
    grad_ptr: tl.tensor,
    image: tl.tensor,
    pixel: tl.tensor,
    output: tl.tensor,
    h: tl.tensor,
    w: tl.tensor,
    outputs: tl.constexpr,
) -> Any:
    """The gradient of the output, `(pixels, outputs)`, from `(b, h, w, outputs)`."""
    pixel = pixel[:, None]
    index = (image * h * w + pixel) * outputs + output
    return tl.load(grad_ptr + index, mask=(pixel < h * w) & (output < outputs), other=0.0)


@triton.jit  # type: ignore[untyped-decorator]
def forward_kernel(
    features_ptr: tl.tensor,
    offset_ptr: tl.tensor,
    mask_ptr: tl.tensor,
    weight_ptr: tl.tensor,
    bias_ptr: tl.tensor,
    output_ptr: tl.tensor,
    h: tl.tensor,
    w: tl.tensor,
    channel_stride: tl.tensor,
    pixel_stride: tl.tensor,
    groups: tl.constexpr,
    depth: tl.constexpr,
    outputs: tl.constexpr,
    groups_2: tl.constexpr,
    depth_2: tl.constexpr,
    outputs_2: tl.constexpr,
    precision: tl.constexpr,
    pixels: tl.constexpr,
) -> None:
    """The output of a block of pixels. Features `(b, h, w, channels)`, weight `(9, channels, outputs)`."""
    step: tl.constexpr = groups * depth
    blocks = tl.cdiv(h * w, pixels)
    image = (tl.program_id(0) // blocks).to(tl.int64)
    pixel = (tl.program_id(0) % blocks) * pixels + tl.arange(0, pixels)
    weight_index, weight_exists, output = _weight_tile(groups, depth, outputs, groups_2, depth_2, outputs_2)

    total = tl.zeros((pixels, outputs_2), tl.float32)
    for tap in range(9):
        _, _, _, modulation, y, x, corner, upper, lower, left, right = _locate(
            offset_ptr, mask_ptr, image, pixel, tap, h, w, groups, depth, groups_2, depth_2
        )
        f, dy, dx, dyx = _gather(features_ptr, corner, step, w * step, upper, lower, left, right)
        samples = (f + y * dy + x * (dx + y * dyx)) * modulation
        weight = tl.load(weight_ptr + tap * (step * outputs) + weight_index, mask=weight_exists, other=0.0)
        samples = tl.reshape(samples, (pixels, groups_2 * depth_2)).to(weight.dtype)
        total = tl.dot(samples, weight, total, input_precision=precision)

    total += tl.load(bias_ptr + output, mask=output < outputs, other=0.0).to(tl.float32)
    pixel = pixel[:, None]
    index = (image * outputs * h * w) + output.to(tl.int64) * channel_stride + pixel.to(tl.int64) * pixel_stride
    tl.store(output_ptr + index, total, mask=(pixel < h * w) & (output < outputs))


@triton.jit  # type: ignore[untyped-decorator]
def input_gradients_kernel(
    grad_ptr: tl.tensor,
    features_ptr: tl.tensor,
    offset_ptr: tl.tensor,
    mask_ptr: tl.tensor,
    weight_ptr: tl.tensor,
    grad_features_ptr: tl.tensor,
    grad_offset_ptr: tl.tensor,
    grad_mask_ptr: tl.tensor,
    b: tl.tensor,
    h: tl.tensor,
    w: tl.tensor,
    groups: tl.constexpr,
    depth: tl.constexpr,
    outputs: tl.constexpr,
    groups_2: tl.constexpr,
    depth_2: tl.constexpr,
    outputs_2: tl.constexpr,
    precision: tl.constexpr,
    pixels: tl.constexpr,
) -> None:
    """One tap's gradients of features, offset and mask (those with a pointer) at every n-th block of pixels.

    Shapes as in `forward_kernel`; `grad` is `(b, h, w, outputs)`. The gradient of the features is accumulated.
    """
    step: tl.constexpr = groups * depth
    tap = tl.program_id(0) % 9
    blocks = tl.cdiv(h * w, pixels)
    weight_index, weight_exists, output = _weight_tile(groups, depth, outputs, groups_2, depth_2, outputs_2)

    for block in range(tl.program_id(0) // 9, b * blocks, tl.num_programs(0) // 9):
        image = (block // blocks).to(tl.int64)
        pixel = (block % blocks) * pixels + tl.arange(0, pixels)
        mask_index, offset_index, exists, modulation, y, x, corner, upper, lower, left, right = _locate(
            offset_ptr, mask_ptr, image, pixel, tap, h, w, groups, depth, groups_2, depth_2
        )
        f, dy, dx, dyx = _gather(features_ptr, corner, step, w * step, upper, lower, left, right)
        grad = _grad_tile(grad_ptr, image, pixel, output, h, w, outputs)
        # Loaded in the loop, though always the same: outside, the compiler would hold it in registers it lacks.
        weight = tl.load(weight_ptr + tap * (step * outputs) + weight_index, mask=weight_exists, other=0.0)
        grad_samples = tl.dot(grad, tl.trans(weight), input_precision=precision)
        grad_samples = tl.reshape(grad_samples, (pixels, groups_2, depth_2))

        along_y = tl.sum(grad_samples * dy, axis=2, keep_dims=True)
        along_x = tl.sum(grad_samples * dx, axis=2, keep_dims=True)
        along_yx = tl.sum(grad_samples * dyx, axis=2, keep_dims=True)
        if grad_mask_ptr is not None:
            grad_mask = tl.sum(grad_samples * f, axis=2, keep_dims=True)
            grad_mask += y * along_y + x * (along_x + y * along_yx)
            tl.store(grad_mask_ptr + mask_index, grad_mask, mask=exists)
        if grad_offset_ptr is not None:
            tl.store(grad_offset_ptr + offset_index, modulation * (along_y + x * along_yx), mask=exists)
            tl.store(grad_offset_ptr + offset_index + h * w, modulation * (along_x + y * along_yx), mask=exists)
        if grad_features_ptr is not None:
            grad_samples *= modulation
            place = grad_features_ptr + corner
            # No order is needed among the additions, only that none is lost.
            tl.atomic_add(place, grad_samples * ((1 - y) * (1 - x)), mask=upper & left, sem="relaxed")
            tl.atomic_add(place + step, grad_samples * ((1 - y) * x), mask=upper & right, sem="relaxed")
            tl.atomic_add(place + w * step, grad_samples * (y * (1 - x)), mask=lower & left, sem="relaxed")
            tl.atomic_add(place + w * step + step, grad_samples * (y * x), mask=lower & right, sem="relaxed")


@triton.jit  # type: ignore[untyped-decorator]
def weight_gradient_kernel(
    grad_ptr: tl.tensor,
    features_ptr: tl.tensor,
    offset_ptr: tl.tensor,
    mask_ptr: tl.tensor,
    grad_weight_ptr: tl.tensor,
    b: tl.tensor,
    h: tl.tensor,
    w: tl.tensor,
    groups: tl.constexpr,
    depth: tl.constexpr,
    outputs: tl.constexpr,
    groups_2: tl.constexpr,
    depth_2: tl.constexpr,
    outputs_2: tl.constexpr,
    precision: tl.constexpr,
    pixels: tl.constexpr,
) -> None:
    """One tap's gradient of the weight over every n-th block of pixels, summed on chip and added once.

    Separate, because together with `input_gradients_kernel` it would need more registers than there are.
    """
    step: tl.constexpr = groups * depth
    tap = tl.program_id(0) % 9
    blocks = tl.cdiv(h * w, pixels)
    weight_index, weight_exists, output = _weight_tile(groups, depth, outputs, groups_2, depth_2, outputs_2)
    channels_2: tl.constexpr = groups_2 * depth_2
    # For 64 rows or more, except in exact float32 products, the compiler uses Hopper's warp-group instructions (WGMMA);
    # that of Triton 3.6 is reported to get such kernels wrong. So 32 rows at a time.
    rounded: tl.constexpr = grad_ptr.dtype.element_ty != tl.float32 or precision != "ieee"
    parts: tl.constexpr = channels_2 // 32 if rounded and channels_2 > 32 else 1

    total = tl.zeros((parts, channels_2 // parts, outputs_2) if parts > 1 else (channels_2, outputs_2), tl.float32)
    for block in range(tl.program_id(0) // 9, b * blocks, tl.num_programs(0) // 9):
        image = (block // blocks).to(tl.int64)
        pixel = (block % blocks) * pixels + tl.arange(0, pixels)
        _, _, _, modulation, y, x, corner, upper, lower, left, right = _locate(
            offset_ptr, mask_ptr, image, pixel, tap, h, w, groups, depth, groups_2, depth_2
        )
        f, dy, dx, dyx = _gather(features_ptr, corner, step, w * step, upper, lower, left, right)
        samples = (f + y * dy + x * (dx + y * dyx)) * modulation
        grad = _grad_tile(grad_ptr, image, pixel, output, h, w, outputs)
        samples = tl.trans(tl.reshape(samples, (pixels, channels_2)).to(grad.dtype))
        if parts > 1:
            samples = tl.reshape(samples, (parts, channels_2 // parts, pixels))
            grad = tl.broadcast_to(grad[None, :, :], (parts, pixels, outputs_2))
        total = tl.dot(samples, grad, total, input_precision=precision)
    total = tl.reshape(total, (channels_2, outputs_2))
    place = grad_weight_ptr + tap * (step * outputs) + weight_index
    tl.atomic_add(place, total, mask=weight_exists, sem="relaxed")
