"""What the report shows of a clip: the right frames, slices through all."""

from pathlib import Path

import pytest
import torch

from conftest import moving_frames, write_frames
from stvsr.data.clip import to_8bit, to_float
from stvsr.data.clip_sets import ConcatClipSet
from stvsr.data.degradation import downsample
from stvsr.data.frame_folders import FrameFolders
from stvsr.data.png import read_png, write_png
from stvsr.errors import InvalidInput
from stvsr.evaluation.protocols import Protocol
from stvsr.evaluation.shown import LARGEST, SHOWN, ShownClips, slices
from stvsr.evaluation.windows import Windows, plan

PAPER = Protocol("paper", True, False)


def windows(root: Path, clips: int, frames: int = 16, size: tuple[int, int] = (16, 24)) -> Windows:
    for clip in range(clips):
        write_frames(root / f"clip{clip}", moving_frames(frames, size, seed=clip))
    source = FrameFolders(root=root)
    return Windows(clips=source, tasks=plan(source, PAPER), predictions=None, motion={}, reach=0)


def show(data: Windows, folder: Path, clips: int) -> ShownClips:
    shown = ShownClips(folder=folder, clips=clips, tasks=data.tasks)
    for position in range(len(data)):
        window = data[position]
        kept = window.task.window.kept
        shown.add(window, 255 - window.hr[kept.start : kept.stop])
    return shown


def test_clips_of_several_sets_have_folders_of_their_sets_and_those_of_one_do_not(tmp_path: Path) -> None:
    one, other = windows(tmp_path / "one", 1, frames=7), windows(tmp_path / "other", 1, frames=7)
    assert [task.folder for task in one.tasks] == ["clip0"]
    both = plan(ConcatClipSet(sets=[one.clips, other.clips]), PAPER)
    assert [task.folder for task in both] == ["one/clip0", "other/clip0"]
    shown = ShownClips(folder=tmp_path, clips=1, tasks=both)
    assert shown.folders() == [{"set": "other", "clip": "clip0", "folder": "other/clip0"}]


def test_the_input_of_a_given_frame_is_its_own_and_of_the_next_both_neighbours() -> None:
    lr = torch.rand(4, 3, 8, 8)
    given, synthesised = SHOWN
    assert (given.kind, synthesised.kind) == ("given", "synthesised")
    assert torch.equal(given.input(lr), lr[1])
    assert torch.allclose(synthesised.input(lr), (lr[1] + lr[2]) / 2)


def test_a_given_and_the_next_frame_are_shown_with_input_prediction_and_truth(tmp_path: Path) -> None:
    data = windows(tmp_path / "clips", 1, frames=19)
    show(data, tmp_path / "out", 1)
    paths = [path for path in (tmp_path / "out" / "clip0").iterdir() if not path.name.startswith("slice")]
    frames = moving_frames(19, (16, 24))
    lr = downsample(to_float(frames))
    expected = {}
    # The middle of three windows has frames 7 to 13, counted from 1; the third of these is given, the next is not.
    for kind, number, source in (("given", 9, lr[8]), ("synthesised", 10, (lr[8] + lr[10]) / 2)):
        pictures = {"input": to_8bit(source), "prediction": 255 - frames[number - 1], "truth": frames[number - 1]}
        expected |= {f"{kind}-{name}-{number:08d}.png": picture for name, picture in pictures.items()}
    assert sorted(path.name for path in paths) == sorted(expected)
    for path in paths:
        assert torch.equal(read_png(path), expected[path.name]), path.name


def test_of_two_windows_the_first_is_shown_where_the_second_was_moved_back(tmp_path: Path) -> None:
    """The third and fourth frames of the second window count in the first: it has no prediction of them."""
    show(windows(tmp_path / "clips", 1, frames=9), tmp_path / "out", 1)
    for kind, number in (("given", 3), ("synthesised", 4)):
        (picture,) = (tmp_path / "out" / "clip0").glob(f"{kind}-prediction-*.png")
        assert picture.name == f"{kind}-prediction-{number:08d}.png"
        assert torch.equal(read_png(picture), 255 - moving_frames(9, (16, 24))[number - 1])


def test_the_input_that_is_shown_is_the_windows_where_a_network_looks_beyond_it(tmp_path: Path) -> None:
    data = windows(tmp_path / "clips", 1, frames=19)
    data.reach = 2
    show(data, tmp_path / "out", 1)
    lr = downsample(to_float(moving_frames(19, (16, 24))))
    assert torch.equal(read_png(tmp_path / "out" / "clip0" / "given-input-00000009.png"), to_8bit(lr[8]))


def test_slices_are_the_middle_row_of_every_frame_in_order(tmp_path: Path) -> None:
    data = windows(tmp_path / "clips", 1)
    show(data, tmp_path / "out", 1)
    rows = moving_frames(16, (16, 24))[:, :, 8].permute(1, 0, 2)
    for name, expected in (("truth", rows), ("prediction", 255 - rows)):
        assert torch.equal(slices((tmp_path / "out" / "clip0").glob(f"slice-{name}-*.png")), expected), name


def test_slices_of_two_widths_are_cut_to_the_middle_of_the_narrower(tmp_path: Path) -> None:
    """Such slices remain if an earlier version, which kept the whole width, began the evaluation."""
    whole = moving_frames(1, (4, 20))[0]
    write_png(tmp_path / "1.png", whole)
    write_png(tmp_path / "2.png", whole[:, :, 4:16])
    assert torch.equal(slices(tmp_path.glob("*.png")), torch.cat([whole[:, :, 4:16]] * 2, dim=1))


@pytest.mark.parametrize(("clips", "asked", "shown"), [(5, 3, 3), (2, 3, 2), (4, 0, 0), (5, 1, 1)])
def test_shown_clips_are_spread_over_the_data(tmp_path: Path, clips: int, asked: int, shown: int) -> None:
    data = windows(tmp_path / "clips", clips, frames=7)
    show(data, tmp_path / "out", asked)
    found = sorted(path.name for path in (tmp_path / "out").glob("*"))
    assert len(found) == shown
    if (clips, asked) == (5, 1):
        assert found == ["clip2"]


def test_of_large_frames_the_middle_is_kept_and_input_and_truth_still_match(tmp_path: Path) -> None:
    data = windows(tmp_path / "clips", 1, frames=7, size=(LARGEST[1] + 40, LARGEST[0] + 72))
    show(data, tmp_path / "out", 1)
    (truth,) = (tmp_path / "out" / "clip0").glob("given-truth-*.png")
    (lr,) = (tmp_path / "out" / "clip0").glob("given-input-*.png")
    assert read_png(truth).shape == (3, LARGEST[1], LARGEST[0])
    reduced = torch.nn.functional.avg_pool2d(read_png(truth).float(), 4)
    there, one_off = ((read_png(lr).float().roll(shift, dims=2) - reduced)[:, :, 4:-4].abs().mean() for shift in (0, 1))
    assert there < one_off / 2
    (slice_of_it,) = (tmp_path / "out" / "clip0").glob("slice-truth-*.png")
    assert read_png(slice_of_it).shape == (3, 7, LARGEST[0])
    row = (LARGEST[1] + 40) // 2 - 20
    assert torch.equal(read_png(slice_of_it)[:, 2], read_png(truth)[:, row])


def test_a_set_without_clips_is_refused() -> None:
    with pytest.raises(InvalidInput, match="the clip set is empty"):
        plan(ConcatClipSet(sets=[]), PAPER)
