"""A pack gives exactly the clips it was made from; damage to it is reported."""

import json
import mmap
import pickle
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import NoiseSource, write_vimeo
from stvsr.data import packed
from stvsr.data.clip import Clip, Footage
from stvsr.data.datasets import TrainingClips, ValidationClips
from stvsr.data.packed import CLIPS, INDEX, LAYOUT, PackedClips, as_stored
from stvsr.data.packing import MAX_DAMAGED_IN_A_ROW, ClipWriter, Packing, read_back
from stvsr.data.vimeo90k import packed_training_clips, training_clips
from stvsr.errors import DamagedClip, InvalidInput, UserError

NAMES = [f"00001/{number:04d}" for number in range(1, 7)]

RNG = np.random.default_rng(0)


class NamedNoise(NoiseSource):
    """Noise whose names and motion splits packing can ask for."""

    first_number = 1

    def entry(self, index: int) -> tuple[str, str]:
        footage = self.read(index, RNG)
        return footage.name, footage.motion


def make_pack(source: Any, folder: Path) -> PackedClips:
    packing = Packing(folder / "a.pack", source, {})
    with packing.locked():
        written = list(packing.write(list(range(len(source))), workers=0))
        damaged = {clip.index: clip.problem for clip in written if clip.checksum is None}
        return packing.indexed(damaged)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    root = tmp_path / "vimeo"
    write_vimeo(root, NAMES)
    return root


def drawn(source: Any, draws: int = 18) -> list[Clip]:
    clips = TrainingClips(source=source, crop=8, draws=draws, seed=3)
    return [clips[draw] for draw in range(draws)]


