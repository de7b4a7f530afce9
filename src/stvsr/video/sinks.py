"""Where frames go, in a form that survives a kill: segments of a video, PNG files, or raw Y4M.

A video is encoded in segments of whole windows, each by an encoder of its own and each renamed when it is whole. Where
a segment begins depends on the input and the settings alone, so a resumed job gives the segments of an undisturbed one;
they are joined at the end without encoding again.
"""

# PyAV's packets are generic only for type checkers.
from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Protocol

import av
from av.container import OutputContainer
from av.video.stream import VideoStream
from torch import Tensor

from stvsr.data.containers import open_output
from stvsr.data.png import write_png
from stvsr.files import flush_to_disk
from stvsr.video.codecs import CODECS, Encoding
from stvsr.video.colour import Colour, FromRgb
from stvsr.video.picture import Picture

NUMBER_UNIT = Fraction(1, 1000)
"""Matroska counts milliseconds; in a segment one stands for one frame, so that nothing is rounded."""

REORDERED = 16
"""No encoder moves a frame ahead by more places than this."""

Y4M_PIXEL_FORMAT = "yuv444p"
"""Full chroma: subsampling is left to the pipe's reader."""

# Otherwise SVT-AV1 logs to standard error.
os.environ.setdefault("SVT_LOG", "1")


class Sink(Protocol):
    """Takes the frames of a job in order, but for those that it has from an earlier run."""

    def has(self, window: int, numbers: range) -> bool:
        """Whether an earlier run made the frames of a window.

        Args:
            window: its number in the job.
            numbers: of its frames.
        """
        ...

    def write(self, window: int, number: int, frame: Tensor) -> None:
        """Takes one frame `(3, H, W)`, uint8 RGB."""
        ...

    def finish(self, count: int) -> Path | None:
        """Completes the output after its last frame; returns its path, or None for standard output.

        Args:
            count: of all frames.
        """
        ...

    def abandon(self) -> None:
        """Cleans up after an error: finished files stay, an open one is removed."""
        ...


def frame_encoder(container: OutputContainer, encoding: Encoding, picture: Picture, rate: Fraction) -> VideoStream:
    """An encoder for frames of one size and rate."""
    options = encoding.options(picture.width * picture.height)
    stream = container.add_stream(CODECS[encoding.codec].encoder, rate=rate, options=options)
    assert isinstance(stream, VideoStream)
    context = stream.codec_context
    context.width, context.height, context.pix_fmt = picture.width, picture.height, encoding.pixel_format
    context.time_base = 1 / rate
    context.sample_aspect_ratio = picture.pixel_aspect
    context.thread_count = 0
    # The encoder needs these too: it writes them into its bit stream.
    context.color_primaries, context.color_trc = picture.colour.primaries, picture.colour.transfer
    if not av.VideoFormat(encoding.pixel_format).is_rgb:
        context.colorspace, context.color_range = picture.colour.matrix, picture.colour.range
    return stream


