"""Validation scores per motion split, for training: whole clips of seven frames, all processes together."""

from itertools import compress

import torch
from torch import Tensor
from torchmetrics import Metric

from stvsr.data.clip import SPLITS
from stvsr.evaluation.metrics import frame_scores

HIGHEST = 60.0
"""dB; as if all pixels were off by a quarter of a grey level."""


class MotionSplitScores(Metric):
    """Mean PSNR and SSIM per motion split, reduced over processes.

    A clip's score is the mean over its frames, a split's the mean over its clips. A clip of a single colour does not
    count: whether a network makes that exactly or nearly would outweigh all other clips. For the same reason a frame's
    PSNR is capped at `HIGHEST`. Values that are not finite make means NaN, which is never the best. `compute` returns
    `psnr/slow`, `ssim/slow`, … for the splits that occurred, and `psnr/mean`, `ssim/mean`, in which each of these
    splits weighs the same.
    """

    full_state_update = False
    total: Tensor
    clips: Tensor

    def __init__(self) -> None:
        super().__init__()
        # For each split: sums of PSNR and SSIM, number of clips.
        self.add_state("total", torch.zeros(len(SPLITS), 2, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("clips", torch.zeros(len(SPLITS), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, prediction: Tensor, target: Tensor, motions: list[str]) -> None:
        """Adds a batch.

        Args:
            prediction: `(b, 2n-1, 3, H, W)`; clamped and rounded to 8 bit.
            target: the same shape, in [0, 1].
            motions: `b` motion splits.
        """
        scores = frame_scores(prediction, target, ["psnr_y", "ssim_y"])
        psnr = scores["psnr_y"].clamp(max=HIGHEST)
        clips = torch.stack([psnr.mean(dim=1), scores["ssim_y"].mean(dim=1)], dim=1)  # (b, 2)
        flat = (target == target[:, :1, :, :1, :1]).flatten(1).all(dim=1)
        for clip, motion in compress(zip(clips, motions, strict=True), (~flat).tolist()):
            self.total[SPLITS.index(motion)] += clip.to(self.total.device)
            self.clips[SPLITS.index(motion)] += 1

    def compute(self) -> dict[str, Tensor]:
        """Means by name; empty before the first clip."""
        occurred = self.clips > 0
        means = self.total[occurred] / self.clips[occurred, None]
        names = [split for split, present in zip(SPLITS, occurred.tolist(), strict=True) if present]
        result: dict[str, Tensor] = {}
        for column, metric in enumerate(("psnr", "ssim")):
            result |= {f"{metric}/{name}": means[row, column] for row, name in enumerate(names)}
            if names:
                result[f"{metric}/mean"] = means[:, column].mean()
        return result
