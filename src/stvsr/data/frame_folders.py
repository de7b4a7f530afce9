"""Clips as folders of numbered PNG frames, the form of Vid4 and of most methods' outputs.

Every folder below the root that holds PNG files is a clip, named by its path; the root itself may be one. The frame's
number is the last number in its file name (`00000012.png`, `im3.png`, `calendar_007.png`); numbers must be
consecutive. All headers are read at the start, so that a wrong file is found before hours of work.

LR frames may be given in a second root with the same clips and numbers: all frames, or, for clips of an odd length,
only every other one (first, third, …). Without it they are made from HR.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

from stvsr.data.clip import SCALE
from stvsr.data.clip_sets import ClipInfo, Excerpt, RandomExcerpts
from stvsr.data.folders import searched
from stvsr.data.png import png_size, read_png
from stvsr.errors import DamagedClip, InvalidInput

OTHER_IMAGES = {".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".exr", ".ppm"}
"""Refused beside or instead of PNG files: they would be frames that are silently left out."""

HYDRA = ".hydra"
"""Marks the output_dir of a run of ours, which would pass for a clip without frames, or with those of the report."""


@dataclass(frozen=True)
class FrameFolder:
    """One folder of frames, all of one size.

    Attributes:
        path: the folder.
        frames: file by frame number, ascending.
        width: of every frame, pixels.
        height: of every frame, pixels.
    """

    path: Path
    frames: dict[int, Path]
    width: int
    height: int

    @classmethod
    def open(cls, path: Path) -> "FrameFolder":
        """Lists a folder and checks every header.

        Raises:
            InvalidInput: no frame, another kind of image, a file without a number, or two with the same number.
            DamagedClip: a frame is not an 8-bit RGB PNG, or of another size than the first.
        """
        frames: dict[int, Path] = {}
        for file in sorted(path.iterdir()):
            if file.name.startswith(".") or not file.is_file():
                continue
            if file.suffix.lower() in OTHER_IMAGES:
                raise InvalidInput(f"{file}: not a PNG; expected frames as 8-bit RGB PNG: convert or remove the file")
            if file.suffix.lower() != ".png":
                continue
            number = frame_number(file)
            if number in frames:
                raise InvalidInput(f"{file}: has the same number as {frames[number].name}; expected one file per frame")
            frames[number] = file
        if not frames:
            raise InvalidInput(f"{path}: no PNG frames in this clip folder; fill or remove it")
        frames = dict(sorted(frames.items()))
        sizes = {file: png_size(file) for file in frames.values()}
        (first, size), *others = sizes.items()
        for file, other in others:
            if other != size:
                raise DamagedClip(
                    f"{file}: {other[0]}x{other[1]}, but {first.name} is {size[0]}x{size[1]}; "
                    "expected one size within a clip: replace the frame"
                )
        return cls(path, frames, *size)

    def check_consecutive(self) -> None:
        """Refuses a folder with a gap.

        Raises:
            InvalidInput: names the first missing frame.
        """
        numbers = list(self.frames)
        for number, following in pairwise(numbers):
            if following != number + 1:
                raise InvalidInput(
                    f"{self.path}: frame {number + 1} is missing (after {self.frames[number].name} comes "
                    f"{self.frames[following].name}); expected consecutive numbers: complete the clip"
                )

    def read(self, numbers: list[int]) -> Tensor:
        """Frames by number: `(t, 3, H, W)`, uint8."""
        return torch.stack([read_png(self.frames[number]) for number in numbers])


def frame_number(file: Path) -> int:
    """The last number in a file's name.

    Raises:
        InvalidInput: there is none.
    """
    numbers = re.findall(r"\d+", file.stem)
    if not numbers:
        raise InvalidInput(f"{file}: no number in the file name; expected names such as 00000001.png: rename the file")
    return int(numbers[-1])


def clip_folders(root: Path) -> dict[str, Path]:
    """The clip folders, by clip name: `root` or below, those that hold images or have no subfolders.

    Args:
        root: where to search.

    Raises:
        InvalidInput: no such folder, none of its folders holds a PNG file, or a run writes into one.
    """
    if not root.is_dir():
        raise InvalidInput(f"{root}: no such folder; expected a folder of clip folders with PNG frames")
    clips: dict[str, Path] = {}
    any_png = False
    for path, folders, names in searched(root, {".png", *OTHER_IMAGES}):
        has_png = any(name.lower().endswith(".png") for name in names)
        any_png |= has_png
        if (path / HYDRA).is_dir():
            raise InvalidInput(
                f"{path}: the output_dir of a run; expected one outside {root}: choose another, and move this one, or, "
                f"if it holds clips, remove {path / HYDRA} and the run's .log"
            )
        # A folder that is empty, or has images of another kind, counts as a clip, so that opening it refuses it.
        if has_png or (path != root and (names or not folders)):
            clip = root.resolve().name if path == root else path.relative_to(root).as_posix()
            if clip in clips:
                raise InvalidInput(f"{root}: two clips are named {clip}; rename one")
            clips[clip] = path
    if not any_png:
        raise InvalidInput(f"{root}: no PNG frames there; expected a folder of clip folders with PNG frames")
    return clips


class FrameFolders:
    """Every clip folder of a root, with or without given LR frames.

    Args:
        root: HR frames.
        lr_root: LR frames, a quarter as wide and high, or None.
        name: of the set, in tables; None takes the folder's.
        frames: the clips that must be there, each with its number of frames; None accepts any.

    Raises:
        InvalidInput: no clips, HR and LR frames that do not match, or clips or frames other than the required ones.
        DamagedClip: a frame is not an 8-bit RGB PNG of its clip's size.
    """

    def __init__(
        self,
        *,
        root: str | Path,
        lr_root: str | Path | None = None,
        name: str | None = None,
        frames: Mapping[str, int] | None = None,
    ) -> None:
        self.name = name or Path(root).resolve().name
        folders = clip_folders(Path(root))
        self.clips = {clip: FrameFolder.open(path) for clip, path in folders.items()}
        found = {clip: len(folder.frames) for clip, folder in self.clips.items()}
        if frames is not None and found != frames:
            raise InvalidInput(
                f"{root}: holds {_clip_counts(found)}; {self.name} is {_clip_counts(frames)}: "
                "choose a folder of only these clips, or data=clips for others"
            )
        for folder in self.clips.values():
            folder.check_consecutive()
        self.names = list(self.clips)
        self.lr: dict[str, FrameFolder] | None = None
        if lr_root is not None:
            lr_folders = clip_folders(Path(lr_root))
            if [*folders.values(), *lr_folders.values()] == [Path(root), Path(lr_root)]:
                # Each root is itself the only clip, which is named after the HR folder.
                lr_folders = dict(zip(folders, lr_folders.values(), strict=True))
            lr = {clip: FrameFolder.open(path) for clip, path in lr_folders.items()}
            if set(lr) != set(self.clips):
                first, *others = sorted(set(lr) ^ set(self.clips))
                unmatched = f"{first} and {len(others)} more are" if others else f"{first} is"
                raise InvalidInput(
                    f"{lr_root}: {len(lr)} clips, {root} has {len(self.clips)}; expected the same clips, but "
                    f"{unmatched} in only one of the two"
                )
            for clip, hr in self.clips.items():
                check_lr(clip, hr, lr[clip])
            self.lr = lr

    def __len__(self) -> int:
        return len(self.names)

    def describe(self, index: int) -> ClipInfo:
        """The clip as listed; its motion is never known."""
        folder = self.clips[self.names[index]]
        return ClipInfo(self.name, self.names[index], len(folder.frames), min(folder.frames), None)

    def excerpt(self, index: int, first: int, count: int) -> Excerpt:
        """Reads the files.

        Raises:
            DamagedClip: a file is damaged or gone.
        """
        clip, numbers = self._name_and_numbers(index, first, count)
        lr = None if self.lr is None else self.lr[clip].read(numbers[::2])
        return Excerpt(hr=self.clips[clip].read(numbers), lr=lr)

    def files(self, index: int, first: int, count: int) -> list[Path]:
        """The HR frames, and the LR frames if they are given."""
        clip, numbers = self._name_and_numbers(index, first, count)
        lr = [] if self.lr is None else [self.lr[clip].frames[number] for number in numbers[::2]]
        return [*(self.clips[clip].frames[number] for number in numbers), *lr]

    def _name_and_numbers(self, index: int, first: int, count: int) -> tuple[str, list[int]]:
        """A clip's name, and the numbers of some of its frames."""
        clip = self.names[index]
        return clip, list(self.clips[clip].frames)[first : first + count]


