"""Vimeo-90K septuplets, read from the folder exactly as downloaded, without any preparation.

The archive holds `sequences/00001/0001/im1.png … im7.png` and two lists, `sep_trainlist.txt` and
`sep_testlist.txt`. The paper trains on the first and scores the second in three parts by motion (Sec. 4.1). Lists of
these parts ship with the package, already without the eight all-black clips that give infinite PSNR.
"""

from importlib.resources import files
from pathlib import Path

import numpy as np
import torch

from stvsr.config import check_int
from stvsr.data.clip import FRAMES, MOTION_SPLITS, UNSPLIT, Footage
from stvsr.data.packed import PackedClips
from stvsr.data.png import read_png
from stvsr.errors import DamagedClip, InvalidInput


class Vimeo90K:
    """Clips of a list, read from `sequences/`.

    Args:
        root: the unpacked archive.
        entries: clip names such as `00001/0266`, each with its motion split.

    Raises:
        InvalidInput: no such folder, an entry that is not `folder/clip`, or a clip that is not there.
    """

    first_number = 1
    frames = FRAMES

    def __init__(self, *, root: str | Path, entries: list[tuple[str, str]]) -> None:
        self.sequences = Path(root) / "sequences"
        self.entries = entries
        if not self.sequences.is_dir():
            raise InvalidInput(
                f"{root}: no folder 'sequences' there; expected the Vimeo-90K septuplet folder as downloaded"
            )
        if not entries:
            raise InvalidInput(f"{root}: the clip list is empty; expected lines such as 00001/0266")
        # One listing per folder: checking each of 64,612 clips takes minutes on a network disk.
        clips = [folder_and_clip(name) for name, _ in entries]
        present = {folder: _names_in(self.sequences / folder) for folder in {folder for folder, _ in clips}}
        missing = [f"{folder}/{clip}" for folder, clip in clips if clip not in present[folder]]
        if missing:
            raise InvalidInput(
                f"{root}: {len(missing)} of {len(entries)} listed clips are missing, the first is "
                f"sequences/{missing[0]}; download them, or remove them from sep_trainlist.txt if it lists them"
            )

    def __len__(self) -> int:
        return len(self.entries)

    def entry(self, index: int) -> tuple[str, str]:
        """Name and motion split of clip `index`."""
        return self.entries[index]

    def files(self, index: int) -> list[Path]:
        """The seven frames of clip `index`."""
        return [self.sequences / self.entries[index][0] / f"im{number}.png" for number in range(1, FRAMES + 1)]

    def read(self, index: int, rng: np.random.Generator) -> Footage:
        """Reads the seven frames of clip `index`; ignores `rng`.

        Raises:
            DamagedClip: a frame is missing, damaged, not 8-bit RGB, or of another size than the first.
        """
        name, motion = self.entries[index]
        frames = [read_png(file) for file in self.files(index)]
        for number, frame in enumerate(frames, start=1):
            if frame.shape != frames[0].shape:
                (_, h, w), (_, h1, w1) = frame.shape, frames[0].shape
                raise DamagedClip(
                    f"clip {name}: im{number}.png is {w}x{h}, im1.png {w1}x{h1}; expected one size: replace the clip"
                )
        return Footage(frames=torch.stack(frames), name=name, motion=motion)


def training_clips(*, root: str | Path) -> Vimeo90K:
    """The clips of `sep_trainlist.txt`, 64,612 in the complete archive.

    Args:
        root: the unpacked archive.

    Raises:
        InvalidInput: as `Vimeo90K`, or the list is missing or not text.
    """
    return Vimeo90K(root=root, entries=_training_list(root))


def packed_training_clips(*, root: str | Path, pack: str | Path) -> PackedClips:
    """The training clips, from the pack that `python -m stvsr.pack` made of them; only the archive's list is read.

    Args:
        root: the unpacked archive.
        pack: the folder of the pack.

    Raises:
        InvalidInput: no such pack, one that is cut off, or one of another list.
    """
    clips = PackedClips(pack)
    clips.check_entries(_training_list(root))
    return clips


def scoring_clips(*, root: str | Path, clips_per_split: int | None = None) -> Vimeo90K:
    """The paper's three motion splits of the test list: 1613 slow, 4977 medium, 1225 fast clips.

    Args:
        root: the unpacked archive.
        clips_per_split: this many clips of each split, evenly spaced over its list; None takes all.

    Raises:
        InvalidInput: as `Vimeo90K`, or `clips_per_split` is below 1.
    """
    if clips_per_split is not None:
        check_int("clips_per_split", clips_per_split, least=1)
    entries = []
    for motion in MOTION_SPLITS:
        names = motion_list(motion)
        count = min(clips_per_split or len(names), len(names))
        entries += [(names[i * len(names) // count], motion) for i in range(count)]
    return Vimeo90K(root=root, entries=entries)


def motion_list(motion: str) -> list[str]:
    """Names of the test clips of one motion split, in the order of the list."""
    return (files("stvsr.data") / "splits" / f"vimeo90k_test_{motion}.txt").read_text().split()


def folder_and_clip(name: str) -> tuple[str, str]:
    """The two parts of a list entry.

    Raises:
        InvalidInput: it is not `folder/clip`; this includes paths that lead out of the data folder.
    """
    parts = name.split("/")
    if len(parts) != 2 or not all(part.isalnum() for part in parts):
        raise InvalidInput(f"clip list entry {name!r}: expected folder/clip, such as 00001/0266; correct the list")
    return parts[0], parts[1]


def _training_list(root: str | Path) -> list[tuple[str, str]]:
    path = Path(root) / "sep_trainlist.txt"
    if not path.is_file():
        raise InvalidInput(f"{root}: no sep_trainlist.txt there; expected the Vimeo-90K folder as downloaded")
    try:
        return [(name, UNSPLIT) for name in path.read_text(encoding="utf-8").split()]
    except UnicodeDecodeError:
        raise InvalidInput(f"{path}: not UTF-8 text; expected the list as downloaded") from None


def _names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()
