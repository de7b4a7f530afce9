"""What bfloat16 costs a network's frames: PSNR in float32 and under autocast, on the same windows.

`python benchmarks/precision.py CHECKPOINT VIDEOS [--side 256] [--device cuda]`: takes one window of each video file of
a folder, at a random but fixed place, and of it a square in the middle. Prints PSNR (Y, dB) of the seven frames in
float32, how much it changes in bfloat16, and how well the two outputs agree (PSNR of one against the other, RGB, before
rounding to 8 bits).
"""

import argparse
from pathlib import Path

import torch
from interpolation import square
from tqdm import tqdm

from stvsr.checkpoint import load_network
from stvsr.cli import one_line_errors
from stvsr.data.clip import SCALE
from stvsr.data.datasets import ValidationClips
from stvsr.data.degradation import downsample
from stvsr.data.videos import VideoFolder
from stvsr.devices import chosen_device
from stvsr.evaluation.metrics import psnr_y
from stvsr.models.network import Network


@torch.inference_mode()
def compared(network: Network, hr: torch.Tensor) -> list[float]:
    """The figures of a row for a clip `(7, 3, H, W)` in [0, 1]."""
    lr = downsample(hr[None, ::2])
    exact = network(lr)[0]
    with torch.autocast(lr.device.type, dtype=torch.bfloat16):
        rounded = network(lr)[0].float()
    in_float32, in_bf16 = (psnr_y(frames, hr).mean().item() for frames in (exact, rounded))
    return [in_float32, in_bf16 - in_float32, -10 * (exact - rounded).square().mean().log10().item()]


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", help="of any variant, or starter")
    parser.add_argument("videos", type=Path, help="a folder of video files")
    parser.add_argument("--side", type=int, default=256, help="HR pixels of the square that is kept of each")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda (default: a GPU if there is one)")
    options = parser.parse_args()
    with one_line_errors():
        device = chosen_device(options.device)
        network = load_network(options.checkpoint).to(device)
        multiple = SCALE * network.requirements.multiple_of
        clips = ValidationClips(source=VideoFolder(root=options.videos, clips_per_video=1))
        rows = []
        print(f"{'clip':<28}{'float32':>10}{'bf16':>10}{'agree':>10}")
        for clip in tqdm(clips, unit="clip"):
            rows.append(compared(network, square(clip.hr, options.side, multiple).to(device)))
            tqdm.write(f"{clip.name:<28}{rows[-1][0]:>10.2f}{rows[-1][1]:>+10.4f}{rows[-1][2]:>10.1f}")
        mean = torch.tensor(rows).mean(dim=0).tolist()
        print(f"{'mean':<28}{mean[0]:>10.2f}{mean[1]:>+10.4f}{mean[2]:>10.1f}")


if __name__ == "__main__":
    main()
