"""Clip folders: which frames they hold, in which order, and which faults are reported before any work begins."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import moving_frames, write_frames
from stvsr.data.frame_folders import FrameFolders, training_excerpts
from stvsr.errors import DamagedClip, InvalidInput

FRAMES = moving_frames(9, (16, 24))
LR = moving_frames(9, (4, 6))


@pytest.mark.parametrize("name", ["{:08d}.png", "im{}.png", "city_{:03d}.png", "frame-{}.PNG", "v2_{}.png"])
@pytest.mark.parametrize("first", [0, 1, 95])
def test_frames_are_read_in_the_order_of_their_numbers(tmp_path: Path, name: str, first: int) -> None:
    """im10 comes after im9, whatever the alphabet says."""
    frames = moving_frames(12, (16, 24))
    write_frames(tmp_path / "clip", frames, first=first, name=name)
    clips = FrameFolders(root=tmp_path)
    info = clips.describe(0)
    assert (info.name, info.frames, info.first_number, info.motion) == ("clip", 12, first, None)
    assert torch.equal(clips.excerpt(0, 0, 12).hr, frames)
    assert torch.equal(clips.excerpt(0, 4, 7).hr, frames[4:11])


def test_clips_are_named_by_their_path_and_the_root_may_be_one(tmp_path: Path) -> None:
    write_frames(tmp_path / "set" / "00001" / "0002", FRAMES)
    write_frames(tmp_path / "set" / "00001" / "0001", FRAMES)
    clips = FrameFolders(root=tmp_path / "set")
    assert [clips.describe(i).name for i in range(2)] == ["00001/0001", "00001/0002"]
    assert clips.describe(0).clip_set == "set"
    alone = FrameFolders(root=tmp_path / "set" / "00001" / "0001", name="mine")
    assert (alone.describe(0).clip_set, alone.describe(0).name) == ("mine", "0001")


def test_linked_folders_are_clips_too(tmp_path: Path) -> None:
    write_frames(tmp_path / "elsewhere" / "b", FRAMES)
    write_frames(tmp_path / "set" / "a", FRAMES)
    (tmp_path / "set" / "more").symlink_to(tmp_path / "elsewhere")
    clips = FrameFolders(root=tmp_path / "set")
    assert clips.names == ["a", "more/b"]


def test_frames_of_another_kind_do_not_give_way_to_folders_in_their_folder(tmp_path: Path) -> None:
    """Otherwise the clip would be left out, and its masks scored instead."""
    write_frames(tmp_path / "a", FRAMES)
    write_frames(tmp_path / "b" / "masks", FRAMES)
    (tmp_path / "b" / "1.jpg").write_bytes(b"JPEG")
    # Beside the clip folders it does no harm.
    (tmp_path / "overview.jpg").write_bytes(b"JPEG")
    with pytest.raises(InvalidInput, match=r"b/1\.jpg: not a PNG; expected frames as 8-bit RGB PNG"):
        FrameFolders(root=tmp_path)


def test_the_folder_of_a_run_is_not_taken_for_a_clip(tmp_path: Path) -> None:
    """Hydra creates that folder before anything is read."""
    write_frames(tmp_path / "a", FRAMES)
    (tmp_path / "outputs" / "now" / ".hydra").mkdir(parents=True)
    with pytest.raises(InvalidInput, match=r"outputs/now: the output_dir of a run; expected one outside .*: choose"):
        FrameFolders(root=tmp_path)
    # If a clip folder itself was the output_dir, choosing another one is not enough.
    (tmp_path / "a" / ".hydra").mkdir()
    with pytest.raises(InvalidInput, match=r"if it holds clips, remove .*/a/\.hydra and the run's \.log"):
        FrameFolders(root=tmp_path / "a")


def test_two_clips_of_one_name_are_refused(tmp_path: Path) -> None:
    write_frames(tmp_path / "w", FRAMES)
    write_frames(tmp_path / "w" / "w", FRAMES)
    with pytest.raises(InvalidInput, match="two clips are named w"):
        FrameFolders(root=tmp_path / "w")


def test_hidden_folders_do_not_hide_an_empty_clip(tmp_path: Path) -> None:
    write_frames(tmp_path / "a", FRAMES)
    write_frames(tmp_path / "b" / ".thumbnails", FRAMES)
    with pytest.raises(InvalidInput, match=r"b: no PNG frames in this clip folder"):
        FrameFolders(root=tmp_path)


def test_a_missing_frame_is_named(tmp_path: Path) -> None:
    write_frames(tmp_path / "a", FRAMES)
    (tmp_path / "a" / "00000004.png").unlink()
    with pytest.raises(InvalidInput, match="frame 4 is missing"):
        FrameFolders(root=tmp_path)


def test_two_files_for_one_frame_are_refused(tmp_path: Path) -> None:
    write_frames(tmp_path / "a", FRAMES)
    write_frames(tmp_path / "a", FRAMES[:1], name="extra_{}.png")
    with pytest.raises(InvalidInput, match=r"has the same number as 00000001\.png"):
        FrameFolders(root=tmp_path)


def test_frames_of_different_sizes_are_refused(tmp_path: Path) -> None:
    write_frames(tmp_path / "a", FRAMES)
    write_frames(tmp_path / "a", FRAMES[:1, :, :12], first=5)
    with pytest.raises(DamagedClip, match=r"00000005\.png: 24x12, but 00000001\.png is 24x16"):
        FrameFolders(root=tmp_path)


def test_grey_and_16_bit_frames_are_refused_before_work_begins(tmp_path: Path) -> None:
    write_frames(tmp_path / "a", FRAMES)
    Image.new("L", (24, 16)).save(tmp_path / "a" / "00000009.png")
    with pytest.raises(DamagedClip, match="8-bit grey; expected 8-bit RGB"):
        FrameFolders(root=tmp_path)
    Image.fromarray(np.zeros((16, 24), dtype=np.uint16)).save(tmp_path / "a" / "00000009.png")
    with pytest.raises(DamagedClip, match="16-bit grey; expected 8-bit RGB"):
        FrameFolders(root=tmp_path)


def test_other_images_and_files_without_a_number_are_refused(tmp_path: Path) -> None:
    write_frames(tmp_path / "a", FRAMES)
    Image.new("RGB", (24, 16)).save(tmp_path / "a" / "00000010.jpg")
    with pytest.raises(InvalidInput, match=r"00000010\.jpg: not a PNG"):
        FrameFolders(root=tmp_path)
    (tmp_path / "a" / "00000010.jpg").rename(tmp_path / "a" / "cover.png")
    with pytest.raises(InvalidInput, match=r"cover\.png: no number in the file name"):
        FrameFolders(root=tmp_path)


def test_empty_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no PNG frames there"):
        FrameFolders(root=tmp_path)
    with pytest.raises(InvalidInput, match="no such folder"):
        FrameFolders(root=tmp_path / "nowhere")
    write_frames(tmp_path / "a", FRAMES)
    (tmp_path / "b").mkdir()
    with pytest.raises(InvalidInput, match=r"b: no PNG frames in this clip folder"):
        FrameFolders(root=tmp_path)


def test_the_current_folder_is_not_around_a_root_that_leads_out_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_frames(tmp_path / "runs" / "one", FRAMES)
    write_frames(tmp_path / "set" / "a", FRAMES)
    (tmp_path / "set" / "mine").symlink_to(tmp_path / "runs" / "one")
    monkeypatch.chdir(tmp_path / "runs" / "one")
    assert FrameFolders(root=Path("../../set")).names == ["a", "mine"]
    (tmp_path / "set" / "c").symlink_to(tmp_path)
    with pytest.raises(InvalidInput, match="c: a link to a folder that contains it"):
        FrameFolders(root=Path("../../set"))


def test_links_that_lead_nowhere_or_in_circles_are_refused(tmp_path: Path) -> None:
    """A broken link would be a clip less in the mean, a circle forty more."""
    write_frames(tmp_path / "elsewhere", FRAMES)
    write_frames(tmp_path / "set" / "a", FRAMES)
    (tmp_path / "set" / "b").symlink_to(tmp_path / "elsewhere")
    # Broken links that could be neither clips nor frames, such as an editor's lock.
    for other in (".#00000001.png", "README.txt"):
        (tmp_path / "set" / "a" / other).symlink_to(tmp_path / "gone")
    assert FrameFolders(root=tmp_path / "set").names == ["a", "b"]
    for name, target, problem in (
        ("c", tmp_path / "gone", "a broken link"),
        ("scene_1.5", tmp_path / "gone", "a broken link"),
        ("c", tmp_path / "set", "a link to a folder that contains it"),
    ):
        (tmp_path / "set" / name).symlink_to(target)
        with pytest.raises(InvalidInput, match=rf"{name}: {problem}; remove"):
            FrameFolders(root=tmp_path / "set")
        (tmp_path / "set" / name).unlink()
    # Two folders with links to each other.
    (tmp_path / "set" / "a" / "to_b").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "to_a").symlink_to(tmp_path / "set" / "a")
    with pytest.raises(InvalidInput, match="a/to_b/to_a: a link to a folder that contains it; remove it"):
        FrameFolders(root=tmp_path / "set")
    # Where the root is a link itself.
    (tmp_path / "elsewhere" / "to_a").unlink()
    (tmp_path / "set" / "c").symlink_to(tmp_path / "set")
    (tmp_path / "link").symlink_to(tmp_path / "set")
    with pytest.raises(InvalidInput, match="a folder that contains it"):
        FrameFolders(root=tmp_path / "link")


def test_a_clip_that_cannot_be_read_is_named_and_not_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for clip in ("a", "b"):
        write_frames(tmp_path / clip, FRAMES)
    scandir = os.scandir

    def refused(path: str) -> object:
        if Path(path).name == "b":
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return scandir(path)

    # Instead of a file mode, which root ignores.
    monkeypatch.setattr(os, "scandir", refused)
    message = rf"^{tmp_path}/b: cannot be read \(Permission denied\); check its permissions$"
    with pytest.raises(InvalidInput, match=message):
        FrameFolders(root=tmp_path)


def test_clips_that_must_be_there_are_and_no_others(tmp_path: Path) -> None:
    """In a Vid4 folder with both HR and LR frames, the LR frames would be scored as ground truth."""
    write_frames(tmp_path / "GT" / "a", FRAMES)
    write_frames(tmp_path / "LR" / "a", LR)
    assert FrameFolders(root=tmp_path / "GT", frames={"a": 9}).names == ["a"]
    with pytest.raises(InvalidInput, match=r"GT/a \(9 frames\), LR/a \(\d frames\); Vid4 is a \(9 frames\)"):
        FrameFolders(root=tmp_path, name="Vid4", frames={"a": 9})
    with pytest.raises(InvalidInput, match=r"a \(9 frames\); Vid4 is a \(41 frames\)"):
        FrameFolders(root=tmp_path / "GT", name="Vid4", frames={"a": 41})


def lr_and_hr(tmp_path: Path, lr: torch.Tensor, numbers: list[int]) -> FrameFolders:
    write_frames(tmp_path / "hr" / "a", FRAMES)
    for number in numbers:
        write_frames(tmp_path / "lr" / "a", lr[:1] + number, first=number)
    return FrameFolders(root=tmp_path / "hr", lr_root=tmp_path / "lr")


@pytest.mark.parametrize("numbers", [list(range(1, 10)), [1, 3, 5, 7, 9]], ids=["all", "every-other"])
def test_lr_frames_are_every_other_from_the_first_of_the_window(tmp_path: Path, numbers: list[int]) -> None:
    clips = lr_and_hr(tmp_path, torch.zeros(1, 3, 4, 6, dtype=torch.uint8), numbers)
    lr = clips.excerpt(0, 2, 7).lr
    assert lr is not None
    assert lr[:, 0, 0, 0].tolist() == [3, 5, 7, 9]


@pytest.mark.parametrize(
    ("numbers", "frame"),
    [([1, 2, 3, 4, 5, 6, 7, 8], 9), (list(range(1, 11)), 10), ([2, 4, 6, 8], 1), (list(range(9)), 0)],
)
def test_lr_frames_that_do_not_match_are_refused(tmp_path: Path, numbers: list[int], frame: int) -> None:
    with pytest.raises(InvalidInput, match=rf"LR frames for 9 HR frames; .* check frame {frame}$"):
        lr_and_hr(tmp_path, torch.zeros(1, 3, 4, 6, dtype=torch.uint8), numbers)


def test_lr_frames_of_another_size_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="LR frames are 6x5, HR 24x16; expected LR 6x4"):
        lr_and_hr(tmp_path, torch.zeros(1, 3, 5, 6, dtype=torch.uint8), list(range(1, 10)))


def test_a_clip_alone_has_its_lr_frames_in_a_folder_of_another_name(tmp_path: Path) -> None:
    write_frames(tmp_path / "hr", FRAMES)
    write_frames(tmp_path / "lr", LR)
    clips = FrameFolders(root=tmp_path / "hr", lr_root=tmp_path / "lr")
    assert clips.names == ["hr"]
    assert clips.files(0, 0, 1) == [tmp_path / "hr" / "00000001.png", tmp_path / "lr" / "00000001.png"]


def test_lr_of_other_clips_is_refused(tmp_path: Path) -> None:
    write_frames(tmp_path / "hr" / "a", FRAMES)
    write_frames(tmp_path / "hr" / "b", FRAMES)
    write_frames(tmp_path / "lr" / "a", LR)
    with pytest.raises(InvalidInput, match=r"1 clips, .* has 2; expected the same clips, but b is in only one"):
        FrameFolders(root=tmp_path / "hr", lr_root=tmp_path / "lr")
    write_frames(tmp_path / "lr" / "c", LR)
    with pytest.raises(InvalidInput, match="but b and 1 more are in only one of the two"):
        FrameFolders(root=tmp_path / "hr", lr_root=tmp_path / "lr")


def test_clip_folders_can_be_trained_on(tmp_path: Path) -> None:
    write_frames(tmp_path / "a", FRAMES)
    source = training_excerpts(root=tmp_path, lr_root=None)
    seen = {source.read(0, np.random.default_rng(seed)).name for seed in range(20)}
    assert seen == {"a@000001", "a@000002", "a@000003"}
    footage = source.read(0, np.random.default_rng(0))
    first = int(footage.name[-6:]) - 1
    assert torch.equal(footage.frames, FRAMES[first : first + 7])
    write_frames(tmp_path / "b", FRAMES[:5])
    with pytest.raises(DamagedClip, match="clip b: 5 frames; expected at least 7"):
        training_excerpts(root=tmp_path, lr_root=None).read(1, np.random.default_rng(0))


def test_lr_frames_that_training_would_not_look_at_are_refused(tmp_path: Path) -> None:
    write_frames(tmp_path / "a", FRAMES)
    with pytest.raises(InvalidInput, match=r"data\.lr_root=.*lr: .* training makes its own"):
        training_excerpts(root=tmp_path, lr_root=tmp_path / "lr")
