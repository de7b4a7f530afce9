"""Bicubic degradation as the field does it: MATLAB's `imresize`, then 8 bits.

The LR frames behind every published number are made from whole frames by MATLAB's bicubic and stored in 8 bits
(the paper, Sec. 4.1, says only "bicubic"): Keys' kernel with a = -1/2 widened by the scale, a symmetric border,
double precision between the two passes, and one rounding, half up, at the end. torch's antialiased bicubic has the
same kernel but another border rule, so we pad symmetrically beforehand.

Arithmetic is float64 on the grid 0..255. The kernel's weights at the scales used here are dyadic fractions, so
every sum is exact, ties are rounded as MATLAB rounds them, and a crop read with its margin equals the same crop
of the whole frame bit for bit.
"""

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from stvsr.data.clip import PEAK, SCALE
from stvsr.errors import InvalidInput

KERNEL_RADIUS = 2
"""Half width of the cubic kernel, in pixels of the coarser grid."""

MARGIN = KERNEL_RADIUS * SCALE
"""HR pixels on each side of a crop that its LR pixels depend on."""


def symmetric_pad(frames: Tensor, margin: int) -> Tensor:
    """Mirrors the border, the edge pixel included, as MATLAB does: `(…, H, W)` to `(…, H+2m, W+2m)`."""
    for dim in (-2, -1):
        size = frames.shape[dim]
        position = torch.arange(-margin, size + margin, device=frames.device) % (2 * size)
        frames = frames.index_select(dim, torch.where(position < size, position, 2 * size - 1 - position))
    return frames


def bicubic(frames: Tensor, *, factor: float) -> Tensor:
    """MATLAB's `imresize(…, 'bicubic')`, without any rounding.

    Args:
        frames: `(…, c, H, W)`, floating point.
        factor: 4 enlarges four times, 1/4 reduces to a quarter; `H * factor` and `W * factor` are whole.

    Returns:
        `(…, c, H * factor, W * factor)`, of the same dtype; values may leave the input's range.
    """
    return _resize(frames, vertical=factor, horizontal=factor)


def _resize(frames: Tensor, *, vertical: float, horizontal: float) -> Tensor:
    """Like `bicubic`, with a factor for each direction: `(…, H, W)` to `(…, H * vertical, W * horizontal)`."""
    leading, (h, w) = frames.shape[:-2], frames.shape[-2:]
    # Wider than the kernel reaches, and a multiple of the scale, so that whole pixels are cut off again.
    margin = max(2 * KERNEL_RADIUS, round(2 * KERNEL_RADIUS / min(vertical, horizontal)))
    # On a CPU torch has this filter for float32 and float64 alone.
    exact = frames.to(torch.promote_types(frames.dtype, torch.float32))
    padded = symmetric_pad(exact.reshape(-1, 1, h, w), margin)
    size = [round(side * factor) for side, factor in zip(padded.shape[-2:], (vertical, horizontal), strict=True)]
    resized = F.interpolate(padded, size=size, mode="bicubic", antialias=True, align_corners=False)
    top, left = round(margin * vertical), round(margin * horizontal)
    out_h, out_w = round(h * vertical), round(w * horizontal)
    return resized[..., top : top + out_h, left : left + out_w].reshape(*leading, out_h, out_w).to(frames.dtype)


