"""Where frames go, in a form that survives a kill: segments of a video, PNG files, or raw Y4M.

A video is encoded in segments of whole windows, each by an encoder of its own and each renamed when it is whole. Where
a segment begins depends on the frames alone, so a job that was killed and resumed gives the very segments of one that
was not; they are joined at the end without encoding again.
"""

# PyAV's packets are generic for type checkers alone.
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
"""No encoder moves a frame ahead of more frames than these."""

Y4M_PIXEL_FORMAT = "yuv444p"
"""Nothing is thrown away; whoever reads the pipe decides."""

# The encoder speaks up on standard error otherwise.
os.environ.setdefault("SVT_LOG", "1")


class Sink(Protocol):
    """Takes the frames of a job in order; those it has from an earlier run it need not be given again."""

    def has(self, window: int, numbers: range) -> bool:
        """Whether the frames of a window are there.

        Args:
            window: its number in the job.
            numbers: of its frames.
        """
        ...

    def write(self, window: int, number: int, frame: Tensor) -> None:
        """Takes one frame `(3, H, W)`, uint8 RGB."""
        ...

    def finish(self, count: int) -> Path | None:
        """All frames are there: makes the whole; says where it is, or None where it is gone.

        Args:
            count: how many that are.
        """
        ...

    def abandon(self) -> None:
        """Something went wrong; what is whole stays, what is open goes."""
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
    """Compressed frames in segments.

    Args:
        folder: for the segments.
        picture: of the frames.
        rate: of the frames; times are given to them later.
        encoding: how.
        windows_per_segment: how many.
        join: makes one file of the segments and the number of all their frames.
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
        """Those that are whole, in order."""
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
            # On a full disk closing fails as well.
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
    """Frames as PNG files, numbered from 1.

    Args:
        folder: for the files.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def has(self, window: int, numbers: range) -> bool:
        """See `Sink`."""
        # An empty file has its name, and lost its frame with the power.
        return all(self._path(number).is_file() and self._path(number).stat().st_size for number in numbers)

    def write(self, window: int, number: int, frame: Tensor) -> None:
        """See `Sink`."""
        # Not before there is a frame: the folder says that the work has begun.
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
    """Raw YUV4MPEG2; too big to be kept in part, so a job starts from the beginning.

    Args:
        path: a file; None for standard output.
        picture: of the frames.
        rate: of the frames.
    """

    def __init__(self, path: Path | None, *, picture: Picture, rate: Fraction) -> None:
        self.path = path
        self.file = open(path or 1, "wb", closefd=path is not None)  # noqa: SIM115
        # It cannot name a matrix: whoever reads it assumes the usual one of its size.
        usual = Colour.for_size(picture.width, picture.height).matrix
        self.convert = FromRgb(replace(picture.colour, matrix=usual), Y4M_PIXEL_FORMAT)
        # Not by PyAV, which cannot tell this muxer the shape of pixels.
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
        # On a full disk, or where nobody reads any more, closing fails as well.
        with suppress(OSError):
            self.file.close()


def _y4m_header(picture: Picture, rate: Fraction) -> bytes:
    aspect = picture.pixel_aspect
    levels = "FULL" if picture.colour.full_range else "LIMITED"
    return (
        f"YUV4MPEG2 W{picture.width} H{picture.height} F{rate.numerator}:{rate.denominator} "
        f"Ip A{aspect.numerator}:{aspect.denominator} C444 XYSCSS=444 XCOLORRANGE={levels}\n"
    ).encode()
