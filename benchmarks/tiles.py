"""What tiles cost and what they change: tiled against whole frames, for several margins.

`python benchmarks/tiles.py CHECKPOINT VIDEO [--picture FILE]`: upscales four frames of a video whole and in 2x2 tiles.
Prints a row for each margin: PSNR between the two, the error where one tile fades into the next and that elsewhere,
how many values differ, by how much at most, and the work relative to whole frames. The picture shows the difference,
amplified 64 times.
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor

from stvsr.checkpoint import load_network
from stvsr.cli import one_line_errors
from stvsr.data.clip import GIVEN, PEAK, SCALE
from stvsr.data.decoding import index_video, read_frames
from stvsr.data.png import write_png
from stvsr.models.network import InputRequirements
from stvsr.video import tiles
from stvsr.video.tiles import Grid
from stvsr.video.upscaling import Upscaler
from stvsr.video.windows import windows

GRID = Grid(2, 2)


def seam_mask(lr: Tensor, requirements: InputRequirements) -> Tensor:
    """`(H, W)`: True where one tile fades into another."""
    height, width = requirements.padded_size(*lr.shape[-2:])
    mask = torch.zeros(SCALE * height, SCALE * width, dtype=torch.bool)
    for dim, spans in enumerate(GRID.spans(height, width, multiple=requirements.multiple_of)):
        for span in spans:
            if span.shared:
                # One tile fades into the other over the middle half of what they share.
                mask.narrow(dim, SCALE * span.start + SCALE * span.shared // 4, SCALE * span.shared // 2)[:] = True
    return mask[: SCALE * lr.shape[-2], : SCALE * lr.shape[-1]]


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("video", type=Path)
    parser.add_argument("--margins", type=int, nargs="+", default=[8, 16, 24, 32, 48])
    parser.add_argument("--picture", type=Path, help="PNG of the difference at the margin that is used")
    arguments = parser.parse_args()
    with one_line_errors():
        network = load_network(arguments.checkpoint)
        index = index_video(arguments.video)
        frames = read_frames(index, min(len(index) // 2, len(index) - GIVEN), GIVEN)
        (window,) = windows((frame, False) for frame in frames)
        whole = Upscaler(network)(window).float()
        requirements = network.requirements
        mask = seam_mask(frames, requirements)
        height, width = requirements.padded_size(*frames.shape[-2:])
        used = tiles.MARGIN
        print(f"{arguments.video.name}: {frames.shape[-1]}x{frames.shape[-2]} in 2x2 tiles")
        print(f"{'margin':>6}{'PSNR dB':>9}{'seam MSE':>10}{'other MSE':>11}{'differing':>11}{'largest':>9}{'work':>7}")
        for margin in arguments.margins:
            tiles.MARGIN = margin
            difference = Upscaler(network, grid=GRID)(window).float() - whole
            squared = difference.square().mean(dim=(0, 1))
            psnr = 10 * torch.log10(PEAK**2 / squared.mean()).item()
            work = GRID.computed(height, width, multiple=requirements.multiple_of) / (height * width)
            print(
                f"{margin:>6}{psnr:>9.2f}{squared[mask].mean().item():>10.5f}{squared[~mask].mean().item():>11.5f}"
                f"{(difference != 0).float().mean().item():>10.3%}{difference.abs().max().item():>9.0f}{work:>7.2f}"
            )
            if margin == used and arguments.picture is not None:
                write_png(arguments.picture, (64 * difference[1].abs()).clamp(0, PEAK).to(torch.uint8))


if __name__ == "__main__":
    main()
