"""Modulated deformable convolution for CPUs: all cores, in blocks of rows that stay in the cache.

The samples of all nine taps are a ninefold copy of the features. Here they exist for some rows at a time: read through
`grid_sample`, weighted, multiplied by the kernel, and forgotten. The backward pass makes them again, so that nothing
of them is kept in between. Contract and shapes are those of `stvsr.ops.deformable.deform_conv2d`.
"""

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
"""Pixels of a block: with 64 channels 9 MB of samples in float32. `benchmarks/deformable.py` compares sizes."""


def check_shapes(features: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, bias: Tensor) -> None:
    """Refuses arguments of a deformable convolution, of any back end, that do not belong together.

    Raises:
        InvalidInput: shapes other than those of `stvsr.ops.deformable.deform_conv2d`.
    """
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
    """The samples of a deformable convolution, rows by rows.

    Args:
        features: `(b, c, h, w)`.
        offset: `(b, groups * 18, h, w)`, pixels.
        mask: `(b, groups * 9, h, w)`.
    """

    def __init__(self, features: Tensor, offset: Tensor, mask: Tensor) -> None:
        self.b, self.c, self.h, self.w = features.shape
        self.groups = mask.shape[1] // TAPS
        # grid_sample wants positions scaled to [-1, 1]. With sides that are powers of two the way there and back is
        # exact in floating point, so an integer position stays one, and the bilinear cell (which decides the
        # gradient with respect to the offset) is the one the compiled operator takes. The zeros added change
        # nothing, as outside the features everything is zero.
        self.side_h, self.side_w = (1 << (side - 1).bit_length() for side in (self.h, self.w))
        padded = F.pad(features, (0, self.side_w - self.w, 0, self.side_h - self.h))
        self.padded = padded.reshape(self.b * self.groups, -1, self.side_h, self.side_w)
        self.offset = offset.reshape(self.b * self.groups, TAPS, 2, self.h, self.w)
        self.mask = mask.reshape(self.b, self.groups, 1, TAPS, self.h, self.w)
        rows, columns, taps = (
            torch.arange(count, dtype=offset.dtype, device=offset.device) for count in (self.h, self.w, KERNEL)
        )
        taps = taps - KERNEL // 2
        y = rows.view(1, -1, 1) + taps.repeat_interleave(KERNEL).view(-1, 1, 1)
        x = columns.view(1, 1, -1) + taps.repeat(KERNEL).view(-1, 1, 1)
        self.y, self.x = (2 * y + 1) / self.side_h - 1, (2 * x + 1) / self.side_w - 1

    def blocks(self) -> Iterator[slice]:
        """Rows that are sampled together."""
        rows = max(1, BLOCK // (self.b * self.w))
        return (slice(first, min(first + rows, self.h)) for first in range(0, self.h, rows))

    def grid(self, rows: slice) -> Tensor:
        """Where `grid_sample` reads: `(b * groups, 9 * rows, w, 2)`."""
        y, x = self.y[:, rows], self.x
        grid = self.offset.new_empty(self.b * self.groups, TAPS, y.shape[1], self.w, 2)
        torch.add(x, self.offset[:, :, 1, rows], alpha=2 / self.side_w, out=grid[..., 0])
        torch.add(y, self.offset[:, :, 0, rows], alpha=2 / self.side_h, out=grid[..., 1])
        return grid.flatten(1, 2)

    def samples(self, padded: Tensor, grid: Tensor) -> Tensor:
        """`(b, groups, c / groups, 9, rows, w)`, not weighted."""
        read = F.grid_sample(padded, grid, padding_mode="zeros", align_corners=False)
        return read.view(self.b, self.groups, -1, TAPS, read.shape[2] // TAPS, self.w)

    def columns(self, samples: Tensor) -> Tensor:
        """Samples as `(b, c * 9, rows * w)`."""
        return samples.reshape(self.b, self.c * TAPS, -1)


class _BlockedDeformConv2d(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(features, offset, mask, weight)
        sampler = _Sampler(features, offset, mask)
        kernel = weight.flatten(1).t()
        # Channels last in memory, as the product gives them and the layers that follow want them.
        shape = (sampler.b, len(weight), sampler.h, sampler.w)
        output = torch.empty(shape, dtype=features.dtype, device=features.device, memory_format=torch.channels_last)
        rows_last = output.permute(0, 2, 3, 1)
        for rows in sampler.blocks():
            samples = sampler.samples(sampler.padded, sampler.grid(rows)).mul_(sampler.mask[..., rows, :])
            product = torch.matmul(sampler.columns(samples).transpose(1, 2), kernel).add_(bias)
            rows_last[:, rows] = product.view(sampler.b, -1, sampler.w, len(weight))
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        features, offset, mask, weight = ctx.saved_tensors
        sampler = _Sampler(features, offset, mask)
        kernel = weight.flatten(1)
        of_padded, of_offset, of_mask = (torch.zeros_like(t) for t in (sampler.padded, sampler.offset, sampler.mask))
        of_kernel = torch.zeros_like(kernel)
        for rows in sampler.blocks():
            padded, grid = sampler.padded.detach().requires_grad_(), sampler.grid(rows).requires_grad_()
            with torch.enable_grad():
                samples = sampler.samples(padded, grid)
            weighted = sampler.columns(samples.detach() * sampler.mask[..., rows, :])
            block = gradient[:, :, rows].flatten(2)
            of_kernel += torch.einsum("bop,bkp->ok", block, weighted)
            of_samples = (kernel.t() @ block).view(samples.shape)
            of_mask[..., rows, :] = (of_samples * samples.detach()).sum(dim=2, keepdim=True)
            of_block, of_grid = torch.autograd.grad(samples, (padded, grid), of_samples * sampler.mask[..., rows, :])
            of_padded += of_block
            of_grid = of_grid.view(of_grid.shape[0], TAPS, -1, sampler.w, 2)
            torch.mul(of_grid[..., 1], 2 / sampler.side_h, out=of_offset[:, :, 0, rows])
            torch.mul(of_grid[..., 0], 2 / sampler.side_w, out=of_offset[:, :, 1, rows])
        of_features = of_padded.view(sampler.b, sampler.c, sampler.side_h, sampler.side_w)
        return (
            of_features[..., : sampler.h, : sampler.w],
            of_offset.view(offset.shape),
            of_mask.view(mask.shape),
            of_kernel.view(weight.shape),
            gradient.sum(dim=(0, 2, 3)),
        )


def blocked_deform_conv2d(features: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The convolution in blocks of rows; see `stvsr.ops.deformable.deform_conv2d`."""
    output: Tensor = _BlockedDeformConv2d.apply(features, offset, mask, weight, bias)
    return output
