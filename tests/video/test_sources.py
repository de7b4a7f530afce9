"""Sources: pauses, held last frames, colours; waiting for a pipe can be interrupted."""

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from threading import Timer

import av
import numpy as np
import pytest
from av.video.reformatter import ColorRange
from av.video.stream import VideoStream

from conftest import moving_frames, write_video
from stvsr.data.decoding import VideoIndex, stream_frames
from stvsr.errors import Interrupted, InvalidInput
from stvsr.video import muxing
from stvsr.video.clock import Clock, InputTimes
from stvsr.video.codecs import Encoding
from stvsr.video.colour import Colour
from stvsr.video.muxing import EncodedVideo
from stvsr.video.picture import Picture
from stvsr.video.sinks import SegmentedVideo
from stvsr.video.sources import Part, VideoFile, Y4mInput

Y4M_FRAME = b"YUV4MPEG2 W24 H16 F25:1 Ip C444\nFRAME\n" + bytes(3 * 24 * 16)


@pytest.mark.parametrize(
    ("start", "follow_a_pause"), [(Fraction(0), {10}), (Fraction(1, 5), {5})], ids=["whole", "from frame 5"]
)
def test_frames_after_a_pause_are_told_by_their_number_in_the_part(
    tmp_path: Path, start: Fraction, follow_a_pause: set[int]
) -> None:
    write_video(tmp_path / "a.mkv", moving_frames(20, (48, 64)), times=[*range(10), *range(25, 35)])
    assert VideoFile(tmp_path / "a.mkv", Part(start)).breaks == follow_a_pause


def test_a_palette_that_stands_before_the_first_frame_alone_is_not_lost(tmp_path: Path) -> None:
    """Old QuickTime files have one; frames after a seek would be black."""
    palette = np.full((256, 4), (255, 200, 100, 50), np.uint8)
    with av.open(tmp_path / "a.mov", "w") as container:
        stream = container.add_stream("smc", rate=10)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "pal8"
        for number in range(3):
            frame = av.VideoFrame.from_ndarray((np.ones((48, 64), np.uint8), palette), format="pal8")  # type: ignore[arg-type]
            frame.pts = number
            container.mux(stream.encode(frame))
    colours = [frame.float().mean(dim=(1, 2)).tolist() for frame in VideoFile(tmp_path / "a.mov", Part()).frames()]
    assert colours == 3 * [[200, 100, 50]]


def write_gif(path: Path, *, rate: int, last: int) -> None:
    """Writes a GIF of four frames, the last shown for `last` hundredths of a second."""
    with av.open(path, "w", options={"final_delay": str(last)}) as container:
        stream = container.add_stream("gif", rate=rate)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "rgb8"
        for number, image in enumerate(moving_frames(4, (48, 64))):
            frame = av.VideoFrame.from_ndarray(image.permute(1, 2, 0).contiguous().numpy(), format="rgb24")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def test_a_last_frame_that_is_held_is_held_as_long(tmp_path: Path) -> None:
    write_gif(tmp_path / "a.gif", rate=10, last=300)
    times = VideoFile(tmp_path / "a.gif", Part()).times
    clock = Clock(times, interpolated=True, slow_motion=False)
    seconds = [clock.ticks(number) * clock.time_base for number in range(clock.count(4) + 1)]
    # Three frames of 0.1 s and a last one of 3 s, less half an interval.
    assert seconds == [*(Fraction(number, 20) for number in range(7)), Fraction(3, 10) + 3 - Fraction(1, 20)]
    for seconds, held in ((Fraction(3, 10), 0), (Fraction(1), 7), (Fraction(4, 10), 0)):
        times = VideoFile(tmp_path / "a.gif", Part(duration=seconds)).times
        assert (times.held, times.varies, times.pts is not None) == (held, False, held > 0), "to the end of the part"


@pytest.mark.parametrize(("delay", "is_held"), [(149, False), (151, True)])
def test_a_last_frame_is_held_that_lasts_half_as_long_again_as_others(
    tmp_path: Path, delay: int, is_held: bool
) -> None:
    write_gif(tmp_path / "a.gif", rate=1, last=delay)
    assert (VideoFile(tmp_path / "a.gif", Part()).times.held > 0) is is_held


