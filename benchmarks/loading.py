"""What it costs to load training clips, from PNG files and from a pack: `python benchmarks/loading.py [ROOT]`.

ROOT is a folder laid out as Vimeo-90K; the first `--clips` clips of its training list are used. Without it, generated
clips of 448x256 are written to a temporary folder. Prints milliseconds of each step for one clip, and clips/s of one
loader process with one thread. "from the disk": after the file was dropped from the page cache.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm, trange

from stvsr.cli import one_line_errors
from stvsr.data.augmentation import augment
from stvsr.data.clip import SCALE, Batch, Clip, Source, to_float
from stvsr.data.datasets import TrainingClips
from stvsr.data.degradation import MARGIN, downsample_crop
from stvsr.data.packed import CLIPS, PackedClips
from stvsr.data.packing import Packing
from stvsr.data.png import write_png
from stvsr.data.synthetic import SyntheticScenes
from stvsr.data.vimeo90k import Vimeo90K, training_clips
from stvsr.files import drop_from_memory

T = TypeVar("T")

CROP, BATCH, GOAL = 32, 24, 600
"""LR pixels and clips of the paper's batches; clips/s that a GPU needs at 25 steps/s."""


def write_archive(root: Path, clips: int) -> None:
    """Writes generated clips, laid out as Vimeo-90K."""
    scenes = SyntheticScenes(clips=clips, height=256, width=448, seed=0)
    names = [f"00001/{number:04d}" for number in range(1, clips + 1)]
    for index in trange(clips, desc="generating", unit="clip", file=sys.stderr):
        folder = root / "sequences" / names[index]
        folder.mkdir(parents=True)
        for number, frame in enumerate(scenes.read(index, np.random.default_rng(0)).frames, start=1):
            write_png(folder / f"im{number}.png", frame)
    (root / "sep_trainlist.txt").write_text("\n".join(names) + "\n")


def make_pack(source: Vimeo90K, output: Path) -> PackedClips:
    """A pack of all clips of a source."""
    packing = Packing(output, source, {})
    todo = list(range(len(source)))
    with packing.locked():
        for _ in tqdm(packing.write(todo, workers=2), total=len(todo), desc="packing", unit="clip", file=sys.stderr):
            pass
        return packing.indexed({})


def steps(source: Source) -> dict[str, float]:
    """Milliseconds of each step for one clip, as `TrainingClips` makes it; median over the clips."""
    times: dict[str, list[float]] = defaultdict(list)
    clips: list[Clip] = []
    side = SCALE * CROP

    def timed(name: str, work: Callable[[], T], share: int = 1) -> T:
        started = time.perf_counter()
        result = work()
        times[name].append((time.perf_counter() - started) * 1e3 / share)
        return result

    for index in range(len(source)):
        rng = np.random.default_rng(index)

        def read(index: int = index, rng: np.random.Generator = rng) -> tuple[Tensor, int, int]:
            footage = source.read(index, rng)
            h, w = footage.frames.shape[-2:]
            top, left = (SCALE * int(rng.integers((size - side) // SCALE + 1)) for size in (h, w))
            y0, x0 = max(top - MARGIN, 0), max(left - MARGIN, 0)
            footage.prefetch_rows(y0, min(top + side + MARGIN, h))
            part = footage.frames[..., y0 : top + side + MARGIN, x0 : left + side + MARGIN]
            return part.contiguous(), top - y0, left - x0

        part, y, x = timed("read and crop", read)
        lr = timed("LR frames", partial(downsample_crop, part[::2], top=y, left=x, height=side, width=side))
        hr = timed("to float", partial(to_float, part[..., y : y + side, x : x + side]))
        lr, hr = timed("augmentation", partial(augment, lr, hr, rng))
        clips.append(Clip(lr=lr, hr=hr, name="", motion="all"))
        if len(clips) == BATCH:
            timed("collation", partial(Batch.collate, clips), BATCH)
            clips = []
    return {name: statistics.median(values) for name, values in times.items()}


def rate(source: Source, draws: int) -> float:
    """Clips/s of a loader process, collation included."""
    clips = TrainingClips(source=source, crop=CROP, draws=draws, seed=0)
    started = time.perf_counter()
    for first in range(0, draws, BATCH):
        Batch.collate([clips[draw] for draw in range(first, first + BATCH)])
    return draws / (time.perf_counter() - started)


def main() -> None:
    """Prints two tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", type=Path, nargs="?", help="a folder of Vimeo-90K's form")
    parser.add_argument("--clips", type=int, default=96, help=f"a multiple of {BATCH}")
    arguments = parser.parse_args()
    with one_line_errors(), tempfile.TemporaryDirectory() as temporary:
        root = arguments.root or Path(temporary)
        if arguments.root is None:
            write_archive(root, arguments.clips)
        png = training_clips(root=root)
        png.entries = png.entries[: arguments.clips]
        packed = make_pack(png, Path(temporary) / "pack")
        draws = len(png) // BATCH * BATCH
        # As in a loader process.
        torch.set_num_threads(1)
        compare(png, packed, draws)


def compare(png: Source, packed: PackedClips, draws: int) -> None:
    """The tables."""
    of_png, of_pack = steps(png), steps(packed)
    print(f"{'milliseconds a clip':<22}{'PNG':>8}{'packed':>8}")
    for name, value in of_png.items():
        print(f"{name:<22}{value:8.2f}{of_pack[name]:8.2f}")
    print(f"{'all':<22}{sum(of_png.values()):8.2f}{sum(of_pack.values()):8.2f}\n")
    print(f"{'one loader process':<22}{'clips/s':>8}{f'processes for {GOAL}':>20}")
    for name, source in {"PNG": png, "packed": packed, "packed, from the disk": packed}.items():
        if "disk" in name:
            drop_from_memory(packed.folder / CLIPS)
        clips = rate(source, draws)
        print(f"{name:<22}{clips:8.0f}{GOAL / clips:20.1f}")


if __name__ == "__main__":
    main()
