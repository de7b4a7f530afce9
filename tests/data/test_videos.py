import pickle
from collections.abc import Iterable
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader, Dataset

from stvsr.data import videos
from stvsr.data.decoding import VideoIndex
from stvsr.data.orientation import Orientation
from stvsr.data.videos import VideoFolder, checked_videos, first_frames, pauses, segment
from stvsr.errors import DamagedClip, InvalidInput

HEIGHT, WIDTH = 66, 98
RNG = np.random.default_rng


def scene(seed: int, frames: int) -> list[np.ndarray]:
    """A smooth colour picture, another one for each seed, moving by a pixel a frame."""
    coarse = torch.rand(1, 3, 5, 7, generator=torch.Generator().manual_seed(seed)) * 255
    picture = torch.nn.functional.interpolate(coarse, size=(HEIGHT, WIDTH), mode="bilinear")[0].to(torch.uint8)
    image = picture.permute(1, 2, 0).contiguous().numpy()
    return [np.ascontiguousarray(np.roll(image, number, axis=1)) for number in range(frames)]


def write_video(path: Path, images: Iterable[np.ndarray], times: Iterable[int] | None = None) -> Path:
    """Writes lossless RGB at 30 frames a second, or with `times` counted in frames."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264rgb", rate=30, options={"crf": "0", "preset": "ultrafast"})
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "rgb24"
        stream.codec_context.thread_count = 1
        images = list(images)
        for time, image in zip(times or range(len(images)), images, strict=True):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts = time
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.fixture
def folder(tmp_path):
    write_video(tmp_path / "b.mp4", scene(1, 20))
    write_video(tmp_path / "inner" / "a.MKV", scene(2, 30))
    (tmp_path / "notes.txt").write_text("not a video")
    (tmp_path / ".hidden.mp4").write_text("what some systems leave beside a file")
    return tmp_path


def first_of(name: str) -> int:
    return int(name.split("@")[1])


def test_frames_are_those_of_the_file_in_order_cropped_at_the_bottom_and_right(folder):
    source = VideoFolder(root=folder, clips_per_video=1)
    assert len(source) == 2
    for index, images in enumerate([scene(1, 20), scene(2, 30)]):
        for seed in range(5):
            footage = source.read(index, RNG(seed))
            first = first_of(footage.name)
            assert footage.name == f"{['b', 'inner/a'][index]}@{first:06d}"
            assert footage.motion == "all"
            assert footage.frames.shape == (7, 3, 64, 96)
            expected = np.stack(images[first : first + 7])[:, :64, :96]
            np.testing.assert_array_equal(footage.frames.permute(0, 2, 3, 1).numpy(), expected)


def test_chance_decides_the_position_and_the_same_chance_gives_the_same_clip(folder):
    source = VideoFolder(root=folder, clips_per_video=1)
    names = [source.read(0, RNG(seed)).name for seed in range(12)]
    assert len(set(names)) > 4
    again = pickle.loads(pickle.dumps(source))
    assert [again.read(0, RNG(seed)).name for seed in range(12)] == names


def test_several_clips_of_a_video_come_from_successive_segments(folder):
    source = VideoFolder(root=folder, clips_per_video=4)
    assert len(source) == 8
    firsts = [first_of(source.read(4 + part, RNG(part)).name) for part in range(4)]
    assert all(6 * part <= first < 6 * (part + 1) for part, first in enumerate(firsts)), firsts


@given(
    length=st.integers(7, 400),
    segments=st.integers(1, 50),
    seed=st.integers(0, 2**32 - 1),
    data=st.data(),
)
def test_every_window_lies_inside_the_video_and_starts_in_its_segment(length, segments, seed, data):
    number = data.draw(st.integers(0, segments - 1))
    positions = length - 6
    low, high = segment(positions, number, segments)
    order = list(first_frames(positions, number, segments, RNG(seed)))
    assert 0 <= low < high <= positions
    assert sorted(order[: high - low]) == list(range(low, high))
    assert sorted(order) == list(range(positions)), "every window once: a cut-ridden file is decided in the end"
    if positions >= segments:
        previous_end = segment(positions, number - 1, segments)[1] if number else 0
        assert low == previous_end, "segments follow each other without gap or overlap"
        assert high - low in (positions // segments, positions // segments + 1), "segments are equal"


def test_no_clip_crosses_a_scene_cut(tmp_path):
    write_video(tmp_path / "a.mp4", scene(1, 9) + scene(2, 10) + scene(3, 8))
    source = VideoFolder(root=tmp_path, clips_per_video=1)
    seen = {first_of(source.read(0, RNG(seed)).name) for seed in range(40)}
    assert seen == {0, 1, 2, 9, 10, 11, 12, 19, 20}


def test_a_segment_of_cuts_is_replaced_by_another_place_in_the_video(tmp_path):
    short = [image for seed in range(5) for image in scene(seed, 4)]
    write_video(tmp_path / "a.mp4", short + scene(9, 20))
    footage = VideoFolder(root=tmp_path, clips_per_video=4).read(0, RNG(0))
    assert first_of(footage.name) >= 20


def test_a_video_of_nothing_but_cuts_is_given_up_after_few_decodings(tmp_path, monkeypatch):
    write_video(tmp_path / "a.mp4", [image for seed in range(12) for image in scene(seed, 5)])
    calls = []
    real = videos.read_frames
    monkeypatch.setattr(videos, "read_frames", lambda *args: calls.append(args) or real(*args))
    source = VideoFolder(root=tmp_path, clips_per_video=1)
    for seed in range(20):
        with pytest.raises(DamagedClip, match=r"a\.mp4: no 7 consecutive frames without a scene cut"):
            source.read(0, RNG(seed))
    assert len(calls) <= 54, "each window once, however often chance comes by"
    calls.clear()
    monkeypatch.setattr(videos, "MAX_TRIES", 9)
    with pytest.raises(DamagedClip, match="without a scene cut"):
        VideoFolder(root=tmp_path, clips_per_video=1).read(0, RNG(0))
    assert len(calls) == 9


def test_whether_a_file_has_a_clip_does_not_depend_on_chance(tmp_path, monkeypatch):
    """The first of two windows shows a cut that is in both; the second by itself shows none, and is read."""
    write_video(tmp_path / "a.mp4", scene(1, 8))
    cuts = iter([3, None])
    monkeypatch.setattr(videos, "first_cut", lambda _: next(cuts))
    monkeypatch.setattr(videos, "first_frames", lambda *_: iter([0, 1]))
    assert VideoFolder(root=tmp_path, clips_per_video=1).read(0, RNG(0)).name == "a@000001"


def test_a_file_that_could_not_be_read_once_is_tried_again(folder, monkeypatch):
    """A network disk may be away for a moment; later draws must be those of a run in which it was not."""
    source = VideoFolder(root=folder, clips_per_video=1)

    def away(path: Path) -> VideoIndex:
        raise DamagedClip(f"{path}: not a readable video (Input/output error)")

    with monkeypatch.context() as patch:
        patch.setattr(videos, "index_video", away)
        with pytest.raises(DamagedClip, match="Input/output error"):
            source.read(0, RNG(0))
    assert source.read(0, RNG(0)).name.startswith("b@")


def test_no_clip_crosses_a_pause(tmp_path):
    """Frames lost in the middle of a file leave its other frames readable, but not consecutive."""
    write_video(tmp_path / "a.mp4", scene(1, 20), times=[*range(10), *range(25, 35)])
    source = VideoFolder(root=tmp_path, clips_per_video=1)
    assert {first_of(source.read(0, RNG(seed)).name) for seed in range(40)} == {0, 1, 2, 3, 10, 11, 12, 13}


def test_jitter_and_a_single_dropped_frame_are_no_pause():
    times = np.cumsum([0, 33, 41, 28, 33, 66, 33, 50])
    index = VideoIndex(Path("a.mp4"), times, times[:1], seekable=True, decord=True, orientation=Orientation())
    assert pauses(index) == set()


@pytest.mark.parametrize(("step", "is_pause"), [(99, False), (100, True)])
def test_frames_more_than_three_usual_intervals_apart_are_not_consecutive(step, is_pause):
    """Three lost frames make a pause: what lies between is nothing a network could learn."""
    times = np.cumsum([0, 33, 33, step, 33, 33])
    index = VideoIndex(Path("a.mp4"), times, times[:1], seekable=True, decord=True, orientation=Orientation())
    assert pauses(index) == ({3} if is_pause else set())


def test_a_missing_folder_is_refused_when_the_source_is_made(tmp_path):
    with pytest.raises(InvalidInput, match=r"nowhere: no such folder; expected a folder of video files"):
        VideoFolder(root=tmp_path / "nowhere", clips_per_video=1)


def test_a_folder_without_videos_is_refused_when_the_source_is_made(tmp_path):
    (tmp_path / "im1.png").write_bytes(b"")
    with pytest.raises(InvalidInput, match=r"no video files there; expected files ending in .*\.mp4"):
        VideoFolder(root=tmp_path, clips_per_video=1)


def test_linked_folders_are_searched_hidden_ones_are_not(folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    write_video(elsewhere / "c.mp4", scene(3, 7))
    (folder / "more").symlink_to(elsewhere)
    (folder / ".trash").mkdir()
    (folder / "b.mp4").rename(folder / ".trash" / "b.mp4")
    paths = VideoFolder(root=folder, clips_per_video=1).paths
    assert [path.relative_to(folder).as_posix() for path in paths] == ["inner/a.MKV", "more/c.mp4"]


def test_a_link_to_a_video_that_is_gone_is_refused(folder):
    """A clip would be missing unnoticed."""
    (folder / "c.mp4").symlink_to(folder / "gone.mp4")
    with pytest.raises(InvalidInput, match=r"c\.mp4: a broken link; remove or fix it"):
        VideoFolder(root=folder, clips_per_video=1)


@pytest.mark.parametrize("count", [0, 1.5, "few", None])
def test_counts_that_make_no_sense_are_refused(folder, count):
    with pytest.raises(InvalidInput, match=f"clips_per_video={count}; expected a whole number, 1 or more"):
        VideoFolder(root=folder, clips_per_video=count)


@pytest.mark.parametrize("frames", [5, 6])
def test_a_video_shorter_than_a_clip_is_a_damaged_clip(tmp_path, frames):
    write_video(tmp_path / "a.mp4", scene(1, frames))
    with pytest.raises(DamagedClip, match=rf"a\.mp4: {frames} frames; expected at least 7"):
        VideoFolder(root=tmp_path, clips_per_video=1).read(0, RNG(0))


def test_a_folder_to_validate_on_is_refused_at_once_for_any_file_that_is_too_short(folder):
    """The first validation may be hours away."""
    write_video(folder / "inner" / "z.mp4", scene(1, 6))
    with pytest.raises(DamagedClip, match=r"z\.mp4: 6 frames; expected at least 7"):
        checked_videos(root=folder, clips_per_video=1)


def test_a_video_of_exactly_seven_frames_gives_its_one_clip(tmp_path):
    write_video(tmp_path / "a.mp4", scene(1, 7))
    source = VideoFolder(root=tmp_path, clips_per_video=3)
    assert [source.read(part, RNG(0)).name for part in range(3)] == ["a@000000"] * 3


def test_one_bad_file_leaves_the_others_readable(folder):
    (folder / "a.mp4").write_text("text")
    source = VideoFolder(root=folder, clips_per_video=1)
    with pytest.raises(DamagedClip, match=r"a\.mp4"):
        source.read(0, RNG(0))
    assert source.read(1, RNG(0)).name.startswith("b@")


def test_a_damaged_spot_is_not_taken_for_the_whole_file(folder, monkeypatch):
    source = VideoFolder(root=folder, clips_per_video=1)
    whole = source.read(0, RNG(0))

    def damaged(*arguments):
        raise DamagedClip("a.mp4: frame 3 cannot be decoded")

    with monkeypatch.context() as patch:
        patch.setattr(videos, "read_frames", damaged)
        with pytest.raises(DamagedClip, match="frame 3"):
            source.read(0, RNG(0))
    assert source.read(0, RNG(0)).name == whole.name


class Clips(Dataset[tuple[str, torch.Tensor]]):
    """The minimal dataset for a data loader."""

    def __init__(self, source: VideoFolder) -> None:
        self.source = source

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> tuple[str, torch.Tensor]:
        footage = self.source.read(index, RNG(index))
        return footage.name, footage.frames


@pytest.mark.timeout(180)
@pytest.mark.parametrize(("start", "workers"), [("fork", 2), ("spawn", 1)])
def test_workers_read_the_same_clips_as_the_main_process_that_read_before_them(folder, start, workers):
    """A decord reader that was open at a fork would hang or crash the worker."""
    clips = Clips(VideoFolder(root=folder, clips_per_video=3))
    here = [clips[index] for index in range(len(clips))]
    loader = DataLoader(clips, batch_size=None, num_workers=workers, multiprocessing_context=start, timeout=170)
    for (name, frames), (expected_name, expected) in zip(loader, here, strict=True):
        assert name == expected_name
        assert torch.equal(frames, expected)
