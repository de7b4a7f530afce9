"""Optional metrics, LPIPS and VMAF, from their usual packages.

`make install` installs both, as does `pip install ".[perceptual]"` in the clone. Each takes consecutive frames, and the
true frame before them, and gives a value for each frame:

- LPIPS (Zhang et al., CVPR 2018; AlexNet, version 0.1): smaller is better. Its backbone's weights are downloaded once.
- VMAF 0.6.1 (Netflix), by `vmaf-torch`, on Y of BT.601: 0 to 100. Its motion feature also looks at the next frame,
  which is not known for the last one of a window: its value may differ a little from that of a run over the whole clip.
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
"""Maps prediction and truth, `(t, 3, H, W)`, and the true frame before them, `(1 or 0, 3, H, W)`, all uint8, to `t`
values."""

BACKBONE = "alexnet-owt-7be5be79.pth"
"""The file with the weights of torchvision's AlexNet."""


def lpips(device: torch.device) -> Metric:
    """The metric LPIPS.

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
        # A failed download may raise anything.
        raise InvalidInput(
            f"extras=[lpips]: the weights of AlexNet are not in {folder} and could not be downloaded ({error}); "
            f"put {BACKBONE} of torchvision there"
        ) from None

    def measure(prediction: Tensor, target: Tensor, before: Tensor) -> list[float]:
        values: Tensor = network(*(2 * to_float(frames) - 1 for frames in (prediction, target)))
        return values.flatten().tolist()

    return measure


def vmaf(device: torch.device) -> Metric:
    """The metric VMAF.

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
        # VMAF sees no motion in the first frame it is given, which costs several points: give it the one before.
        motion = model.compute_motion2(torch.cat([earlier, truth]))[len(earlier) :]
        detail, fidelity = model.compute_adm_score(truth, distorted), model.compute_vif_features(truth, distorted)
        values: Tensor = model.predict(detail, motion, fidelity)
        return values.flatten().tolist()

    return measure


def _not_installed(extra: str, package: str) -> InvalidInput:
    """The error that says what to install."""
    return InvalidInput(
        f"extras=[{extra}]: the package {package} is not installed; run make install, or in the clone "
        'pip install ".[perceptual]"'
    )


EXTRAS: dict[str, Callable[[torch.device], Metric]] = {"lpips": lpips, "vmaf": vmaf}
"""What `extras` of the config may name."""
