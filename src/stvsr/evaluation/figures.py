"""Pictures in the manner of the paper's Fig. 1 and 5: inputs, methods, truth, for a given and a synthesised frame."""

from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from stvsr.data.clip import Clip
from stvsr.evaluation.metrics import psnr_y
from stvsr.evaluation.shown import SHOWN
from stvsr.files import beside_then_rename
from stvsr.models.bicubic_blend import BicubicBlend
from stvsr.models.network import Network, run_padded

INCHES_PER_PANEL = 2.6


BASELINE = "bicubic + blending"
"""The first method in every picture, for comparison."""


def comparison_figure(*, lr: Tensor, predictions: dict[str, Tensor], target: Tensor, title: str) -> Figure:
    """A row for a given frame and one for a synthesised frame; a column for each method, bicubic + blending first.

    Args:
        lr: `(n, 3, h, w)`, the input, n at least 3.
        predictions: `(2n-1, 3, 4h, 4w)` each, by the method's name.
        target: `(2n-1, 3, 4h, 4w)`, the ground truth.
        title: above the picture.
    """
    predictions = {BASELINE: BicubicBlend()(lr[None])[0], **predictions}
    h, w = target.shape[-2:]
    columns = len(predictions) + 2
    width = INCHES_PER_PANEL * columns
    figure = Figure(figsize=(width, 2 * (width / columns * h / w + 0.45) + 0.4), dpi=150, layout="constrained")
    # A file name need not be valid UTF-8.
    figure.suptitle(title.encode(errors="replace").decode(), fontsize=9)
    axes = figure.subplots(2, columns, squeeze=False)
    for row, shown in zip(axes, SHOWN, strict=True):
        index = shown.position
        panels = {f"frame {index + 1} ({shown.kind})\n{shown.input_name}": shown.input(lr)}
        for name, frames in predictions.items():
            panels[f"{name}\n{psnr_y(frames[index], target[index]).item():.2f} dB"] = frames[index]
        panels["ground truth\n"] = target[index]
        for axis, (caption, frame) in zip(row, panels.items(), strict=True):
            # Nearest-neighbour interpolation shows the pixels as they are.
            axis.imshow(frame.detach().float().clamp(0, 1).permute(1, 2, 0).cpu().numpy(), interpolation="nearest")
            axis.set_title(caption, fontsize=8)
            axis.axis("off")
    return figure


def save_figure(figure: Figure, path: Path) -> None:
    """Writes a PNG; its folder is created."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with beside_then_rename(path) as beside:
        figure.savefig(beside, format="png")


def show_clip(networks: dict[str, Network], clip: Clip, path: Path) -> None:
    """Writes a picture that compares networks, by name, on a clip."""
    with torch.inference_mode():
        frames = {name: run_padded(network, clip.lr[None])[0] for name, network in networks.items()}
    save_figure(comparison_figure(lr=clip.lr, predictions=frames, target=clip.hr, title=clip.name), path)
