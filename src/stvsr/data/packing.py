"""Makes a pack of a source's clips (`packed.py`), from several processes, so that it can be killed and go on."""

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
"""Of a clip's frames, `(t, 3, H, W)`."""


MAX_DAMAGED_IN_A_ROW = 10
"""This many damaged clips after each other in the list end a packing: a part of the data is not there."""


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
    """The folder of a pack that is not finished; `folder / "whole"` becomes the pack.

    Args:
        output: the pack that is made; everything lies beside it until then.
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
        listed = "".join(f"{name} {motion}\n" for name, motion in self.entries)
        identity = {
            "source": origin,
            "list": hashlib.sha256(listed.encode()).hexdigest(),
            "size": f"{width}x{height}",
        }
        folder = output.with_name(f".{output.name}.part")
        super().__init__(folder, identity, job="packing", elsewhere="choose another output")
        self.whole = folder / "whole"
        self.record = folder / "done.txt"

    def indexed(self, damaged: dict[int, str]) -> PackedClips:
        """The pack of the clips that are done, with its index; `damaged` says by number why others are not in it."""
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
        # A kill may leave the record of a pack that is finished, and no longer there.
        if not self.record.is_file() or not (self.whole / CLIPS).is_file():
            return {}
        lines = self.record.read_bytes().split(b"\n")[:-1]  # what follows the last line break was cut off
        # A power cut may leave anything.
        found = filter(None, (re.fullmatch(rb"(\d+) (\d+)", line) for line in lines))
        return {int(match[1]): int(match[2]) for match in found}

    def forget(self, indices: list[int]) -> None:
        """Takes clips off the record, to be packed again, and a line that was cut off."""
        kept = self.done()
        for index in indices:
            del kept[index]
        write_text(self.record, "".join(f"{index} {checksum}\n" for index, checksum in kept.items()))

    def write(self, todo: list[int], workers: int) -> Iterator[Written]:
        """Packs clips and keeps a record of each before it is given, in order.

        Raises:
            InvalidInput: a clip is of another size.
            DamagedClip: so many clips in a row are damaged that something else must be wrong.
            UserError: the disk does not take it.
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
        file: as long as all clips together.
        shape: which every clip must have.
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
                f"clip {footage.name}: {t} frames of {w}x{h}; expected {frames} of {width}x{height}, as the first one "
                "has: replace the clip or take it off the list"
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
    """The number of a packed clip whose bytes are not those of its checksum; None where they are."""

    def __init__(self, pack: PackedClips) -> None:
        self.pack = pack

    def __getitem__(self, index: int) -> int | None:
        return None if self.pack.checksum(index) == self.pack.index.checksums[index] else index


def read_back(pack: PackedClips, workers: int) -> Iterator[int | None]:
    """Reads every clip of a pack from the disk: its number if it is not what was packed, else None."""
    drop_from_memory(pack.clips)
    whole = [index for index, checksum in enumerate(pack.index.checksums) if checksum is not None]
    yield from in_processes(ReadBack(pack), whole, workers)


def in_processes(work: Dataset[T], numbers: list[int], workers: int) -> Iterator[T]:
    """What `work` gives for each number, in order; 0 workers is this process."""
    # A loader does it all: order, what a process raises, a process that is killed, and the end of the processes.
    yield from DataLoader(
        work, sampler=numbers, batch_size=None, num_workers=workers, worker_init_fn=leave_signals_to_parent
    )


def frame_size(source: NamedSource) -> tuple[int, int]:
    """Height and width of the first clip that can be read.

    Raises:
        DamagedClip: none of the first `MAX_DAMAGED_IN_A_ROW` can be.
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
