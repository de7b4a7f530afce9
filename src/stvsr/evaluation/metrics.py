"""PSNR and SSIM as this field publishes them: on Y, of 8-bit frames, nothing cropped.

Y is BT.601 luma in studio range, `16 + 65.481 R + 128.553 G + 24.966 B`. The prediction is clamped and rounded to
8 bit first, because that is what a saved frame holds. SSIM is Wang et al.'s: an 11x11 Gaussian window of sigma 1.5
over the valid area, K1 = 0.01, K2 = 0.03, L = 255; kornia's agrees with it, torchmetrics' does not (it pads).
Arithmetic is float64.
"""

import torch
from kornia.metrics import ssim
from torch import Tensor

from stvsr.errors import InvalidInput

PEAK = 255.0
SSIM_WINDOW = 11
LUMA = (65.481, 128.553, 24.966)
LUMA_OFFSET = 16.0


def psnr_y(prediction: Tensor, target: Tensor) -> Tensor:
    """Peak signal-to-noise ratio on Y, frame by frame.

    Args:
        prediction: `(…, 3, H, W)` RGB; values are clamped to [0, 1] and rounded to 8 bit.
        target: `(…, 3, H, W)` RGB in [0, 1], on the 8-bit grid.

    Returns:
        `(…)`, float64, in dB; infinite where the two are equal.

    Raises:
        InvalidInput: the shapes differ or are not those of RGB frames.
    """
    prediction, target = _luma_pair(prediction, target)
    mse = (prediction - target).square().mean(dim=(-2, -1))
    return 10 * torch.log10(PEAK**2 / mse)


def ssim_y(prediction: Tensor, target: Tensor) -> Tensor:
    """Structural similarity on Y, frame by frame; arguments as `psnr_y`.

    Returns:
        `(…)`, float64, at most 1.

    Raises:
        InvalidInput: as `psnr_y`, or a side is shorter than the 11 pixels of the window.
    """
    prediction, target = _luma_pair(prediction, target)
    leading, (h, w) = prediction.shape[:-2], prediction.shape[-2:]
    if min(h, w) < SSIM_WINDOW:
        raise InvalidInput(f"frames are {w}x{h}; SSIM needs at least {SSIM_WINDOW}x{SSIM_WINDOW}")
    images = (frames.reshape(-1, 1, h, w) for frames in (prediction, target))
    values: Tensor = ssim(*images, window_size=SSIM_WINDOW, max_val=PEAK, eps=0.0, padding="valid")
    return values.mean(dim=(-3, -2, -1)).reshape(leading)


def _luma_pair(prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Y of the rounded prediction and of the target, each `(…, H, W)`, float64, on the scale 0..255."""
    if prediction.shape != target.shape or prediction.ndim < 3 or prediction.shape[-3] != 3:
        raise InvalidInput(
            f"prediction {tuple(prediction.shape)} and target {tuple(target.shape)}: expected the same (…, 3, H, W)"
        )
    rounded = (prediction.double().clamp(0, 1) * PEAK).round() / PEAK
    # A float32 target lies within 1e-8 of the 8-bit grid; float64 puts it exactly there.
    return luma(rounded), luma((target.double() * PEAK).round() / PEAK)


def luma(frames: Tensor) -> Tensor:
    """BT.601 luma in studio range: RGB `(…, 3, H, W)` in [0, 1] to `(…, H, W)` in [16, 235]."""
    weights = torch.tensor(LUMA, dtype=frames.dtype, device=frames.device).view(3, 1, 1)
    return LUMA_OFFSET + (frames * weights).sum(dim=-3)
