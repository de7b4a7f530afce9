"""Augmentation: horizontal flip and rotations by 90 degrees (paper Sec. 3.4), and time reversal (the authors' release).

One draw holds for all frames of a clip, LR and HR alike. Flips and quarter turns commute with the degradation,
whose kernel is symmetric, so augmenting LR and HR equals degrading the augmented HR bit for bit.
"""

import numpy as np
import torch
from torch import Tensor


def augment(lr: Tensor, hr: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Flips, turns and reverses a clip, each with its own chance.

    Args:
        lr: `(n, 3, h, h)`, square, so that a quarter turn keeps the shape.
        hr: `(2n-1, 3, 4h, 4h)`.
        rng: decides.

    Returns:
        LR and HR of the same shapes.
    """
    drawn = int(rng.integers(4)), rng.random() < 0.5, rng.random() < 0.5
    return transform(lr, *drawn), transform(hr, *drawn)


def transform(frames: Tensor, turns: int, flip: bool, reverse: bool) -> Tensor:
    """`turns` quarter turns, then a horizontal flip, then time reversal: `(t, 3, h, w)` to the same or turned shape."""
    frames = torch.rot90(frames, turns, dims=(-2, -1))
    if flip:
        frames = frames.flip(-1)
    if reverse:
        # The given frames are the even ones, and stay so: a clip has an odd number of frames.
        frames = frames.flip(0)
    return frames.contiguous()
