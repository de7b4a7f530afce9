"""Augmentation: horizontal flip and rotations by 90 degrees (paper Sec. 3.4), and time reversal (the authors' release).

One draw holds for all frames of a clip, LR and HR alike. Flips and quarter turns commute with the degradation,
whose kernel is symmetric, so augmenting LR and HR equals degrading the augmented HR bit for bit.
"""

import numpy as np
import torch
from torch import Tensor


def augment(lr: Tensor, hr: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Rotates, flips and reverses a clip, each drawn independently.

    Args:
        lr: `(n, 3, h, h)`, square, so that a quarter turn keeps the shape.
        hr: `(2n-1, 3, 4h, 4h)`.
        rng: source of randomness.

    Returns:
        LR and HR of the same shapes.
    """
    drawn = int(rng.integers(4)), rng.random() < 0.5, rng.random() < 0.5
    return transform(lr, *drawn), transform(hr, *drawn)


def transform(frames: Tensor, turns: int, flip: bool, reverse: bool) -> Tensor:
    """Rotates by quarter turns, flips horizontally, reverses time, in this order: `(t, 3, h, w)` or `(t, 3, w, h)`."""
    frames = torch.rot90(frames, turns, dims=(-2, -1))
    if flip:
        frames = frames.flip(-1)
    if reverse:
        # A clip has an odd number of frames, so the even ones, which are given, stay even.
        frames = frames.flip(0)
    return frames.contiguous()
