"""Packs training clips for fast reading: `python -m stvsr.pack data=vimeo90k data.root=DIR output=/data/vimeo.pack`.

Training then reads crops from the pack: `data=vimeo90k_packed data.root=DIR data.pack=/data/vimeo.pack`. If stopped or
killed, it resumes when the same command is run again; if the pack is finished, that command verifies every clip.
"""

import shutil
from pathlib import Path

from hydra.utils import instantiate
from omegaconf import DictConfig
from tqdm import tqdm

from stvsr.cli import entry_point
from stvsr.config import check_int, resolved, with_absolute_roots
from stvsr.data.clip_sets import NamedSource
from stvsr.data.packed import PackedClips
from stvsr.data.packing import Packing, read_back
from stvsr.errors import Interrupted, InvalidInput, UserError
from stvsr.terminal import BAR, TERMINAL

GIGABYTE = 1e9


def pack(config: DictConfig) -> PackedClips:
    """Packs the training clips of a config's data, or verifies an existing pack of them.

    Args:
        config: composed from `conf/pack.yaml`.

    Returns:
        The pack.

    Raises:
        UserError: the data, the disk or the pack is not as required.
        Interrupted: stopped; called again with the same config, it resumes.
    """
    check_int("workers", config.workers, least=0)
    output = Path(config.output)
    if not output.parent.is_dir():
        raise InvalidInput(f"output={output}: the folder {output.parent} does not exist; create it first")
    make_source = instantiate(config.data.train_source)  # None if the clips are only for scoring
    source: NamedSource | None = make_source() if make_source else None
    if source is None or not hasattr(source, "entry"):
        raise InvalidInput("data: only fixed, named clips can be packed; use data=vimeo90k")
    try:
        if output.exists():
            return verified_again(output, source, config.workers)
        packing = Packing(output, source, with_absolute_roots(resolved(config.data.train_source)))
        with packing.locked():
            damaged = pack_missing(packing, config.workers)
            packed = finished_pack(packing, damaged, config.workers)
            packed.folder.rename(output)
            packing.finish()
    except KeyboardInterrupt:
        raise Interrupted("stopped", "run the same command again to continue") from None
    except OSError as error:
        raise UserError(
            f"{error.filename or output}: {error.strerror}; what is packed is kept: run the same command again to "
            "continue"
        ) from error
    return PackedClips(output)


def pack_missing(packing: Packing, workers: int) -> dict[int, str]:
    """Packs the clips that are not packed yet; returns the damaged ones, each with its problem."""
    done = packing.done()
    count = len(packing.source)
    # Damaged clips are tried again: they may have been replaced.
    todo = [index for index in range(count) if index not in done]
    check_space(packing, len(todo) * packing.clip_bytes, count * packing.clip_bytes)
    damaged = {}
    with tqdm(total=count, initial=len(done), desc="packing", unit="clip", **BAR) as bar:
        for written in packing.write(todo, workers):
            if written.checksum is None:
                damaged[written.index] = written.problem
                tqdm.write(f"left out: {packing.entries[written.index][0]}: {written.problem}", file=TERMINAL)
            bar.update()
    return damaged


def check_space(packing: Packing, needed: int, total: int) -> None:
    """Prints how much space the pack takes, and refuses a disk with less.

    Raises:
        InvalidInput: says how much is needed and how much is free.
    """
    free = shutil.disk_usage(packing.folder).free
    *_, height, width = packing.shape
    print(
        f"{len(packing.source)} clips of {width}x{height}: {total / GIGABYTE:.1f} GB, {needed / GIGABYTE:.1f} GB left "
        f"to write; free {free / GIGABYTE:.1f} GB",
        flush=True,
    )
    if needed > free:
        if needed == total:
            packing.finish()
        raise InvalidInput(
            f"output={packing.output}: {needed / GIGABYTE:.3f} GB are left to write and {free / GIGABYTE:.3f} GB are "
            "free on its disk; make room, or choose an output on another disk"
        )


def finished_pack(packing: Packing, damaged: dict[int, str], workers: int) -> PackedClips:
    """Writes the index of the pack, still in the job's folder, and reads back every clip.

    Raises:
        UserError: the disk returned other bytes than were written.
    """
    packed = packing.indexed(damaged)
    wrong = verify(packed, workers)
    if wrong:
        packing.forget(wrong)
        raise UserError(
            f"{packing.output}: {len(wrong)} of the clips were read back differently than written, the first "
            f"{packing.entries[wrong[0]][0]}; check the disk, and run the same command again to repack them"
        )
    return packed


def verified_again(output: Path, source: NamedSource, workers: int) -> PackedClips:
    """Opens a finished pack and verifies every clip.

    Raises:
        InvalidInput: the pack is of other clips, or damaged.
    """
    packed = PackedClips(output)
    packed.check_entries([source.entry(index) for index in range(len(source))])
    wrong = verify(packed, workers)
    if wrong:
        raise InvalidInput(
            f"{output}: {len(wrong)} of the clips are damaged in the pack, the first "
            f"{packed.index.entries[wrong[0]][0]}; check the disk, remove the pack and create it again"
        )
    return packed


def verify(made: PackedClips, workers: int) -> list[int]:
    """Reads every clip and compares its checksum; returns the numbers of those that differ."""
    total = len(made) - len(made.index.damaged)
    with tqdm(read_back(made, workers), total=total, desc="verifying", unit="clip", **BAR) as bar:
        return [index for index in bar if index is not None]


@entry_point("pack")
def main(config: DictConfig) -> None:
    """Packs, and prints what is in the pack."""
    packed = pack(config)
    damaged = packed.index.damaged
    print(f"{packed.folder}: {len(packed) - len(damaged)} of {len(packed)} clips, verified")
    if damaged:
        print(
            f"{len(damaged)} damaged, left out: {', '.join(damaged)}; training skips and names them. To include "
            "them, replace their files, remove the pack and create it again"
        )


if __name__ == "__main__":
    main()
