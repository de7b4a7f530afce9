"""Packs a source's clips (`packed.py`) with several processes, so that it can be killed and resumed."""

import hashlib
import math
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from torch.utils.data import DataLoader, Dataset

from stvsr.data.clip_sets import NamedSource, read_fixed
from stvsr.data.packed import CLIPS, PackedClips, PackIndex, as_stored
from stvsr.data.workers import leave_signals_to_parent
from stvsr.errors import DamagedClip, InvalidInput, UserError
from stvsr.files import drop_from_memory, write_text
from stvsr.unfinished import Unfinished

T = TypeVar("T")

Shape = tuple[int, int, int, int]
"""Shape of a clip's frames, `(t, 3, H, W)`."""


MAX_DAMAGED_IN_A_ROW = 10
"""This many damaged clips in a row of the list end the packing: part of the data must be missing."""


@dataclass(frozen=True)
class Written:
    """One clip, or why it is not in the pack.

    Attributes:
        index: its number.
        checksum: CRC-32 of its bytes; None if it is damaged.
        problem: what is wrong with a damaged one.
    """

    index: int
    checksum: int | None
    problem: str = ""


class Packing(Unfinished):
    """The folder of an unfinished pack; `folder / "whole"` becomes the pack.

    Args:
        output: the pack to make; until it is whole, everything lies beside it.
        source: the clips.
        origin: what decides the clips' pixels, as plain values.

    Attributes:
        shape: of every clip, `(t, 3, H, W)`.
        clip_bytes: bytes of a clip.

    Raises:
        DamagedClip: none of the first clips can be read.
    """

    def __init__(self, output: Path, source: NamedSource, origin: dict[str, Any]) -> None:
        self.output = output
        self.source = source
        self.entries = [source.entry(index) for index in range(len(source))]
        height, width = frame_size(source)
        self.shape: Shape = (source.frames, 3, height, width)
        self.clip_bytes = math.prod(self.shape)
        clip_list = "".join(f"{name} {motion}\n" for name, motion in self.entries)
        identity = {
            "source": origin,
            "list": hashlib.sha256(clip_list.encode()).hexdigest(),
            "size": f"{width}x{height}",
        }
        folder = output.with_name(f".{output.name}.part")
        super().__init__(folder, identity, job="packing", elsewhere="choose another output")
        self.whole = folder / "whole"
        self.record = folder / "done.txt"

    def indexed(self, damaged: dict[int, str]) -> PackedClips:
        """Writes the index and opens the pack of the clips done; `damaged` says by number why others are not in it."""
        done = self.done()
        frames, _, height, width = self.shape
        index = PackIndex(
            frames=frames,
            height=height,
            width=width,
            entries=self.entries,
            checksums=[done.get(number) for number in range(len(self.entries))],
            damaged={self.entries[number][0]: problem for number, problem in damaged.items()},
        )
        index.write(self.whole)
        return PackedClips(self.whole)

    def done(self) -> dict[int, int]:
        """Checksums of the clips that are packed, by number."""
        # A kill at the very end may leave the record of a pack that was already moved to `output`.
        if not self.record.is_file() or not (self.whole / CLIPS).is_file():
            return {}
        lines = self.record.read_bytes().split(b"\n")[:-1]  # what follows the last line break was cut off
        # A power cut may leave arbitrary bytes.
        matches = filter(None, (re.fullmatch(rb"(\d+) (\d+)", line) for line in lines))
        return {int(match[1]): int(match[2]) for match in matches}

    def forget(self, indices: list[int]) -> None:
        """Removes clips from the record, to be packed again, and a last line that was cut off."""
        kept = self.done()
        for index in indices:
            del kept[index]
        write_text(self.record, "".join(f"{index} {checksum}\n" for index, checksum in kept.items()))

    def write(self, todo: list[int], workers: int) -> Iterator[Written]:
        """Packs clips in order, and records each before yielding it.

        Raises:
            InvalidInput: a clip is of another size.
            DamagedClip: so many clips in a row are damaged that something else must be wrong.
            UserError: the disk does not take a clip.
        """
        self.forget([])
        self.whole.mkdir(exist_ok=True)
        clips = self.whole / CLIPS
        with clips.open("ab") as file:
            file.truncate(len(self.source) * self.clip_bytes)
        writer = ClipWriter(self.source, clips, self.shape)
        damaged: set[int] = set()
        with self.record.open("a") as record:
            for written in in_processes(writer, todo, workers):
                if written.checksum is None:
                    damaged.add(written.index)
                    if damaged.issuperset(range(written.index - MAX_DAMAGED_IN_A_ROW + 1, written.index + 1)):
                        raise DamagedClip(f"{MAX_DAMAGED_IN_A_ROW} damaged clips in a row, the last: {written.problem}")
                else:
                    record.write(f"{written.index} {written.checksum}\n")
                    record.flush()
                yield written


