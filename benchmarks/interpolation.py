"""What limits synthesised frames: the interpolation of features, or the rest of a network.

`python benchmarks/interpolation.py CHECKPOINT VIDEOS [--side 256]`: takes one window of each video file of a folder, at
a random but fixed place, and of it a square in the middle. Prints PSNR (RGB, dB) of the given frames, and of the
synthesised ones three times: as the network makes them; with the mean of both neighbours' features in place of the
interpolated ones; and with the features of the true LR frames, which a real input lacks. So the second is what
interpolation must beat, and the third what it could reach. Then, in LR pixels, how far things move from a missing frame
to its neighbours (optical flow), and how far the mean offsets of the finest level are from that. Last, how sharp given
and synthesised frames are: the standard deviation of the Laplacian of luma, divided by that of the true frames. Where
the two differ, a video of both flickers.
"""

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from stvsr.checkpoint import load_network
from stvsr.cli import one_line_errors
from stvsr.data.clip import SCALE
from stvsr.data.datasets import ValidationClips
from stvsr.data.degradation import downsample
from stvsr.data.videos import VideoFolder
from stvsr.errors import InvalidInput
from stvsr.evaluation.metrics import frame_scores, luma
from stvsr.models.interpolation import neighbours
from stvsr.models.zooming_slow_mo import ZoomingSlowMo
from stvsr.training.offset_guidance import flow_from_missing

COLUMNS = ("given", "synthesised", "mean feat.", "true feat.", "motion", "offsets off", "sharp given", "sharp synth.")


def square(frames: Tensor, side: int, multiple: int) -> Tensor:
    """The middle of frames, at most `side` wide and high, in multiples of `multiple`.

    Raises:
        InvalidInput: a side is shorter than `multiple`.
    """
    for dim in (-2, -1):
        kept = min(side, frames.shape[dim]) // multiple * multiple
        if not kept:
            raise InvalidInput(f"a side of {min(side, frames.shape[dim])}; expected {multiple} pixels or more")
        frames = frames.narrow(dim, (frames.shape[dim] - kept) // 2, kept)
    return frames


def sharpness(frames: Tensor) -> Tensor:
    """Standard deviation of the Laplacian of luma, `(n,)`, for frames `(n, 3, H, W)`."""
    grey = luma(frames.clamp(0, 1))[:, None]
    laplacian = torch.tensor([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]])[None, None]
    return F.conv2d(grey, laplacian).flatten(1).std(dim=1)


def limits(network: ZoomingSlowMo, hr: Tensor) -> list[float]:
    """The figures of a row for a clip `(7, 3, H, W)` in [0, 1]."""
    lr, missing = downsample(hr[None, ::2]), downsample(hr[None, 1::2])
    given, true = network.extract(lr), network.extract(missing)
    made = network.interpolation(given)
    results = []
    for between in (made[1::2], (given[:-1] + given[1:]) / 2, true):
        features = made.clone()
        features[1::2] = between
        results.append(torch.cat([network.reconstruction(frame) for frame in network.propagation(features)]))
    scores = [frame_scores(frames, hr, ["psnr_rgb"])["psnr_rgb"] for frames in results]
    sharp = sharpness(results[0]) / sharpness(hr)
    fusion = network.interpolation.fusion
    offsets = fusion.offsets(*neighbours(given, fusion))
    flow = flow_from_missing(hr[None])
    mean = torch.stack([torch.unflatten(levels.level1, 1, (-1, 2)).mean(dim=1) for levels in offsets])
    return [
        scores[0][::2].mean().item(),
        *(score[1::2].mean().item() for score in scores),
        flow.norm(dim=2).mean().item(),
        (mean - flow).norm(dim=2).mean().item(),
        sharp[::2].mean().item(),
        sharp[1::2].mean().item(),
    ]


@torch.no_grad()
def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", help="variant (b) to (e)")
    parser.add_argument("videos", type=Path)
    parser.add_argument("--side", type=int, default=256, help="HR pixels")
    arguments = parser.parse_args()
    with one_line_errors():
        network = load_network(arguments.checkpoint)
        clips = ValidationClips(source=VideoFolder(root=arguments.videos, clips_per_video=1))
        print(f"{'clip':<24}" + "".join(f"{column:>13}" for column in COLUMNS))
        rows = []
        for clip in tqdm(clips, leave=False):
            hr = square(clip.hr, arguments.side, SCALE * network.requirements.multiple_of)
            rows.append(limits(network, hr))
            tqdm.write(f"{clip.name[:23]:<24}" + "".join(f"{value:>13.2f}" for value in rows[-1]))
        print(f"{'mean':<24}" + "".join(f"{value:>13.2f}" for value in torch.tensor(rows).mean(0)))


if __name__ == "__main__":
    main()
