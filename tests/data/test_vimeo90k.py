"""Vimeo-90K as downloaded, on fake data with the real layout; and whatever may be wrong with such a folder."""

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from stvsr.data.vimeo90k import Vimeo90K, motion_list, scoring_clips, training_clips
from stvsr.errors import DamagedClip, InvalidInput

RNG = np.random.default_rng(0)


def make_clip(root: Path, name: str, size: tuple[int, int] = (16, 24)) -> np.ndarray:
    """Writes seven random PNG frames as the archive has them; returns them: `(7, h, w, 3)`."""
    frames = np.random.default_rng(zlib.crc32(name.encode())).integers(0, 256, (7, *size, 3), dtype=np.uint8)
    folder = root / "sequences" / name
    folder.mkdir(parents=True)
    for number, frame in enumerate(frames, start=1):
        Image.fromarray(frame).save(folder / f"im{number}.png")
    return frames


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    for name in ("00001/0001", "00002/0003"):
        make_clip(tmp_path, name)
    (tmp_path / "sep_trainlist.txt").write_text("00001/0001\n00002/0003\n\n")
    return tmp_path


def test_frames_are_those_of_the_files(archive: Path) -> None:
    expected = make_clip(archive, "00003/0004")
    source = Vimeo90K(root=archive, entries=[("00003/0004", "fast")])
    footage = source.read(0, RNG)
    assert torch.equal(footage.frames, torch.from_numpy(expected).permute(0, 3, 1, 2))
    assert (footage.name, footage.motion) == ("00003/0004", "fast")


def test_training_list_is_read_as_downloaded(archive: Path) -> None:
    source = training_clips(root=archive)
    assert [source.read(index, RNG).name for index in range(len(source))] == ["00001/0001", "00002/0003"]


def test_shipped_motion_lists_are_the_papers() -> None:
    lists = {motion: motion_list(motion) for motion in ("slow", "medium", "fast")}
    assert {motion: len(names) for motion, names in lists.items()} == {
        "slow": 1613,
        "medium": 4977,
        "fast": 1225,
    }
    assert len(set().union(*lists.values())) == 7815


def test_scoring_takes_the_same_number_of_clips_of_each_split(tmp_path: Path) -> None:
    for motion in ("slow", "medium", "fast"):
        names = motion_list(motion)
        for i in range(3):
            (tmp_path / "sequences" / names[i * len(names) // 3]).mkdir(parents=True)
    source = scoring_clips(root=tmp_path, clips_per_split=3)
    assert [motion for _, motion in source.entries] == ["slow"] * 3 + ["medium"] * 3 + ["fast"] * 3


@pytest.mark.parametrize("count", [0, -1, 1.5, "two"])
def test_counts_of_clips_per_split_that_make_no_sense_are_refused(tmp_path: Path, count: Any) -> None:
    with pytest.raises(InvalidInput, match=f"clips_per_split={count}; expected a whole number, 1 or more"):
        scoring_clips(root=tmp_path, clips_per_split=count)


def test_missing_data_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"nowhere: no sep_trainlist\.txt"):
        training_clips(root=tmp_path / "nowhere")
    with pytest.raises(InvalidInput, match="no folder 'sequences'"):
        scoring_clips(root=tmp_path / "nowhere")


def test_missing_clip_is_named_and_counted(archive: Path) -> None:
    (archive / "sep_trainlist.txt").write_text("00001/0001\n00009/0009\n")
    with pytest.raises(InvalidInput, match="1 of 2 listed clips are missing, the first is sequences/00009/0009"):
        training_clips(root=archive)


@pytest.mark.parametrize("entry", ["../00001/0001", "../../etc", "/etc/passwd", "00001", "00001/..", "a/b/c", "./x"])
def test_list_entry_that_leaves_the_folder_is_refused(archive: Path, entry: str) -> None:
    (archive / "sep_trainlist.txt").write_text(f"00001/0001\n{entry}\n")
    with pytest.raises(InvalidInput, match=r"clip list entry .*expected folder/clip"):
        training_clips(root=archive)


def test_a_list_that_an_editor_saved_otherwise_is_refused(archive: Path) -> None:
    listed = archive / "sep_trainlist.txt"
    listed.write_text(listed.read_text(), encoding="utf-16")
    with pytest.raises(InvalidInput, match=r"sep_trainlist\.txt: not UTF-8 text"):
        training_clips(root=archive)


def test_empty_list_is_refused(archive: Path) -> None:
    (archive / "sep_trainlist.txt").write_text("\n")
    with pytest.raises(InvalidInput, match="clip list is empty"):
        training_clips(root=archive)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def resize(path: Path) -> None:
    Image.new("RGB", (8, 8)).save(path)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (Path.unlink, r"im4\.png: no such file"),
        (truncate, r"im4\.png: not a readable PNG"),
        (resize, r"im4\.png is 8x8, im1\.png 24x16"),
    ],
    ids=["missing", "truncated", "other-size"],
)
def test_damaged_frame_is_named(archive: Path, damage: Callable[[Path], object], says: str) -> None:
    damage(archive / "sequences" / "00001" / "0001" / "im4.png")
    with pytest.raises(DamagedClip, match=says):
        training_clips(root=archive).read(0, RNG)
