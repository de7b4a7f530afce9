"""Modulated deformable convolution (Zhu et al., "Deformable ConvNets v2", CVPR 2019), the paper's DConv.

One function, `deform_conv2d`, is what the rest of the package calls. Two equal back ends stand behind it:

- `torchvision_deform_conv2d`: the compiled operator. On a GPU it is the fast one; on a CPU it uses one core.
- `grid_sample_deform_conv2d`: the same sum written with `grid_sample` and a matrix product, which use all
  cores of a CPU.

Offsets are `(y, x)` pairs per kernel tap in pixels, group-major, as torchvision lays them out; samples outside
the features are zero. `benchmarks/deformable.py` measures one against the other.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import deform_conv2d as torchvision_operator

from stvsr.errors import InvalidInput

KERNEL = 3
"""Every kernel of the method is 3x3 with stride 1 and padding 1."""

TAPS = KERNEL * KERNEL


def torchvision_deform_conv2d(features: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The compiled operator; see `deform_conv2d`."""
    output: Tensor = torchvision_operator(features, offset, weight, bias, padding=KERNEL // 2, mask=mask)
    return output


def grid_sample_deform_conv2d(features: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The same sum through `grid_sample`; see `deform_conv2d`."""
    b, c, h, w = features.shape
    groups = mask.shape[1] // TAPS

    # grid_sample wants positions scaled to [-1, 1]. With sides that are powers of two the way there and back is
    # exact in floating point, so an integer position stays one, and the bilinear cell (which decides the
    # gradient with respect to the offset) is the one the compiled operator takes. The zeros added change
    # nothing, as outside the features everything is zero.
    side_h, side_w = (1 << (side - 1).bit_length() for side in (h, w))
    padded = F.pad(features, (0, side_w - w, 0, side_h - h)).reshape(b * groups, c // groups, side_h, side_w)

    rows = torch.arange(h, dtype=offset.dtype, device=offset.device)
    columns = torch.arange(w, dtype=offset.dtype, device=offset.device)
    taps = torch.arange(KERNEL, dtype=offset.dtype, device=offset.device) - KERNEL // 2
    offset = offset.reshape(b * groups, TAPS, 2, h, w)
    y = offset[:, :, 0] + (rows.view(1, 1, h, 1) + taps.repeat_interleave(KERNEL).view(1, TAPS, 1, 1))
    x = offset[:, :, 1] + (columns.view(1, 1, 1, w) + taps.repeat(KERNEL).view(1, TAPS, 1, 1))
    grid = torch.stack([(2 * x + 1) / side_w - 1, (2 * y + 1) / side_h - 1], dim=-1)

    samples = F.grid_sample(padded, grid.view(b * groups, TAPS * h, w, 2), padding_mode="zeros", align_corners=False)
    samples = samples.view(b, groups, c // groups, TAPS, h * w) * mask.reshape(b, groups, 1, TAPS, h * w)
    product = weight.flatten(1) @ samples.view(b, c * TAPS, h * w)
    return product.view(b, -1, h, w) + bias.view(1, -1, 1, 1)


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
        InvalidInput: the shapes do not belong together.
    """
    b, c, h, w = features.shape
    groups = mask.shape[1] // TAPS
    if (
        groups == 0
        or mask.shape != (b, groups * TAPS, h, w)
        or offset.shape != (b, 2 * groups * TAPS, h, w)
        or c % groups
    ):
        raise InvalidInput(
            f"features {tuple(features.shape)}, offset {tuple(offset.shape)}, mask {tuple(mask.shape)}: expected "
            "offset (b, groups*18, h, w) and mask (b, groups*9, h, w) with groups dividing the channels"
        )
    if features.is_cuda:
        return torchvision_deform_conv2d(features, offset, mask, weight, bias)
    # As torchvision's does: below float32 the sampling positions would be rounded to whole pixels.
    with torch.autocast(features.device.type, enabled=False):
        inputs = (
            tensor.to(torch.promote_types(tensor.dtype, torch.float32))
            for tensor in (features, offset, mask, weight, bias)
        )
        return grid_sample_deform_conv2d(*inputs).to(features.dtype)
