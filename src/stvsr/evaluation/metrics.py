"""PSNR and SSIM as this field publishes them: on Y, of 8-bit frames, nothing cropped.

Y is BT.601 luma in studio range, `16 + 65.481 R + 128.553 G + 24.966 B`. The prediction is clamped and rounded to
8 bit first, because that is what a saved frame holds. SSIM is Wang et al.'s: an 11x11 Gaussian window of sigma 1.5
over the valid area, K1 = 0.01, K2 = 0.03, L = 255. PSNR on RGB is of the three channels together.

Arithmetic is float64, as the variances of SSIM are small differences of large numbers. The Gaussian is separable
and applied as sums of shifted images: on a CPU thirty times as fast as a convolution in float64. SSIM is not that of
torchmetrics, which also averages over a border padded by reflection.
"""

from collections.abc import Sequence
from math import exp

import torch
from torch import Tensor

from stvsr.data.clip import PEAK, to_8bit
from stvsr.errors import InvalidInput

SSIM_WINDOW = 11
SSIM_SIGMA = 1.5
SSIM_C1 = (0.01 * PEAK) ** 2
SSIM_C2 = (0.03 * PEAK) ** 2
LUMA = (65.481, 128.553, 24.966)
LUMA_OFFSET = 16.0

AT_ONCE = 2**22
"""Pixels that a GPU scores at a time; at least one frame."""

BAND = 128
"""Rows of a frame that a CPU scores at a time: allocating whole Full HD frames at each step takes longer."""


def psnr_y(prediction: Tensor, target: Tensor) -> Tensor:
    """Peak signal-to-noise ratio on Y, frame by frame.

    Args:
        prediction: `(…, 3, H, W)` RGB, uint8, or floating point that is clamped to [0, 1] and rounded to 8 bit.
        target: `(…, 3, H, W)` RGB, uint8, or floating point in [0, 1] on the 8-bit grid.

    Returns:
        `(…)`, float64, in dB; infinite where the two are equal, NaN where a value of either is not finite.

    Raises:
        InvalidInput: the shapes differ or are not those of RGB frames, or a type or the target's range is wrong.
    """
    return frame_scores(prediction, target, ["psnr_y"])["psnr_y"]


def ssim_y(prediction: Tensor, target: Tensor) -> Tensor:
    """Structural similarity on Y, frame by frame; arguments as `psnr_y`.

    Returns:
        `(…)`, float64, at most 1; NaN where a value of either is not finite.

    Raises:
        InvalidInput: as `psnr_y`, or a side is shorter than the 11 pixels of the window.
    """
    return frame_scores(prediction, target, ["ssim_y"])["ssim_y"]


METRICS = ("psnr_y", "ssim_y", "psnr_rgb")