@pytest.mark.parametrize("damaged", [False, True], ids=["whole", "with-a-damaged-clip"])
def test_training_draws_the_same_from_a_pack_bit_for_bit(archive: Path, tmp_path: Path, damaged: bool) -> None:
    if damaged:
        (archive / "sequences" / NAMES[2] / "im4.png").write_bytes(b"")
    from_files = drawn(training_clips(root=archive))
    make_pack(training_clips(root=archive), tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        from_pack = drawn(packed_training_clips(root=archive, pack=tmp_path / ".a.pack.part" / "whole"))
    for a, b in zip(from_files, from_pack, strict=True):
        assert (a.name, a.motion, len(a.skipped)) == (b.name, b.motion, len(b.skipped))
        assert torch.equal(a.lr, b.lr)
        assert torch.equal(a.hr, b.hr)
    assert any(clip.skipped for clip in from_pack) is damaged


@settings(max_examples=40, deadline=None)
@given(
    clips=st.integers(1, 4),
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    frames=st.integers(1, 8),
    data=st.data(),
)
def test_clips_of_any_size_come_back_from_wherever_they_lie(
    clips: int, height: int, width: int, frames: int, data: st.DataObject
) -> None:
    source = NamedNoise(clips, (height, width), frames)
    with tempfile.TemporaryDirectory() as folder:
        pack = make_pack(source, Path(folder))
        assert len(pack) == clips
        assert not [index for index in read_back(pack, workers=0) if index is not None]
        for index in range(clips):
            expected, footage = source.read(index, RNG), pack.read(index, RNG)
            if data.draw(st.booleans()):
                first = data.draw(st.integers(0, height - 1))
                footage.prefetch_rows(first, data.draw(st.integers(first + 1, height)))
            assert torch.equal(footage.frames, expected.frames)
            assert (footage.name, footage.motion) == (expected.name, expected.motion)


def test_training_tells_the_rows_it_needs_and_uses_no_others() -> None:
    """Spoiling all other rows leaves the clips unchanged."""
    told: list[tuple[int, int]] = []

    class Watched(NamedNoise):
        def read(self, index: int, rng: np.random.Generator) -> Footage:
            footage = super().read(index, rng)

            def spoil_others(first: int, end: int) -> None:
                told.append((first, end))
                footage.frames[..., :first, :] = 0
                footage.frames[..., end:, :] = 0

            return Footage(footage.frames, footage.name, footage.motion, spoil_others)

    expected, actual = drawn(NamedNoise(size=(96, 64))), drawn(Watched(size=(96, 64)))
    assert all(torch.equal(a.lr, b.lr) and torch.equal(a.hr, b.hr) for a, b in zip(expected, actual, strict=True))
    # A crop of 32 rows with a margin of 8 on each side, less at the frame's border.
    assert {end - first for first, end in told} <= set(range(40, 49))
    assert max(end for _, end in told) <= 96


def test_the_rows_that_are_told_are_those_that_are_asked_of_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a page boundary on, even where the clip does not begin at one."""
    asked: list[tuple[int, int]] = []
    pack, prefetch = make_pack(NamedNoise(size=(96, 64)), tmp_path), packed._prefetch

    def watched(mapped: mmap.mmap, before: int, row: int, first: int, end: int) -> None:
        rows = bytes(mapped[before + first * row : before + end * row])
        assert rows == as_stored(pack.read(1, RNG).frames)[first:end].numpy().tobytes()
        advice = SimpleNamespace(madvise=lambda _, *stretch: asked.append(stretch) if stretch else None)
        prefetch(advice, before, row, first, end)  # type: ignore[arg-type]
        ((start, length),) = asked
        assert start % mmap.PAGESIZE == 0
        assert 0 <= before + first * row - start < mmap.PAGESIZE
        assert start + length == before + end * row

    monkeypatch.setattr(packed, "_prefetch", watched)
    pack.read(1, RNG).prefetch_rows(42, 72)
    assert asked


def test_whole_frames_are_those_of_the_source(tmp_path: Path) -> None:
    source = NamedNoise()
    pack = make_pack(source, tmp_path)
    assert torch.equal(ValidationClips(source=pack)[1].hr, ValidationClips(source=source)[1].hr)


def test_nothing_that_is_done_to_frames_changes_the_pack(tmp_path: Path) -> None:
    pack = make_pack(NamedNoise(), tmp_path)
    before = pack.clips.read_bytes()
    pack.read(0, RNG).frames.zero_()
    assert pack.clips.read_bytes() == before


def test_a_pack_goes_to_a_loader_process_without_its_clips(tmp_path: Path) -> None:
    pack = make_pack(NamedNoise(), tmp_path)
    assert len(pickle.dumps(pack)) < 2000
    copy = pickle.loads(pickle.dumps(pack))
    assert torch.equal(copy.read(3, RNG).frames, pack.read(3, RNG).frames)


def test_a_clip_that_was_damaged_keeps_its_number_and_is_named(archive: Path, tmp_path: Path) -> None:
    (archive / "sequences" / NAMES[2] / "im4.png").unlink()
    pack = make_pack(training_clips(root=archive), tmp_path)
    message = rf"clip {NAMES[2]} was left out of .*im4\.png: no such file.* create the pack again"
    with pytest.raises(DamagedClip, match=message):
        pack.read(2, RNG)
    assert pack.read(3, RNG).name == NAMES[3]
    assert pack.index.checksums[2] is None


def rewrite(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    def apply(pack: Path) -> None:
        values = json.loads((pack / INDEX).read_text())
        change(values)
        (pack / INDEX).write_text(json.dumps(values))

    return apply


def cut_off(pack: Path) -> None:
    (pack / CLIPS).write_bytes((pack / CLIPS).read_bytes()[:-1])


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda pack: (pack / INDEX).unlink(), r"no index\.json there; expected a pack"),
        (lambda pack: (pack / INDEX).write_text("{"), "not the index of a pack"),
        (lambda pack: (pack / INDEX).write_text("[]"), "not the index of a pack"),
        (rewrite(lambda values: values.pop("width")), "not the index of a pack"),
        (rewrite(lambda values: values["clips"].append(["a"])), "not the index of a pack"),
        (rewrite(lambda values: values.update(layout="t,3,H,W float16")), f"expected '{LAYOUT}'"),
        (cut_off, r"clips\.u8: 322559 bytes; expected 322560 for 5 clips"),
        (lambda pack: (pack / CLIPS).unlink(), r"clips\.u8: 0 bytes; expected 322560"),
    ],
    ids=["no-index", "text", "list", "no-width", "half-a-clip", "layout", "cut-off", "no-clips"],
)
def test_what_is_no_whole_pack_is_refused(tmp_path: Path, damage: Callable[[Path], object], says: str) -> None:
    pack = make_pack(NamedNoise(), tmp_path)
    damage(pack.folder)
    with pytest.raises(InvalidInput, match=says):
        PackedClips(pack.folder)


@pytest.mark.parametrize("damage", [cut_off, lambda pack: (pack / CLIPS).unlink()], ids=["cut-off", "gone"])
def test_a_pack_that_is_damaged_while_in_use_is_told_in_a_line(
    tmp_path: Path, damage: Callable[[Path], object]
) -> None:
    pack = make_pack(NamedNoise(), tmp_path)
    damage(pack.folder)
    with pytest.raises(DamagedClip, match="clip noise-4 cannot be read"):
        pack.read(4, RNG)


@pytest.mark.parametrize(
    ("listed", "says"),
    [
        (NAMES[:-1], r"6 clips, expected 5\)"),
        ([NAMES[1], NAMES[0], *NAMES[2:]], rf"clip 1 is {NAMES[0]}, not {NAMES[1]}"),
    ],
    ids=["shorter", "another-order"],
)
def test_a_pack_of_another_list_is_refused(archive: Path, tmp_path: Path, listed: list[str], says: str) -> None:
    pack = make_pack(training_clips(root=archive), tmp_path)
    (archive / "sep_trainlist.txt").write_text("\n".join(listed))
    with pytest.raises(InvalidInput, match=f"packed from a different clip list .*{says}"):
        packed_training_clips(root=archive, pack=pack.folder)


def test_only_the_list_is_needed_beside_a_pack(archive: Path, tmp_path: Path) -> None:
    pack = make_pack(training_clips(root=archive), tmp_path)
    (archive / "sequences").rename(tmp_path / "elsewhere")
    assert len(packed_training_clips(root=archive, pack=pack.folder)) == len(NAMES)


def test_a_changed_byte_is_found(tmp_path: Path) -> None:
    pack = make_pack(NamedNoise(), tmp_path)
    with pack.clips.open("r+b") as file:
        file.seek(3 * pack.index.clip_bytes + 17)
        byte = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([byte[0] ^ 1]))
    assert [index for index in read_back(pack, workers=2) if index is not None] == [3]


def test_a_clip_of_another_size_is_named(archive: Path, tmp_path: Path) -> None:
    write_vimeo(tmp_path / "other", [NAMES[4]], size=(32, 64))
    (archive / "sequences" / NAMES[4]).rename(tmp_path / "aside")
    (tmp_path / "other" / "sequences" / NAMES[4]).rename(archive / "sequences" / NAMES[4])
    with pytest.raises(InvalidInput, match=f"clip {NAMES[4]}: 7 frames of 64x32; expected 7 of 64x48"):
        make_pack(training_clips(root=archive), tmp_path)


def test_a_full_disk_is_told_in_a_line() -> None:
    with pytest.raises(UserError, match="/dev/full: No space left on device; what is packed is kept: run the same"):
        ClipWriter(NamedNoise(), Path("/dev/full"), (7, 3, 48, 64))[0]


class Damaged(NamedNoise):
    """Noise in which some clips are damaged."""

    def __init__(self, clips: int, damaged: set[int]) -> None:
        super().__init__(clips)
        self.damaged = damaged

    def entry(self, index: int) -> tuple[str, str]:
        return f"noise-{index}", "all"

    def read(self, index: int, rng: np.random.Generator) -> Footage:
        if index in self.damaged:
            raise DamagedClip(f"clip {index} is damaged")
        return super().read(index, rng)


def test_many_damaged_clips_in_a_row_end_a_packing(tmp_path: Path) -> None:
    count = MAX_DAMAGED_IN_A_ROW
    several = set(range(5, 5 + count))
    with pytest.raises(DamagedClip, match=f"{count} damaged clips in a row, the last: clip {count + 4}"):
        make_pack(Damaged(count + 20, several), tmp_path)
    with pytest.raises(DamagedClip, match=f"first {count} clips are damaged, the last: clip {count - 1}"):
        make_pack(Damaged(count + 20, set(range(count + 20))), tmp_path)


def test_damaged_clips_that_do_not_lie_in_a_row_are_tried_again_in_one(tmp_path: Path) -> None:
    source = Damaged(30, set(range(1, 30, 2)))
    assert len(make_pack(source, tmp_path).index.damaged) == 15
    packing = Packing(tmp_path / "a.pack", source, {})
    todo = [index for index in range(30) if index not in packing.done()]
    assert len(list(packing.write(todo, workers=0))) == 15
