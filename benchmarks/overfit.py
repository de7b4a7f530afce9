"""Does the small network learn? Overfits it on one 7-frame 128x128 crop and compares it with bicubic + blending.

`python benchmarks/overfit.py [VIDEO]`: a crop from the middle of a video, or without one a generated clip.
"""

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from torch import Tensor
from tqdm import trange

from stvsr.cli import one_line_errors
from stvsr.config import CONFIG_DIR
from stvsr.data.clip import FRAMES, to_float
from stvsr.data.decoding import read_frames
from stvsr.data.degradation import downsample_crop
from stvsr.data.synthetic import SyntheticScenes
from stvsr.data.videos import checked_index
from stvsr.evaluation.metrics import psnr_y
from stvsr.models.bicubic_blend import BicubicBlend
from stvsr.training.losses import charbonnier
from stvsr.training.schedule import cosine_restarts

SIDE = 128


def overfit(frames: Tensor, *, steps: int) -> Iterator[tuple[int, float, float]]:
    """Trains on one clip.

    Args:
        frames: `(7, 3, H, W)`, uint8; the middle 128x128 pixels are used.
        steps: optimizer steps, over which the learning rate falls along half a cosine.

    Yields:
        Every 100 steps and at the end: the step, the mean PSNR on Y of the network, and that of bicubic + blending.
    """
    torch.manual_seed(0)
    top, left = ((side - SIDE) // 8 * 4 for side in frames.shape[-2:])
    hr = to_float(frames[None, ..., top : top + SIDE, left : left + SIDE])
    lr = downsample_crop(frames[::2], top=top, left=left, height=SIDE, width=SIDE)[None]
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        network = instantiate(compose("train", ["experiment=full_bidir", "recipe=demo"]).model)
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3, betas=(0.9, 0.99))
    schedule = cosine_restarts(optimizer, period=steps, minimum=1e-5, warmup=20)
    bicubic = psnr_y(BicubicBlend()(lr), hr).mean().item()
    for step in trange(1, steps + 1, unit="step", file=sys.stderr):
        optimizer.zero_grad()
        prediction = network(lr)
        charbonnier(prediction, hr).backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 0 or step == steps:
            with torch.no_grad():
                yield step, psnr_y(network(lr), hr).mean().item(), bicubic


def main() -> None:
    """Prints a line every 100 steps."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("video", type=Path, nargs="?", help="a video of at least 7 frames and 128x128 pixels")
    parser.add_argument("--steps", type=int, default=800)
    arguments = parser.parse_args()
    with one_line_errors():
        if arguments.video:
            index = checked_index(arguments.video)
            frames = read_frames(index, min(len(index) // 2, len(index) - FRAMES), FRAMES)
        else:
            source = SyntheticScenes(clips=6, height=SIDE, width=SIDE, seed=5)
            frames = source.read(5, np.random.default_rng(0)).frames
        started = time.monotonic()
        for step, ours, bicubic in overfit(frames, steps=arguments.steps):
            minutes = (time.monotonic() - started) / 60
            print(f"step {step}: {ours:.2f} dB, bicubic + blending {bicubic:.2f} dB, {minutes:.1f} minutes", flush=True)


if __name__ == "__main__":
    main()