@pytest.mark.parametrize("frames", [4, 5, 6, 7, 8, 11])
@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_a_last_frame_that_is_held_is_held_in_the_file_and_read_again(tmp_path: Path, frames: int, suffix: str) -> None:
    """MP4 keeps only the duration of the frame decoded last, which may not be the one shown last."""
    rate = Fraction(10)
    clock = Clock(
        InputTimes(rate, np.arange(frames), 1 / rate, held=30, even=True), interpolated=True, slow_motion=False
    )
    picture = Picture(64, 48, Colour.for_size(64, 48))

    def join(segments: list[Path], count: int) -> Path:
        muxing.write_video(tmp_path / f"a{suffix}", EncodedVideo(segments, count, clock, "h264", picture), None)
        return tmp_path / f"a{suffix}"

    sink = SegmentedVideo(
        tmp_path, picture=picture, rate=clock.rate, encoding=Encoding("h264"), windows_per_segment=99, join=join
    )
    count = clock.count(frames)
    for number, image in enumerate(moving_frames(count, (48, 64))):
        sink.write(0, number, image)
    path = sink.finish(count)
    assert path is not None
    lasts = Fraction(count - 1, 20) + 3 - Fraction(1, 20)
    with av.open(path) as container:
        stream = container.streams.video[0]
        assert float(container.duration / av.time_base) == pytest.approx(float(lasts), abs=0.01)
        if suffix != ".mkv":
            assert float(stream.duration * stream.time_base) == pytest.approx(float(lasts), abs=0.06)
    times = VideoFile(path, Part()).times
    assert float(times.held / times.rate) == pytest.approx(float(lasts - Fraction(count - 1, 20)), abs=0.06)


def test_a_pause_before_the_last_frames_is_no_hold_of_the_last_one(tmp_path: Path) -> None:
    """MP4 stores durations in decoding order, so that of the frame shown last may include the pause."""
    for count, pause in ((22, 18), (21, 17), (20, 17), (12, 9)):
        times = [number + 75 * (number >= pause) for number in range(count)]
        with av.open(path := tmp_path / f"{count}.mp4", "w") as container:
            stream = container.add_stream("libx264", rate=25)
            assert isinstance(stream, VideoStream)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            stream.codec_context.time_base = Fraction(1, 25)
            for time, image in zip(times, moving_frames(count, (48, 64)), strict=True):
                frame = av.VideoFrame.from_ndarray(image.permute(1, 2, 0).contiguous().numpy(), format="rgb24")
                frame.pts, frame.time_base = time, Fraction(1, 25)
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        assert VideoFile(path, Part()).times.held == 0, count


def test_colours_may_change_within_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be joined from several files."""
    with av.open(tmp_path / "a.mkv", "w") as container:
        stream = container.add_stream("libx264", rate=10)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(4):
            grey = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 200, np.uint8), format="rgb24")
            grey.pts = number
            container.mux(stream.encode(grey))
        container.mux(stream.encode())

    def joined(index: VideoIndex, first: int, stop: int) -> Iterator[av.VideoFrame]:
        for number, frame in enumerate(stream_frames(index, first, stop)):
            if number >= 2:
                frame.color_range = ColorRange.JPEG
            yield frame

    limited = [frame.float().mean().item() for frame in VideoFile(tmp_path / "a.mkv", Part()).frames()]
    monkeypatch.setattr("stvsr.video.sources.stream_frames", joined)
    changed = [frame.float().mean().item() for frame in VideoFile(tmp_path / "a.mkv", Part()).frames()]
    assert changed[:2] == limited[:2] == pytest.approx([200, 200], abs=1)
    # The same samples, now read as full range.
    assert changed[2:] == pytest.approx(2 * [16 + 200 * 219 / 255], abs=1)


def test_a_matrix_that_cannot_be_converted_shows_in_the_check_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the middle of a joined file, it would otherwise end a job after hours."""
    write_video(tmp_path / "a.mkv", moving_frames(4, (48, 64)))

    def joined(index: VideoIndex, first: int, stop: int) -> Iterator[av.VideoFrame]:
        for number, frame in enumerate(stream_frames(index, first, stop)):
            if number >= 2:
                frame = frame.reformat(format="yuv420p")
                frame.colorspace = 8
            yield frame

    monkeypatch.setattr("stvsr.video.sources.stream_frames", joined)
    with pytest.raises(InvalidInput, match=r"a\.mkv: the video's colour matrix is number 8"):
        list(VideoFile(tmp_path / "a.mkv", Part()).read())


@pytest.mark.parametrize("came", [b"", Y4M_FRAME[:-9]], ids=["nothing", "most of a frame"])
def test_ctrl_c_while_the_first_frame_of_a_pipe_is_waited_for_ends_that(came: bytes) -> None:
    """In a callback that FFmpeg runs, PyAV would print the interrupt and wait for more."""
    reader, writer = os.pipe()
    kept, heard = os.dup(0), signal.signal(signal.SIGINT, signal.default_int_handler)
    # If the interrupt is ignored, the pipe is closed later, so that this test ends.
    timers = [Timer(1, os.kill, (os.getpid(), signal.SIGINT)), Timer(20, os.close, (writer,))]
    try:
        os.dup2(reader, 0)
        os.write(writer, came)
        for timer in timers:
            timer.start()
        with pytest.raises(Interrupted, match="stopped before the work began; nothing is saved"):
            Y4mInput(Part())
    finally:
        for timer in timers:
            timer.cancel()
            timer.join()
        os.dup2(kept, 0)
        signal.signal(signal.SIGINT, heard)
        for number in {kept, reader, writer}:
            with suppress(OSError):
                os.close(number)