class ClipWriter(Dataset[Written]):
    """Reads clip `index` of a source and writes it to its place in the file.

    Args:
        source: the clips.
        file: to write to; as long as all clips together.
        shape: of every clip.
    """

    def __init__(self, source: NamedSource, file: Path, shape: Shape) -> None:
        self.source = source
        self.file = file
        self.shape = shape

    def __getitem__(self, index: int) -> Written:
        try:
            footage = read_fixed(self.source, index)
        except DamagedClip as error:
            return Written(index, None, str(error))
        if tuple(footage.frames.shape) != self.shape:
            (frames, _, height, width), (t, _, h, w) = self.shape, footage.frames.shape
            raise InvalidInput(
                f"clip {footage.name}: {t} frames of {w}x{h}; expected {frames} of {width}x{height}, as the first clip "
                "has: replace the clip or remove it from the list"
            )
        stored = as_stored(footage.frames).numpy().data
        try:
            with self.file.open("r+b") as file:
                file.seek(index * stored.nbytes)
                file.write(stored)
        except OSError as error:
            raise UserError(
                f"{self.file}: {error.strerror}; what is packed is kept: run the same command again to continue"
            ) from None
        return Written(index, zlib.crc32(stored))


class ReadBack(Dataset[int | None]):
    """For each packed clip its number if its bytes do not match its checksum, else None."""

    def __init__(self, pack: PackedClips) -> None:
        self.pack = pack

    def __getitem__(self, index: int) -> int | None:
        return None if self.pack.checksum(index) == self.pack.index.checksums[index] else index


def read_back(pack: PackedClips, workers: int) -> Iterator[int | None]:
    """Reads every undamaged clip back from the disk: its number if it is not what was packed, else None."""
    drop_from_memory(pack.clips)
    whole = [index for index, checksum in enumerate(pack.index.checksums) if checksum is not None]
    yield from in_processes(ReadBack(pack), whole, workers)


def in_processes(work: Dataset[T], numbers: list[int], workers: int) -> Iterator[T]:
    """What `work` gives for each number, in order; 0 workers: computed in this process."""
    # A DataLoader takes care of the order, of exceptions and killed processes, and of ending the processes.
    yield from DataLoader(
        work, sampler=numbers, batch_size=None, num_workers=workers, worker_init_fn=leave_signals_to_parent
    )


def frame_size(source: NamedSource) -> tuple[int, int]:
    """Height and width of the first clip that can be read.

    Raises:
        DamagedClip: none of the first `MAX_DAMAGED_IN_A_ROW` clips can.
    """
    problem = ""
    tried = min(MAX_DAMAGED_IN_A_ROW, len(source))
    for index in range(tried):
        try:
            height, width = read_fixed(source, index).frames.shape[-2:]
        except DamagedClip as error:
            problem = str(error)
        else:
            return height, width
    raise DamagedClip(f"the first {tried} clips are damaged, the last: {problem}")
