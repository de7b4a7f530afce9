"""Clips of one size in one uncompressed file, so that a crop is read without decoding and without the rest.

A pack is a folder of two files:

    clips.u8    one clip after the other, each `(H, t, 3, W)`, uint8
    index.json  layout, frames (t), height (H), width (W);
                clips: a list of [name, motion split, CRC-32 of the clip's bytes]; damaged: {name: why}

Rows come first: the rows of a crop, of all frames and colours, are contiguous in the file, so a disk reads them in one
go. A clip that could not be read when the pack was made keeps its place (a hole in the file, no checksum), so that
training draws the same clips as from the files that were packed.
"""

import json
import mmap
import zlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from stvsr.data.clip import Footage
from stvsr.errors import DamagedClip, InvalidInput, UserError
from stvsr.files import write_text

CLIPS, INDEX = "clips.u8", "index.json"

LAYOUT = "H,t,3,W uint8"
"""Name of the order of a clip's bytes; another layout would have another name."""


@dataclass(frozen=True)
class PackIndex:
    """What a pack holds.

    Attributes:
        frames: how many each clip has.
        height: of each frame, pixels.
        width: of each frame, pixels.
        entries: name and motion split of each clip, in order.
        checksums: CRC-32 of each clip's bytes; None for a damaged one.
        damaged: why a clip is not in the pack, by its name.
    """

    frames: int
    height: int
    width: int
    entries: list[tuple[str, str]]
    checksums: list[int | None]
    damaged: dict[str, str]

    @property
    def clip_bytes(self) -> int:
        """Bytes of a clip."""
        return self.frames * 3 * self.height * self.width

    def write(self, folder: Path) -> None:
        """Writes `index.json`."""
        clips = [[*entry, checksum] for entry, checksum in zip(self.entries, self.checksums, strict=True)]
        sizes = {"frames": self.frames, "height": self.height, "width": self.width}
        write_text(folder / INDEX, json.dumps({"layout": LAYOUT, **sizes, "clips": clips, "damaged": self.damaged}))

    @classmethod
    def read(cls, folder: Path) -> "PackIndex":
        """Reads `index.json`.

        Raises:
            InvalidInput: there is none, or it is not the index of a pack.
        """
        path = folder / INDEX
        if not path.is_file():
            raise InvalidInput(
                f"{folder}: no {INDEX} there; expected a pack made by python -m stvsr.pack: choose another"
            )
        try:
            values = json.loads(path.read_text())
            layout, clips = values.pop("layout"), values.pop("clips")
            entries, checksums = [(name, motion) for name, motion, _ in clips], [checksum for *_, checksum in clips]
            index = cls(entries=entries, checksums=checksums, **values)
        except (ValueError, KeyError, TypeError, AttributeError):
            raise InvalidInput(f"{path}: not the index of a pack; remove the pack and create it again") from None
        if layout != LAYOUT:
            raise InvalidInput(f"{path}: layout {layout!r}; expected {LAYOUT!r}: remove the pack and create it again")
        return index


class PackedClips:
    """The clips of a pack as a source; frames are memory-mapped, so that only what is used of them is read.

    Args:
        pack: the folder.

    Raises:
        InvalidInput: no pack there, or one that is cut off.
    """

    def __init__(self, pack: str | Path) -> None:
        self.folder = Path(pack)
        self.index = PackIndex.read(self.folder)
        self.clips = self.folder / CLIPS
        expected = len(self) * self.index.clip_bytes
        found = self.clips.stat().st_size if self.clips.is_file() else 0
        if found != expected:
            raise InvalidInput(
                f"{self.clips}: {found} bytes; expected {expected} for {len(self)} clips: copy or create the pack again"
            )

    def __len__(self) -> int:
        return len(self.index.entries)

    def read(self, index: int, rng: np.random.Generator) -> Footage:
        """The frames of clip `index`; ignores `rng`.

        They are mapped copy-on-write: writing to them does not change the pack.

        Raises:
            DamagedClip: it was damaged when the pack was made, or the pack can no longer be read.
        """
        name, motion = self.index.entries[index]
        if name in self.index.damaged:
            raise DamagedClip(
                f"clip {name} was left out of {self.folder}: {self.index.damaged[name]}, and create the pack again"
            )
        pack_index, size = self.index, self.index.clip_bytes
        # A map must begin at a page boundary.
        lead = index * size % mmap.ALLOCATIONGRANULARITY
        try:
            with self.clips.open("rb") as file:
                mapped = mmap.mmap(file.fileno(), lead + size, access=mmap.ACCESS_COPY, offset=index * size - lead)
        except (OSError, ValueError) as error:
            raise DamagedClip(f"{self.clips}: clip {name} cannot be read ({error}); check the pack") from None
        stored = torch.frombuffer(mapped, dtype=torch.uint8, count=size, offset=lead)
        frames = stored.view(pack_index.height, pack_index.frames, 3, pack_index.width).permute(1, 2, 0, 3)
        return Footage(frames, name, motion, partial(_prefetch, mapped, lead, size // pack_index.height))

    def check_entries(self, entries: list[tuple[str, str]]) -> None:
        """Refuses a pack of other clips than those of a list, or in another order.

        Raises:
            InvalidInput: names the first difference.
        """
        found = self.index.entries
        if found != entries:
            pairs = enumerate(zip(found, entries, strict=False), start=1)
            first = next(
                (
                    f"; clip {number} is {packed[0]}, not {listed[0]}"
                    for number, (packed, listed) in pairs
                    if packed != listed
                ),
                "",
            )
            raise InvalidInput(
                f"{self.folder}: packed from a different clip list ({len(found)} clips, expected {len(entries)}{first})"
                "; choose another pack, or create one from this list"
            )

    def checksum(self, index: int) -> int:
        """CRC-32 of clip `index` as it lies on the disk.

        Raises:
            UserError: it cannot be read.
        """
        try:
            with self.clips.open("rb") as file:
                file.seek(index * self.index.clip_bytes)
                return zlib.crc32(file.read(self.index.clip_bytes))
        except OSError as error:
            raise UserError(f"{self.clips}: {error.strerror}; check the disk, and run the command again") from None


def as_stored(frames: Tensor) -> Tensor:
    """Frames `(t, 3, H, W)` as the file has them: `(H, t, 3, W)`."""
    return frames.permute(2, 0, 1, 3).contiguous()


def _prefetch(mapped: mmap.mmap, lead: int, row_bytes: int, first: int, end: int) -> None:
    start = lead + first * row_bytes
    start -= start % mmap.PAGESIZE
    # Without read-ahead at each missing page, which takes megabytes on some disks: all that is needed is requested
    # here, in one go.
    mapped.madvise(mmap.MADV_RANDOM)
    mapped.madvise(mmap.MADV_WILLNEED, start, lead + end * row_bytes - start)