def _clip_counts(frames: Mapping[str, int]) -> str:
    """Clips and their frame counts in words; of many, the first few."""
    shown = [f"{clip} ({count} frames)" for clip, count in sorted(frames.items())]
    return ", ".join(shown[:4] + (["…"] if len(shown) > 4 else []))


def training_excerpts(*, root: str | Path, lr_root: str | Path | None) -> RandomExcerpts:
    """The clips of a folder, to train on; LR frames are made from HR.

    Raises:
        InvalidInput: LR frames are given, which training would ignore.
    """
    if lr_root is not None:
        raise InvalidInput(
            f"data.lr_root={lr_root}: given LR frames are for scoring; training makes its own: set it to null"
        )
    return RandomExcerpts(clips=FrameFolders(root=root))


def check_lr(clip: str, hr: FrameFolder, lr: FrameFolder) -> None:
    """Refuses LR frames that do not belong to the HR frames.

    Raises:
        InvalidInput: the numbers or sizes do not match.
    """
    size, expected = (lr.width, lr.height), (hr.width // SCALE, hr.height // SCALE)
    if size != expected:
        raise InvalidInput(
            f"clip {clip}: LR frames are {size[0]}x{size[1]}, HR {hr.width}x{hr.height}; expected LR "
            f"{expected[0]}x{expected[1]}, a quarter (an incomplete last row or column is cut off)"
        )
    hr_numbers, lr_numbers = list(hr.frames), list(lr.frames)
    every_other = hr_numbers[::2] if len(hr_numbers) % 2 else hr_numbers
    if lr_numbers not in (hr_numbers, every_other):
        mismatched = sorted(set(lr_numbers) ^ set(hr_numbers if len(lr_numbers) > len(every_other) else every_other))
        raise InvalidInput(
            f"clip {clip}: {len(lr_numbers)} LR frames for {len(hr_numbers)} HR frames; expected the same numbers "
            f"({hr_numbers[0]} to {hr_numbers[-1]}), or every other one of an odd count; check frame {mismatched[0]}"
        )
