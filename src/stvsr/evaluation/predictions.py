"""Frames that another program saved, scored like a network's output, which makes other people's results comparable.

The layout is that of the ground truth: a folder for each clip, PNG frames with the same numbers. `save_frames=true`
writes it.
"""

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from stvsr.data.clip import SCALE
from stvsr.data.clip_sets import ClipInfo
from stvsr.data.frame_folders import FrameFolder
from stvsr.data.png import write_png
from stvsr.errors import DamagedClip, InvalidInput


class SavedFrames:
    """The saved frames of every clip of a plan.

    Args:
        root: the folder of all of them.
        needed: each clip, its folder below the root, and the numbers of the frames that count.

    Raises:
        InvalidInput: a clip or a frame is missing, or there is one too many.
        DamagedClip: a file is not an 8-bit RGB PNG of its clip's size.
    """

    def __init__(self, *, root: str | Path, needed: Iterable[tuple[ClipInfo, str, list[int]]]) -> None:
        self.root = Path(root)
        if not self.root.is_dir():
            raise InvalidInput(f"predictions={root}: no such folder; expected a folder of PNG frames for each clip")
        numbers: dict[ClipInfo, set[int]] = {}
        paths: dict[ClipInfo, Path] = {}
        for clip, subfolder, frame_numbers in needed:
            numbers.setdefault(clip, set()).update(frame_numbers)
            paths[clip] = self.root / subfolder
        missing = [clip.name for clip, path in paths.items() if not path.is_dir()]
        if missing:
            raise InvalidInput(
                f"predictions={root}: {len(missing)} of {len(paths)} clips have no folder, the first is {missing[0]}; "
                "expected predictions for every clip: add them, or score a data set of the others"
            )
        self.folders = {clip: FrameFolder.open(path) for clip, path in paths.items()}
        for clip, folder in self.folders.items():
            check_numbers(clip, folder, numbers[clip])

    def read(self, clip: ClipInfo, numbers: list[int], size: tuple[int, int]) -> Tensor:
        """Frames by number: `(t, 3, H, W)`, uint8.

        Args:
            clip: one of the plan.
            numbers: of the frames.
            size: width and height of the ground truth; predictions may lack its incomplete last row and column.

        Raises:
            DamagedClip: another size, or a file is damaged.
        """
        folder = self.folders[clip]
        whole = (size[0] // SCALE * SCALE, size[1] // SCALE * SCALE)
        if (folder.width, folder.height) not in (size, whole):
            raise DamagedClip(
                f"{folder.path}: frames are {folder.width}x{folder.height}, the ground truth {size[0]}x{size[1]}; "
                "expected the same size: save the predictions again"
            )
        return folder.read(numbers)

    def files(self, clip: ClipInfo, numbers: list[int]) -> list[Path]:
        """The files of a clip's frames, by frame number."""
        return [self.folders[clip].frames[number] for number in numbers]


def check_numbers(clip: ClipInfo, folder: FrameFolder, needed: set[int]) -> None:
    """Refuses a folder that lacks a frame that counts, or has one that the clip lacks.

    Raises:
        InvalidInput: names the first such frame.
    """
    last = clip.first_number + clip.frames - 1
    if missing := sorted(needed - set(folder.frames)):
        raise InvalidInput(
            f"{folder.path}: frame {missing[0]} is missing ({len(missing)} of {len(needed)} that count); expected the "
            f"numbers of the ground truth, {clip.first_number} to {last}: complete or renumber the frames"
        )
    if extra := [number for number in folder.frames if not clip.first_number <= number <= last]:
        raise InvalidInput(
            f"{folder.path}: frame {extra[0]} is not in the ground truth ({len(extra)} such frame(s)); expected "
            f"numbers {clip.first_number} to {last}: remove or renumber the frames"
        )


def saved_files(folder: Path, numbers: list[int]) -> list[Path]:
    """Where `save_frames` writes frames."""
    return [folder / f"{number:08d}.png" for number in numbers]


def save_frames(folder: Path, numbers: list[int], frames: Tensor) -> None:
    """Writes frames `(t, 3, H, W)`, uint8, as `00000001.png`, …"""
    folder.mkdir(parents=True, exist_ok=True)
    for file, frame in zip(saved_files(folder, numbers), torch.unbind(frames), strict=True):
        write_png(file, frame)
