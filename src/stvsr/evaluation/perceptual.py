"""Optional metrics, LPIPS and VMAF, from their usual packages.

`make install` brings both, or `pip install ".[perceptual]"` in the clone. Each takes frames that follow each other, and
the one of the truth before them, and gives a value for each:

- LPIPS (Zhang et al., CVPR 2018; AlexNet, version 0.1): smaller is better. Its backbone's weights come from the
  network, once.
- VMAF 0.6.1 (Netflix), by `vmaf-torch`, on Y of BT.601: 0 to 100. Its motion feature also looks at the next frame,
  which for the last one of a window is not known: that one may differ a little from a run over the whole clip.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stvsr.data.clip import PEAK, to_float
from stvsr.errors import InvalidInput
from stvsr.evaluation.metrics import luma

Metric = Callable[[Tensor, Tensor, Tensor], list[float]]
"""Prediction and truth, `(t, 3, H, W)`, and the truth's frame before, or none, uint8, to a value for each frame."""

BACKBONE = "alexnet-owt-7be5be79.pth"
"""The file with the weights of torchvision's AlexNet."""


def lpips(device: torch.device) -> Metric:
    """LPIPS.

    Raises:
        InvalidInput: the package or its backbone's weights are missing.
    """
    try:
        from lpips import LPIPS
    except ImportError:
        raise _not_installed("lpips", "lpips") from None
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    try:
        network: Any = LPIPS(net="alex", verbose=False).to(device)
    except Exception as error:
        # Whatever a download can fail with.
        raise InvalidInput(
            f"extras=[lpips]: the weights of AlexNet are not in {folder} and could not be downloaded ({error}); "
            f"put {BACKBONE} of torchvision there"
        ) from None

    def measure(prediction: Tensor, target: Tensor, before: Tensor) -> list[float]:
        values: Tensor = network(*(2 * to_float(frames) - 1 for frames in (prediction, target)))
        return values.flatten().tolist()

    return measure


def vmaf(device: torch.device) -> Metric:
    """VMAF.

    Raises:
        InvalidInput: the package is missing.
    """
    try:
        from vmaf_torch import VMAF
    except ImportError:
        raise _not_installed("vmaf", "vmaf-torch") from None
    model: Any = VMAF(clip_score=True).to(device)

    def measure(prediction: Tensor, target: Tensor, before: Tensor) -> list[float]:
        truth, distorted, earlier = (
            luma(frames.double() / PEAK).float().unsqueeze(1) for frames in (target, prediction, before)
        )
        # Its first frame has no motion, which costs it several points: only that of a clip has none.
        motion = model.compute_motion2(torch.cat([earlier, truth]))[len(earlier) :]
        detail, fidelity = model.compute_adm_score(truth, distorted), model.compute_vif_features(truth, distorted)
        values: Tensor = model.predict(detail, motion, fidelity)
        return values.flatten().tolist()

    return measure


def _not_installed(extra: str, package: str) -> InvalidInput:
    """One line on what to install."""
    return InvalidInput(
        f"extras=[{extra}]: the package {package} is not installed; run make install, or in the clone "
        'pip install ".[perceptual]"'
    )


EXTRAS: dict[str, Callable[[torch.device], Metric]] = {"lpips": lpips, "vmaf": vmaf}
"""What `extras` of the config may name."""
