"""Scores of clips, gathered per motion split (paper Sec. 4.1, Table 1).

A clip's score is the mean over its frames, given and synthesised alike; a split's is the plain mean over its
clips. A clip with infinite PSNR (all black and predicted so) is left out of the means and counted.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torchmetrics import Metric

from stvsr.data.clip import MOTION_SPLITS, UNSPLIT
from stvsr.evaluation.metrics import psnr_y, ssim_y

SPLITS = (*MOTION_SPLITS, UNSPLIT)


@dataclass(frozen=True)
class ClipScore:
    """Scores of one clip; PSNR in dB."""

    name: str
    motion: str
    frames: int
    psnr_y: float
    ssim_y: float
    psnr_y_given: float
    psnr_y_synthesised: float


def score_clips(prediction: Tensor, target: Tensor, names: list[str], motions: list[str]) -> list[ClipScore]:
    """Scores of a batch of clips.

    Args:
        prediction: `(b, 2n-1, 3, H, W)`; clamped and rounded to 8 bit.
        target: the same shape, in [0, 1].
        names: `b` clip names.
        motions: `b` motion splits.
    """
    psnr, ssim = psnr_y(prediction, target), ssim_y(prediction, target)  # (b, 2n-1)
    return [
        ClipScore(
            name=name,
            motion=motion,
            frames=psnr.shape[1],
            psnr_y=psnr[i].mean().item(),
            ssim_y=ssim[i].mean().item(),
            psnr_y_given=psnr[i, ::2].mean().item(),
            psnr_y_synthesised=psnr[i, 1::2].mean().item(),
        )
        for i, (name, motion) in enumerate(zip(names, motions, strict=True))
    ]


class MotionSplitScores(Metric):
    """Mean PSNR and SSIM per motion split, reduced over processes.

    `compute` gives `psnr/slow`, `ssim/slow`, … for the splits that occurred, and `psnr/mean`, `ssim/mean`, in which
    each of these splits weighs the same.
    """

    full_state_update = False
    total: Tensor
    clips: Tensor

    def __init__(self) -> None:
        super().__init__()
        # Sums of PSNR and SSIM, and clips that count, for each split.
        self.add_state("total", torch.zeros(len(SPLITS), 2, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("clips", torch.zeros(len(SPLITS), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, scores: list[ClipScore]) -> None:
        """Adds clips."""
        for score in scores:
            if score.psnr_y == float("inf"):
                continue
            split = SPLITS.index(score.motion)
            self.total[split] += torch.tensor(
                [score.psnr_y, score.ssim_y], dtype=torch.float64, device=self.total.device
            )
            self.clips[split] += 1

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
