"""Where frames come from: a video file, a folder of PNG frames, or raw Y4M on standard input.

A source describes its frames before the first is read, and yields them in order. A file is indexed first
(`data/decoding.py`), so that a truncated one is refused before hours of work, and the number of frames and their exact
times are known.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Protocol

import av
from av.video.stream import VideoStream
from torch import Tensor

from stvsr.data.containers import open_input
from stvsr.data.decoding import index_video, stream_frames
from stvsr.data.frame_folders import FrameFolder
from stvsr.data.packets import video_stream
from stvsr.data.png import read_png
from stvsr.data.videos import pauses
from stvsr.data.y4m import PIPE_BUFFER, CountedPipe, is_whole_y4m
from stvsr.errors import DamagedClip, Interrupted, InvalidInput
from stvsr.video.clock import InputTimes, snapped, times_of
from stvsr.video.colour import Colour, ToRgb
from stvsr.video.picture import Picture

STANDARD = Path("-")
"""Stands for standard input and output."""


class Source(Protocol):
    """Frames to be upscaled.

    Attributes:
        path: for messages.
        picture: what the frames have in common.
        times: when they are shown.
        count: how many there are; None if unknown before the end.
        breaks: numbers of the frames that follow a pause.
    """

    path: Path
    picture: Picture
    times: InputTimes
    count: int | None
    breaks: frozenset[int]

    def frames(self) -> Iterator[Tensor]:
        """Yields each frame once, `(3, h, w)`, uint8 RGB, as it is stored: not rotated.

        Raises:
            DamagedClip: a frame cannot be read as it should be.
        """
        ...

    def read(self) -> Iterator[object]:
        """Reads the same frames without converting them, so that a damaged one is found before hours of work.

        Raises:
            DamagedClip: as `frames`.
        """
        ...


@dataclass(frozen=True)
class Part:
    """A stretch of time in a source.

    Attributes:
        start: seconds after its beginning.
        duration: seconds; None for all that follows.
    """

    start: Fraction = Fraction(0)
    duration: Fraction | None = None

    @property
    def whole(self) -> bool:
        """Whether nothing is left out."""
        return self.start == 0 and self.duration is None

    def of(self, times: InputTimes, count: int | None, path: Path) -> tuple[int, int | None]:
        """Its first frame, and one past its last (None: to the end).

        Raises:
            InvalidInput: no frame lies in it.
        """
        count_or_max = sys.maxsize if count is None else count
        first = times.first_at(self.start, count_or_max)
        stop = count if self.duration is None else times.first_at(self.start + self.duration, count_or_max)
        if first == stop:
            length = "" if count is None else f" (the video lasts {float(count / times.rate):.2f} s)"
            raise InvalidInput(
                f"{path}: no frame in the requested part{length}; choose an earlier --start or a longer --duration"
            )
        return first, stop


class VideoFile:
    """A video file of any format that FFmpeg decodes.

    Args:
        path: the file.
        part: what to read of it.

    Attributes:
        start: when the file's first frame is shown, in seconds of its own time.
        last_time: when its last frame is shown.
        last_duration: how long that is shown, in seconds; 0 if unknown.
        begin: when the part begins; its first frame may be shown later.

    Raises:
        DamagedClip: missing, not a video, cut off, or without exact times.
        InvalidInput: no frame in the part, or colours that cannot be converted.
    """

    def __init__(self, path: Path, part: Part) -> None:
        self.path = path
        if path.exists() and not path.is_file():
            raise DamagedClip(
                f"{path}: a pipe or a device; send it as Y4M: ffmpeg -i … -f yuv4mpegpipe - | stvsr-upscale -"
            )
        if not path.is_file():
            raise DamagedClip(f"{path}: no such file; expected a video file, a folder of PNG frames, or - for Y4M")
        self.index = index_video(path)
        with open_input(path) as container:
            stream = video_stream(container, path)
            time_base = stream.time_base
            assert time_base is not None
            declared = (stream.guessed_rate, stream.average_rate, stream.base_rate)
            frame = next(container.decode(stream))
            self.picture = Picture.of(frame, stream)
            self.stream_index = stream.index
        pts, last_duration = self.index.pts, self.index.last_duration
        self.start, self.last_time = int(pts[0]) * time_base, int(pts[-1]) * time_base
        self.last_duration = last_duration * time_base
        self.begin = self.start + part.start
        if part.duration is not None:
            # A frame is held to the end of the part at most.
            last_duration = min(last_duration, int((self.begin + part.duration - self.last_time) / time_base))
        times = times_of(pts, time_base, declared, last_duration)
        self.first, stop = part.of(times, len(pts), path)
        assert stop is not None
        self.stop = stop
        self.times = times.part(self.first, self.stop)
        self.count: int | None = self.stop - self.first
        self.breaks = frozenset(
            position - self.first for position in (pauses(self.index) if times.pts is not None else ())
        )

    def frames(self) -> Iterator[Tensor]:
        """See `Source`."""
        # Colours may change within a joined file or a recording.
        converter_of = cache(ToRgb)
        for frame, colour in self.read():
            yield converter_of(colour)(frame)

    def read(self) -> Iterator[tuple[av.VideoFrame, Colour]]:
        """See `Source`."""
        for frame in stream_frames(self.index, self.first, self.stop):
            if (frame.width, frame.height) != (self.picture.width, self.picture.height):
                raise DamagedClip(
                    f"{self.path}: the frame size changes from {self.picture.width}x{self.picture.height} to "
                    f"{frame.width}x{frame.height}; expected one size: split the video there"
                )
            try:
                colour = Colour.of(frame)
            except InvalidInput as error:
                raise InvalidInput(f"{self.path}: {error}") from None
            yield frame, colour


class PngSequence:
    """A folder of numbered PNG frames.

    Args:
        path: the folder.
        rate: frames per second.
        part: what to read of it.

    Raises:
        InvalidInput: no frame, a gap in the numbers, or no frame in the part.
        DamagedClip: a frame is not an 8-bit RGB PNG, or of another size.
    """

    def __init__(self, path: Path, rate: Fraction, part: Part) -> None:
        self.path = path
        folder = FrameFolder.open(path)
        folder.check_consecutive()
        times = InputTimes(rate)
        first, stop = part.of(times, len(folder.frames), path)
        self.files = list(folder.frames.values())[first:stop]
        # RGB has no matrix; the output gets the usual one for this size.
        self.picture = Picture(folder.width, folder.height, Colour.for_size(folder.width, folder.height))
        self.times = times.part(first, first + len(self.files))
        self.count: int | None = len(self.files)
        self.breaks: frozenset[int] = frozenset()

    def frames(self) -> Iterator[Tensor]:
        """See `Source`."""
        return map(read_png, self.files)

    def read(self) -> Iterator[Tensor]:
        """See `Source`."""
        return self.frames()


class Y4mInput:
    """Raw YUV4MPEG2 on standard input, as ffmpeg and VapourSynth write it.

    Args:
        part: what to read of it.

    Raises:
        DamagedClip: not Y4M, or empty.
        Interrupted: by Ctrl-C before the first frame came.
    """

    def __init__(self, part: Part) -> None:
        self.path = STANDARD
        self.pipe = CountedPipe()
        try:
            self.container = av.open(self.pipe, "r", format="yuv4mpegpipe", buffer_size=PIPE_BUFFER)
            stream = video_stream(self.container, self.path)
            self.decoded = self._frames_of(stream)
            self.head = next(self.decoded)
        # OSError: the shell has closed standard input.
        except (av.FFmpegError, OSError, StopIteration):
            if not self.pipe.stopped:
                raise DamagedClip(
                    "standard input: not Y4M, or empty; expected raw video as written by ffmpeg -f yuv4mpegpipe -"
                ) from None
        if self.pipe.stopped:
            # FFmpeg makes do with what came before Ctrl-C.
            raise Interrupted("stopped before the work began", None)
        self.picture = Picture.of(self.head, stream)
        self.times = InputTimes(snapped(stream.average_rate or Fraction(25)))
        self.first, self.stop = part.of(self.times, None, self.path)
        self.count: int | None = None
        self.breaks: frozenset[int] = frozenset()

    def frames(self) -> Iterator[Tensor]:
        """See `Source`."""
        return map(ToRgb(self.picture.colour), islice(self._decode(), self.first, self.stop))

    def read(self) -> Iterator[Tensor]:
        """See `Source`; reads nothing, since a pipe cannot be read twice."""
        return iter(())

    def _decode(self) -> Iterator[av.VideoFrame]:
        yield self.head
        try:
            yield from self.decoded
        except av.FFmpegError as error:
            raise DamagedClip(f"standard input: {error.strerror}; send the video again") from None

    def _frames_of(self, stream: VideoStream) -> Iterator[av.VideoFrame]:
        sizes = []
        for packet in self.container.demux(stream):
            if packet.size:
                sizes.append(packet.size)
            yield from packet.decode()
        if not is_whole_y4m(self.pipe.start, self.pipe.total, sizes):
            raise DamagedClip("standard input: ends within a frame; send the whole video")


def open_source(path: Path, *, rate: Fraction | None, part: Part) -> Source:
    """Opens the source that a path on the command line names.

    Args:
        path: a file, a folder, or `-`.
        rate: frames per second, only for a folder of frames.
        part: what to read of it.

    Raises:
        UserError: it cannot be read.
    """
    if path.is_dir():
        if rate is None:
            raise InvalidInput(
                f"{path}: a folder of frames has no frame rate; add --rate, for example --rate 24000/1001"
            )
        return PngSequence(path, rate, part)
    if rate is not None:
        raise InvalidInput(f"--rate {rate}: {path} has its own frame rate; omit it")
    return Y4mInput(part) if path == STANDARD else VideoFile(path, part)