class SegmentedVideo:
    """Encodes frames into segments.

    Args:
        folder: for the segments.
        picture: of the frames.
        rate: of the frames; exact times are set when segments are joined.
        encoding: how they are compressed.
        windows_per_segment: how many.
        join: makes one file of the segments, given the number of all their frames.
    """

    def __init__(
        self,
        folder: Path,
        *,
        picture: Picture,
        rate: Fraction,
        encoding: Encoding,
        windows_per_segment: int,
        join: Callable[[list[Path], int], Path],
    ) -> None:
        self.folder = folder
        self.picture = replace(picture, colour=encoding.stored(picture.colour))
        self.rate = rate
        self.encoding = encoding
        self.windows_per_segment = windows_per_segment
        self.join = join
        self.convert = FromRgb(self.picture.colour, encoding.pixel_format)
        for path in folder.glob("*.part"):
            path.unlink()
        self.finished = {int(path.stem) for path in self.segments}
        self.segment: int | None = None
        self.container: OutputContainer | None = None
        self.stream: VideoStream | None = None
        self.decoding_time = 0

    @property
    def segments(self) -> list[Path]:
        """The finished segments, in order."""
        return sorted(self.folder.glob("[0-9]*.mkv"))

    def has(self, window: int, numbers: range) -> bool:
        """See `Sink`."""
        return window // self.windows_per_segment in self.finished

    def write(self, window: int, number: int, frame: Tensor) -> None:
        """See `Sink`."""
        if window // self.windows_per_segment != self.segment:
            self._close()
            self._open(window // self.windows_per_segment, number)
        encoded = self.convert(frame)
        encoded.pts, encoded.time_base = number, 1 / self.rate
        assert self.stream is not None
        self._mux(self.stream.encode(encoded))

    def finish(self, count: int) -> Path | None:
        """See `Sink`."""
        self._close()
        return self.join(self.segments, count)

    def abandon(self) -> None:
        """See `Sink`."""
        if self.container is not None:
            # On a full disk, closing fails as well.
            with suppress(av.FFmpegError):
                self.container.close()
            self.container = None
            self._path(".mkv.part").unlink(missing_ok=True)

    def _close(self) -> None:
        if self.container is not None and self.stream is not None and self.segment is not None:
            self._mux(self.stream.encode())
            self.container.close()
            self.container = None
            part = self._path(".mkv.part")
            flush_to_disk(part)
            part.replace(self._path(".mkv"))

    def _open(self, segment: int, first: int) -> None:
        self.segment = segment
        self.container = open_output(self._path(".mkv.part"), "matroska")
        self.stream = frame_encoder(self.container, self.encoding, self.picture, self.rate)
        self.stream.time_base = NUMBER_UNIT
        self.decoding_time = first - REORDERED

    def _mux(self, packets: Iterable[av.Packet[VideoStream]]) -> None:
        assert self.container is not None
        for packet in packets:
            # The encoder counts in frames, and so does the segment.
            packet.time_base = NUMBER_UNIT
            # Not the encoder's own: x265 makes it up for videos of one or two frames.
            packet.dts = self.decoding_time
            self.decoding_time += 1
            self.container.mux(packet)

    def _path(self, extension: str) -> Path:
        return self.folder / f"{self.segment:06d}{extension}"


class PngFolder:
    """Writes frames as PNG files, numbered from 1.

    Args:
        folder: for the files.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def has(self, window: int, numbers: range) -> bool:
        """See `Sink`."""
        # A power failure can leave a file with its name but no content.
        return all(self._path(number).is_file() and self._path(number).stat().st_size for number in numbers)

    def write(self, window: int, number: int, frame: Tensor) -> None:
        """See `Sink`."""
        # Not before there is a frame: the folder means that work has begun.
        self.folder.mkdir(exist_ok=True)
        write_png(self._path(number), frame)

    def finish(self, count: int) -> Path | None:
        """See `Sink`."""
        return self.folder

    def abandon(self) -> None:
        """See `Sink`."""

    def _path(self, number: int) -> Path:
        return self.folder / f"{number + 1:08d}.png"


class Y4mOutput:
    """Writes raw YUV4MPEG2; too big to be kept unfinished, so a job starts from the beginning.

    Args:
        path: a file; None for standard output.
        picture: of the frames.
        rate: of the frames.
    """

    def __init__(self, path: Path | None, *, picture: Picture, rate: Fraction) -> None:
        self.path = path
        self.file = open(path or 1, "wb", closefd=path is not None)  # noqa: SIM115
        # Y4M cannot state a matrix: readers assume the usual one for the frame size.
        usual = Colour.for_size(picture.width, picture.height).matrix
        self.convert = FromRgb(replace(picture.colour, matrix=usual), Y4M_PIXEL_FORMAT)
        # Not by PyAV, which cannot give this muxer the pixel aspect ratio.
        self.file.write(_y4m_header(picture, rate))

    def has(self, window: int, numbers: range) -> bool:
        """See `Sink`."""
        return False

    def write(self, window: int, number: int, frame: Tensor) -> None:
        """See `Sink`."""
        self.file.write(b"FRAME\n")
        self.file.write(self.convert(frame).to_ndarray().tobytes())

    def finish(self, count: int) -> Path | None:
        """See `Sink`."""
        self.file.close()
        return self.path

    def abandon(self) -> None:
        """See `Sink`."""
        # On a full disk, or a pipe that nobody reads any more, closing fails as well.
        with suppress(OSError):
            self.file.close()


def _y4m_header(picture: Picture, rate: Fraction) -> bytes:
    aspect = picture.pixel_aspect
    levels = "FULL" if picture.colour.full_range else "LIMITED"
    return (
        f"YUV4MPEG2 W{picture.width} H{picture.height} F{rate.numerator}:{rate.denominator} "
        f"Ip A{aspect.numerator}:{aspect.denominator} C444 XYSCSS=444 XCOLORRANGE={levels}\n"
    ).encode()