def frame_scores(prediction: Tensor, target: Tensor, metrics: Sequence[str] = METRICS) -> dict[str, Tensor]:
    """Several metrics at once, which share the rounding and Y.

    Args:
        prediction: as `psnr_y`.
        target: as `psnr_y`.
        metrics: some of `METRICS`; all where not given.

    Returns:
        `(…)`, float64, by the metric's name.

    Raises:
        InvalidInput: as `psnr_y` and `ssim_y`, or there is no such metric.
    """
    _check_frames(prediction, target, metrics)
    leading, (h, w) = prediction.shape[:-3], prediction.shape[-2:]
    scores: dict[str, list[Tensor]] = {name: [] for name in metrics}
    images = [frames.reshape(-1, 3, h, w) for frames in (prediction, target)]
    # A CPU is fast on what fits its cache, a GPU on what is large: one Full HD frame takes some 300 MiB.
    at_once, band = (1, BAND) if prediction.device.type == "cpu" else (max(1, AT_ONCE // (h * w)), h)
    for frames, truth in zip(*(torch.split(image, at_once) for image in images), strict=True):
        stored = [to_8bit(image) for image in (frames, truth)]
        # The windows of SSIM that begin in a band reach into the next one.
        bands = [[image[..., top : top + band + SSIM_WINDOW - 1, :] for image in stored] for top in range(0, h, band)]
        by_row = [_by_row(*both, rows=band, metrics=metrics) for both in bands]
        # On unrounded frames, as rounding turns what is not finite into some colour.
        finite = (_sum(frames) + _sum(truth)).isfinite()
        for name, values in scores.items():
            # A mean of row means: the last bits of a sum over both sides would depend on the number of threads.
            mean = torch.cat([rows[name] for rows in by_row if name in rows], dim=-1).mean(dim=-1)
            if name == "psnr_rgb":
                mean = mean.mean(dim=-1) * PEAK**2
            values.append((mean if name == "ssim_y" else 10 * torch.log10(PEAK**2 / mean)).where(finite, torch.nan))
    return {name: torch.cat(values).reshape(leading) for name, values in scores.items()}


def _check_frames(prediction: Tensor, target: Tensor, metrics: Sequence[str]) -> None:
    """Refuses what `frame_scores` cannot score, with `InvalidInput`."""
    if not set(metrics) <= set(METRICS):
        raise InvalidInput(f"metrics={metrics}; expected some of {', '.join(METRICS)}")
    if not (isinstance(prediction, Tensor) and isinstance(target, Tensor)):
        kinds = " and ".join(type(frames).__name__ for frames in (prediction, target))
        raise InvalidInput(f"prediction and target are of {kinds}; expected torch.Tensor: use torch.from_numpy")
    if prediction.shape != target.shape or prediction.ndim < 3 or prediction.shape[-3] != 3:
        raise InvalidInput(
            f"prediction {tuple(prediction.shape)} and target {tuple(target.shape)}: expected the same (…, 3, H, W)"
        )
    if any(not (frames.dtype == torch.uint8 or frames.is_floating_point()) for frames in (prediction, target)):
        raise InvalidInput(
            f"prediction {prediction.dtype} and target {target.dtype}: expected uint8, or floating point in [0, 1]"
        )
    # Only the target's range is checked: a prediction may leave it, and is clamped.
    if target.is_floating_point():
        outside = (target < -1 / PEAK) | (target > 1 + 1 / PEAK)
        if (outside & target.isfinite()).any():
            finite = target[target.isfinite()]
            raise InvalidInput(
                f"target values are {finite.min():g} to {finite.max():g}; expected [0, 1]: divide 8-bit values by "
                f"{PEAK}, or give uint8"
            )
    h, w = prediction.shape[-2:]
    if "ssim_y" in metrics and min(h, w) < SSIM_WINDOW:
        raise InvalidInput(f"frames are {w}x{h}; SSIM needs at least {SSIM_WINDOW}x{SSIM_WINDOW}")


def _by_row(prediction: Tensor, target: Tensor, *, rows: int, metrics: Sequence[str]) -> dict[str, Tensor]:
    """The mean over each row of what metrics average: squared errors, or the SSIM of the windows that begin there.

    Args:
        prediction: `(n, 3, H, W)`, uint8.
        target: the same shape.
        rows: how many count; SSIM windows reach into those below.
        metrics: some of `METRICS`.

    Returns:
        `(n, rows)`, for `psnr_rgb` `(n, 3, rows)`, float64, by the metric's name. At the bottom of a frame there are
        fewer rows, and possibly no SSIM.
    """
    rgb = [image.double() / PEAK for image in (prediction, target)]
    y = [luma(image) for image in rgb]
    values = {}
    if "psnr_y" in metrics:
        values["psnr_y"] = (y[0] - y[1])[..., :rows, :].square()
    if "ssim_y" in metrics and y[0].shape[-2] >= SSIM_WINDOW:
        values["ssim_y"] = _ssim(y[0], y[1])
    if "psnr_rgb" in metrics:
        values["psnr_rgb"] = (rgb[0] - rgb[1])[..., :rows, :].square()
    return {name: value.mean(dim=-1) for name, value in values.items()}


def luma(frames: Tensor) -> Tensor:
    """BT.601 luma in studio range: RGB `(…, 3, H, W)` in [0, 1] to `(…, H, W)` in [16, 235]."""
    weights = torch.tensor(LUMA, dtype=frames.dtype, device=frames.device).view(3, 1, 1)
    return LUMA_OFFSET + (frames * weights).sum(dim=-3)


def _ssim(a: Tensor, b: Tensor) -> Tensor:
    """SSIM of images `(n, H, W)`, float64, on the scale 0..255, for each window: `(n, H-10, W-10)`."""
    mean_a, mean_b = _gaussian(a), _gaussian(b)
    variance_a = _gaussian(a * a) - mean_a.square()
    variance_b = _gaussian(b * b) - mean_b.square()
    covariance = _gaussian(a * b) - mean_a * mean_b
    similar = (2 * mean_a * mean_b + SSIM_C1) * (2 * covariance + SSIM_C2)
    different = (mean_a.square() + mean_b.square() + SSIM_C1) * (variance_a + variance_b + SSIM_C2)
    return similar / different


def _sum(images: Tensor) -> Tensor:
    """Sum over colours, height and width, `(…, 3, H, W)` to `(…)`, float64."""
    return images.sum(dim=(-3, -2, -1), dtype=torch.float64)


def _gaussian_taps() -> list[float]:
    centre = SSIM_WINDOW // 2
    taps = [exp(-((position - centre) ** 2) / (2 * SSIM_SIGMA**2)) for position in range(SSIM_WINDOW)]
    return [tap / sum(taps) for tap in taps]


GAUSSIAN = _gaussian_taps()


def _gaussian(image: Tensor) -> Tensor:
    """The window's weighted mean over the valid area: `(n, H, W)` to `(n, H-10, W-10)`."""
    for dim in (-2, -1):
        size = image.shape[dim] - SSIM_WINDOW + 1
        blurred = image.narrow(dim, 0, size) * GAUSSIAN[0]
        for shift, tap in enumerate(GAUSSIAN[1:], start=1):
            blurred.add_(image.narrow(dim, shift, size), alpha=tap)
        image = blurred
    return image
