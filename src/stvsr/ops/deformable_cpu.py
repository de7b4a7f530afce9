"""Modulated deformable convolution for CPUs: all cores, in blocks of frames or rows that stay in the cache.

The samples of all nine taps are a ninefold copy of the features. Here they exist for one block at a time: read by
`grid_sample`, weighted, multiplied by the kernel, and discarded. The backward pass recomputes them, so that nothing
of them is kept in between. Contract and shapes are those of `stvsr.ops.deformable.deform_conv2d`.
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from stvsr.errors import InvalidInput

KERNEL = 3
TAPS = KERNEL * KERNEL

BLOCK = 4096
"""Pixels per block: with 64 channels 9 MB of samples in float32. `benchmarks/deformable.py` compares sizes."""


def power_of_two(size: int) -> int:
    """The smallest power of two that is not below `size`."""
    return 1 << (size - 1).bit_length()


def check_shapes(features: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, bias: Tensor) -> None:
    """Refuses arguments of a deformable convolution, of any back end, that do not belong together.

    Raises:
        InvalidInput: shapes other than those of `stvsr.ops.deformable.deform_conv2d`, or not floating point.
    """
    if not features.is_floating_point() or any(tensor.ndim != 4 for tensor in (features, offset, mask, weight)):
        raise InvalidInput(
            f"features {tuple(features.shape)} {features.dtype}, offset {tuple(offset.shape)}, mask "
            f"{tuple(mask.shape)}, weight {tuple(weight.shape)}: expected floating point, four dimensions each"
        )
    b, c, h, w = features.shape
    groups, c_out = mask.shape[1] // TAPS, weight.shape[0]
    expected = [(b, 2 * groups * TAPS, h, w), (b, groups * TAPS, h, w), (c_out, c, KERNEL, KERNEL), (c_out,)]
    if groups == 0 or c % groups or [tuple(tensor.shape) for tensor in (offset, mask, weight, bias)] != expected:
        raise InvalidInput(
            f"features {tuple(features.shape)}, offset {tuple(offset.shape)}, mask {tuple(mask.shape)}, weight "
            f"{tuple(weight.shape)}, bias {tuple(bias.shape)}: expected offset (b, groups*18, h, w), mask "
            "(b, groups*9, h, w), weight (c_out, c, 3, 3), bias (c_out,) with groups dividing the channels"
        )


class _Sampler:
    """The samples of a deformable convolution, block by block.

    Args:
        features: `(b, c, h, w)`.
        offset: `(b, groups * 18, h, w)`, pixels.
        mask: `(b, groups * 9, h, w)`.
    """

    def __init__(self, features: Tensor, offset: Tensor, mask: Tensor) -> None:
        self.b, _, self.h, self.w = features.shape
        self.groups = mask.shape[1] // TAPS
        # grid_sample expects positions scaled to [-1, 1]. With sides that are powers of two, scaling there and back is
        # exact in floating point, so an integer position stays one, and the bilinear cell (which decides the
        # gradient with respect to the offset) is the one the compiled operator takes. The zeros added change
        # nothing, as outside the features everything is zero.
        self.side_h, self.side_w = map(power_of_two, (self.h, self.w))
        padded = F.pad(features, (0, self.side_w - self.w, 0, self.side_h - self.h))
        self.padded = padded.reshape(self.b, self.groups, -1, self.side_h, self.side_w)
        self.offset = offset.reshape(self.b, self.groups, TAPS, 2, self.h, self.w)
        self.mask = mask.reshape(self.b, self.groups, 1, TAPS, self.h, self.w)
        rows, columns, taps = (
            torch.arange(count, dtype=offset.dtype, device=offset.device) for count in (self.h, self.w, KERNEL)
        )
        taps = taps - KERNEL // 2
        y = rows.view(1, -1, 1) + taps.repeat_interleave(KERNEL).view(-1, 1, 1)
        x = columns.view(1, 1, -1) + taps.repeat(KERNEL).view(-1, 1, 1)
        self.y, self.x = (2 * y + 1) / self.side_h - 1, (2 * x + 1) / self.side_w - 1

    def blocks(self) -> Iterator[tuple[slice, slice]]:
        """Frames, and rows of them, that are sampled together: whole frames while they are small."""
        # Enough frames for one group of channels per thread, at least: a thread samples whole groups.
        frames = min(self.b, max(BLOCK // (self.h * self.w), math.ceil(torch.get_num_threads() / self.groups)))
        rows = max(1, BLOCK // (frames * self.w))
        for frame in range(0, self.b, frames):
            for row in range(0, self.h, rows):
                yield slice(frame, min(frame + frames, self.b)), slice(row, min(row + rows, self.h))

    def grid(self, frames: slice, rows: slice) -> Tensor:
        """Where `grid_sample` reads: `(frames * groups, 9 * rows, w, 2)`."""
        offset, y, x = self.offset[frames, ..., rows, :], self.y[:, rows], self.x
        grid = offset.new_empty(*offset.shape[:3], *offset.shape[4:], 2)
        torch.add(x, offset[:, :, :, 1], alpha=2 / self.side_w, out=grid[..., 0])
        torch.add(y, offset[:, :, :, 0], alpha=2 / self.side_h, out=grid[..., 1])
        return grid.flatten(0, 1).flatten(1, 2)

    def features(self, frames: slice) -> Tensor:
        """What `grid_sample` reads from: `(frames * groups, c / groups, ...)`."""
        return self.padded[frames].flatten(0, 1)

    def by_tap(self, read: Tensor) -> Tensor:
        """What was read at a grid, as `(frames, groups, c / groups, 9, rows, w)`."""
        return read.view(-1, self.groups, read.shape[1], TAPS, read.shape[2] // TAPS, self.w)


def _sample(features: Tensor, grid: Tensor) -> Tensor:
    return F.grid_sample(features, grid, padding_mode="zeros", align_corners=False)


def _columns(samples: Tensor) -> Tensor:
    """Samples as `(frames, c * 9, rows * w)`."""
    return samples.flatten(1, 3).flatten(2)


class _BlockedDeformConv2d(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(features, offset, mask, weight)
        sampler = _Sampler(features, offset, mask)
        # Detached: else torch.matmul would fold the batch, with a copy, to save memory in a gradient not computed here.
        kernel = weight.detach().flatten(1).t()
        # Channels last in memory, as the product yields them and the layers that follow prefer them.
        shape = (sampler.b, len(weight), sampler.h, sampler.w)
        output = torch.empty(shape, dtype=features.dtype, device=features.device, memory_format=torch.channels_last)
        rows_last = output.permute(0, 2, 3, 1)
        for frames, rows in sampler.blocks():
            samples = sampler.by_tap(_sample(sampler.features(frames), sampler.grid(frames, rows)))
            samples *= sampler.mask[frames, ..., rows, :]
            product = torch.matmul(_columns(samples).transpose(1, 2), kernel).add_(bias)
            rows_last[frames, rows] = product.view(len(product), -1, sampler.w, len(weight))
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        features, offset, mask, weight = ctx.saved_tensors
        sampler = _Sampler(features, offset, mask)
        kernel = weight.detach().flatten(1)
        grad_offset, grad_mask = torch.empty_like(sampler.offset), torch.empty_like(sampler.mask)
        grad_padded, grad_kernel = torch.zeros_like(sampler.padded), torch.zeros_like(kernel)
        spare = None
        # Without autocast, as in the forward pass.
        with torch.autocast(gradient.device.type, enabled=False):
            for frames, rows in sampler.blocks():
                read_from = sampler.features(frames).detach().requires_grad_()
                grid = sampler.grid(frames, rows).requires_grad_()
                with torch.enable_grad():
                    read = _sample(read_from, grid)
                samples, modulation = sampler.by_tap(read.detach()), sampler.mask[frames, ..., rows, :]
                block = gradient[frames, :, rows].flatten(2)
                # New memory of this size is slow, so all blocks reuse that of the first, which is the largest.
                spare = samples.new_empty(samples.numel()) if spare is None else spare
                buffer = spare[: samples.numel()].view(samples.shape)
                torch.mul(samples, modulation, out=buffer)  # the modulated samples
                grad_kernel += torch.matmul(block, _columns(buffer).transpose(1, 2)).sum(dim=0)
                torch.bmm(kernel.t().expand(len(block), -1, -1), block, out=_columns(buffer))  # now their gradient
                # This overwrites `read` as well, which shares its memory: grid_sample's gradient does not need it.
                grad_mask[frames, ..., rows, :] = samples.mul_(buffer).sum(dim=2, keepdim=True)
                buffer.mul_(modulation)  # now the gradient of the samples
                grad_features, grad_grid = torch.autograd.grad(read, (read_from, grid), buffer.view(read.shape))
                grad_padded[frames] += grad_features.view_as(grad_padded[frames])
                grad_grid = grad_grid.view(*grad_offset[frames, ..., rows, :].shape[:3], -1, sampler.w, 2)
                torch.mul(grad_grid[..., 1], 2 / sampler.side_h, out=grad_offset[frames, :, :, 0, rows])
                torch.mul(grad_grid[..., 0], 2 / sampler.side_w, out=grad_offset[frames, :, :, 1, rows])
        return (
            grad_padded.flatten(1, 2)[..., : sampler.h, : sampler.w],
            grad_offset.view(offset.shape),
            grad_mask.view(mask.shape),
            grad_kernel.view(weight.shape),
            gradient.sum(dim=(0, 2, 3)),
        )


def blocked_deform_conv2d(features: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The convolution in blocks; see `stvsr.ops.deformable.deform_conv2d`."""
    # In float32 at least, as torchvision's: below it, sampling positions would be rounded to whole pixels.
    with torch.autocast(features.device.type, enabled=False):
        inputs = (
            tensor.to(torch.promote_types(tensor.dtype, torch.float32))
            for tensor in (features, offset, mask, weight, bias)
        )
        output: Tensor = _BlockedDeformConv2d.apply(*inputs)
        return output.to(features.dtype)
