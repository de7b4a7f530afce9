"""Local separable convolution: every output pixel has its own filter, a column of weights times a row of weights.

The operator of Niklaus et al., "Video Frame Interpolation via Adaptive Separable Convolution" (ICCV 2017). Filters are
not flipped (correlation), and beyond the border the outermost pixels are repeated.

A filter of `k` taps a side reads `k * k` pixels, so all windows at once are far too large to keep. Here they exist for
one tile at a time, and in training the backward pass recomputes them. Inside a tile the row weights of a line of
pixels are written into a band matrix, so that one matrix product applies them to all rows and colours: about eight
times as fast on one core as adding up shifted frames, although half of the matrix is zero.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from stvsr.errors import InvalidInput
from stvsr.ops.recomputation import recomputed

TILE = (16, 64)
"""Rows and columns of a tile: with 51 taps and 3 colours 2 MB for each frame of a batch, in float32."""


def separable_convolution(frames: Tensor, vertical: Tensor, horizontal: Tensor) -> Tensor:
    """Filters each pixel with its own weights.

    `output[c, y, x] = sum over r, s of frames[c, y + r - k//2, x + s - k//2] * vertical[r, y, x] * horizontal[s, y, x]`

    Args:
        frames: `(b, c, h, w)`, float32 or float64; computed in this precision, under autocast too, because the sum is
            the picture itself.
        vertical: `(b, k, h, w)`, weights along y, `k` odd.
        horizontal: the same shape, along x.

    Returns:
        `(b, c, h, w)`.

    Raises:
        InvalidInput: shapes that do not belong together.
    """
    b, _, h, w = frames.shape
    taps = vertical.shape[1]
    if vertical.shape != horizontal.shape or vertical.shape != (b, taps, h, w) or taps % 2 == 0:
        raise InvalidInput(
            f"filters have shapes {tuple(vertical.shape)} and {tuple(horizontal.shape)}; expected ({b}, k, {h}, {w}) "
            "for both, with an odd k"
        )
    with torch.autocast(frames.device.type, enabled=False):
        padded = F.pad(frames, [taps // 2] * 4, mode="replicate")
        # Split, not sliced: the gradient of a slice is as large as what it was cut from.
        tiles = zip(_tiles(vertical.to(frames.dtype)), _tiles(horizontal.to(frames.dtype)), strict=True)
        strips = []
        for y, strip_tiles in enumerate(tiles):
            strip = []
            for x, (rows, columns) in enumerate(zip(*strip_tiles, strict=True)):
                top, left = y * TILE[0], x * TILE[1]
                height, width = (side + taps - 1 for side in rows.shape[-2:])
                window = padded[..., top : top + height, left : left + width]
                strip.append(recomputed(_filter_tile, window, rows, columns))
            strips.append(torch.cat(strip, dim=-1))
        return torch.cat(strips, dim=-2)


def _tiles(weights: Tensor) -> list[tuple[Tensor, ...]]:
    return [torch.split(line, TILE[1], dim=-1) for line in torch.split(weights, TILE[0], dim=-2)]


def _filter_tile(padded: Tensor, vertical: Tensor, horizontal: Tensor) -> Tensor:
    """`(b, c, h+k-1, w+k-1)` and weights `(b, k, h, w)` to `(b, c, h, w)`."""
    b, taps, h, w = vertical.shape
    windows = padded.unfold(2, taps, 1).permute(0, 2, 1, 4, 3).reshape(b * h, -1, w + taps - 1)  # (bh, ck, w+k-1)
    # Row x of the band matrix holds the weights of pixel x from column x on. Rows made one element too long,
    # concatenated and cut anew, are each shifted by one more.
    band = F.pad(horizontal.permute(0, 2, 3, 1), (0, w)).flatten(2)[..., :-w].reshape(b * h, w, w + taps - 1)
    filtered = torch.bmm(windows, band.transpose(1, 2)).view(b, h, -1, taps, w)
    return (filtered * vertical.transpose(1, 2).unsqueeze(2)).sum(dim=3).transpose(1, 2)