def downsample(frames: Tensor, scale: int = SCALE) -> Tensor:
    """HR frames to the LR frames of the field's benchmarks.

    Args:
        frames: `(…, 3, H, W)` in [0, 1], on the 8-bit grid; `H` and `W` are multiples of `scale`.
        scale: how many times smaller the LR frames are; the benchmarks' is 4.

    Returns:
        `(…, 3, H/scale, W/scale)` in [0, 1], rounded to 8 bit, of the input's dtype.

    Raises:
        InvalidInput: a side is not a multiple of `scale`, or frames are not floating point, or not in [0, 1].
    """
    _check_sides(frames, scale)
    if not frames.is_floating_point():
        raise InvalidInput(f"frames are {frames.dtype}; expected floating point in [0, 1], as to_float returns")
    if ((frames < -1 / PEAK) | (frames > 1 + 1 / PEAK)).any():
        known = frames[~frames.isnan()]
        raise InvalidInput(
            f"frame values are {known.min():g} to {known.max():g}; expected [0, 1]: divide 8-bit values by "
            f"{PEAK}, or clamp"
        )
    # A stored value divided by 255 in single precision is off by some 1e-6 grey levels, which would decide ties.
    grey_levels = bicubic((frames.double() * PEAK).round(), factor=1 / scale)
    return (_round_to_8bit(grey_levels) / PEAK).to(frames.dtype)


def downsample_crop(frames: Tensor, *, top: int, left: int, height: int, width: int) -> Tensor:
    """The LR frames of a crop of stored HR frames; only the crop and its margin are converted and degraded.

    Args:
        frames: `(…, 3, H, W)`, uint8.
        top: first row of the HR crop; like the other three a multiple of 4.
        left: first column of the HR crop.
        height: rows of the HR crop.
        width: columns of the HR crop.

    Returns:
        `(…, 3, height/4, width/4)`, float32 in [0, 1], equal bit for bit to that part of the whole frames'
        `downsample`.

    Raises:
        InvalidInput: frames are not uint8, the crop leaves them, or a side of the frames is not a multiple of 4 and
            the crop with its margin reaches its end.
    """
    if frames.dtype != torch.uint8:
        raise InvalidInput(f"frames are {frames.dtype}; expected uint8, as they are stored; others: downsample")
    if min(top, left) < 0 or top + height > frames.shape[-2] or left + width > frames.shape[-1]:
        raise InvalidInput(
            f"a crop of {width}x{height} at ({left}, {top}) leaves frames of {frames.shape[-1]}x{frames.shape[-2]}; "
            "choose a smaller one"
        )
    # At the frame's borders `_reduction_matrix` mirrors, as for whole frames.
    y0, x0 = max(top - MARGIN, 0), max(left - MARGIN, 0)
    part = frames[..., y0 : top + height + MARGIN, x0 : left + width + MARGIN].double()
    _check_sides(part, SCALE)
    y, x = (top - y0) // SCALE, (left - x0) // SCALE
    vertical = _reduction_matrix(part.shape[-2])[y : y + height // SCALE]
    horizontal = _reduction_matrix(part.shape[-1])[x : x + width // SCALE]
    return (_round_to_8bit(vertical @ part @ horizontal.t()) / PEAK).float()


def downsample_stored(frames: Tensor) -> Tensor:
    """`downsample` of stored HR frames `(…, 3, H, W)`, uint8: the same LR frames bit for bit, in float32, but quicker.

    Raises:
        InvalidInput: frames are not uint8, or a side is not a multiple of 4.
    """
    return downsample_crop(frames, top=0, left=0, height=frames.shape[-2], width=frames.shape[-1])


def _check_sides(frames: Tensor, scale: int) -> None:
    h, w = frames.shape[-2:]
    if h % scale or w % scale:
        raise InvalidInput(f"frames are {w}x{h}; expected sides that are multiples of {scale}: crop them first")


def _round_to_8bit(grey_levels: Tensor) -> Tensor:
    """Grey levels as a file stores them, half rounded up."""
    return (grey_levels.clamp(0, PEAK) + 0.5).floor()


# Crops need three lengths, a video two; the matrix for the width of Ultra HD takes 28 MiB.
@lru_cache(maxsize=8)
def _reduction_matrix(length: int) -> Tensor:
    """The `(length / 4, length)` matrix that reduces a side as `bicubic` does; up to Full HD faster than its filter."""
    # Reducing only the height of an identity matrix gives the weights: column i has those of pixel i.
    return _resize(torch.eye(length, dtype=torch.float64), vertical=1 / SCALE, horizontal=1).contiguous()
