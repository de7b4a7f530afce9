"""Writes the finished file: new pictures, how players rotate them, and all else of the input, copied as it is."""

# PyAV's packets are generic only for type checkers.
from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from math import gcd, lcm
from pathlib import Path
from typing import Any

import av
from av.container import OutputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from stvsr.data.containers import open_input, open_output
from stvsr.errors import UserError
from stvsr.explanations import OF_LIMITS
from stvsr.files import OF_A_DISK
from stvsr.video.clock import Clock
from stvsr.video.codecs import CODECS, CONTAINERS, Container
from stvsr.video.companions import Companions, add_copy, describe, options_for
from stvsr.video.picture import Picture

FINEST = 2**31 - 1
"""The most time units per second that every container takes."""

FINEST_VARYING = 10**6
"""The most where intervals between frames vary: MP4 stores intervals and reordering in 32 bits, and some are long."""


class Incomplete(UserError):
    """The segments of a video do not hold its frames; joining them again would fail the same way."""


class Unreadable(Incomplete):
    """The file made of the segments does not give back all their frames."""


@dataclass(frozen=True)
class EncodedVideo:
    """The new pictures, encoded.

    Attributes:
        segments: consecutive files, in which the time of a frame is its number.
        count: number of all frames.
        clock: their times.
        codec: one of `CODECS`.
        picture: their size, and how they are shown.
        start: when the first is shown, in seconds.
    """

    segments: list[Path]
    count: int
    clock: Clock
    codec: str
    picture: Picture
    start: Fraction = Fraction(0)

    @property
    def unit(self) -> Fraction:
        """The unit of packet times, in seconds."""
        # The longest of which the clock's unit and the start are multiples.
        frame = self.clock.time_base
        unit = Fraction(gcd(frame.numerator, self.start.numerator), lcm(frame.denominator, self.start.denominator))
        if unit.denominator > FINEST:
            unit = frame
        return unit if self.clock.times.pts is None else max(unit, Fraction(1, FINEST_VARYING))

    def packets(self, stream: VideoStream, *, quicktime: bool) -> Iterator[Packet[VideoStream]]:
        """All packets in decoding order, with their times.

        Args:
            stream: of the file they go into.
            quicktime: whether that is MP4 or QuickTime, which stores when frames are decoded and shown, but a
                duration only for the frame that is decoded last.

        Raises:
            Incomplete: the segments do not hold each frame once.
        """
        unit = self.unit
        scale, shift = self.clock.time_base / unit, round(self.start / unit)

        def time(number: int) -> int:
            return round(self.clock.ticks(number) * scale)

        numbers = list(map(numbers_in, self.segments))
        # Segments are known by name alone: shorter ones, of other code, would lack frames.
        if sorted(held := list(chain.from_iterable(numbers))) != list(range(self.count)):
            found = len(set(held).intersection(range(self.count)))
            unexpected = f", and {len(held) - found} unexpected ones" if len(held) > found else ""
            raise Incomplete(f"the segments hold {found} of {self.count} frames{unexpected}; start over")
        # How many frames earlier than shown frames are decoded; the same in all segments, so that they join.
        delay = max(map(reordering, numbers))
        decoded = 0
        for path in self.segments:
            for packet in _picture_packets(path):
                number = packet.pts
                assert number is not None
                packet.time_base = unit
                # To the end of the held frame, which is shown last.
                is_held = quicktime and self.clock.times.held and decoded == self.count - 1
                packet.duration = time(self.count if is_held else number + 1) - time(number)
                packet.pts = time(number) + shift
                packet.dts = time(decoded - delay) + shift
                packet.stream = stream
                decoded += 1
                yield packet


def numbers_in(path: Path) -> list[int]:
    """The numbers of the frames in a segment, in decoding order."""
    return [packet.pts or 0 for packet in _picture_packets(path)]


def reordering(numbers: list[int]) -> int:
    """By how many frames decoding runs ahead of display in a segment, given its numbers in decoding order."""
    first = min(numbers, default=0)
    return max((place - (number - first) for place, number in enumerate(numbers)), default=0)


def write_video(path: Path, video: EncodedVideo, companions: Companions | None) -> int:
    """Joins the segments and everything else into one file.

    Args:
        path: the file; its extension decides the container.
        video: its pictures.
        companions: what else the input holds; None if the input is not a video file.

    Returns:
        How many damaged packets of sound and subtitles are left out, because the muxer refuses them.

    Raises:
        av.FFmpegError: it cannot be written, or the input can no longer be read.
        Incomplete: the segments do not hold all frames, or the file does not give them back.
    """
    refused: list[av.FFmpegError] = []
    extension = path.suffix.lower()
    container = CONTAINERS[extension]
    with ExitStack() as stack:
        source = None if companions is None else stack.enter_context(open_input(companions.path, thorough=True))
        options = options_for(container, {} if source is None else source.metadata)
        output = stack.enter_context(open_output(path, container.form, options))
        first = stack.enter_context(open_input(video.segments[0]))
        stream = _add_pictures(output, first.streams.video[0], video, container)
        others: Iterable[Packet[Any]] = ()
        if companions is not None and source is not None:
            copies = {
                index: add_copy(output, source.streams[index], usual_channels=index in companions.usual_channels)
                for index in companions.streams
            }
            describe(output, stream, source, companions)
            others = companions.packets(source, copies)
        pictures: Iterable[Packet[Any]] = video.packets(stream, quicktime=container.quicktime)
        for packet in heapq.merge(pictures, others, key=_decoding_time):
            try:
                output.mux(packet)
            except (av.InvalidDataError, av.ArgumentError) as error:
                # Damaged sound shows only here, after all frames are made, and often at the next packet.
                refused.append(error)
    if (readable := _readable_frames(path)) < video.count:
        path.unlink()
        raise Unreadable(
            f"only {readable} of {video.count} frames can be read from the finished {extension} file; choose another "
            f"--pixel-format, --codec or container{'' if extension == '.mkv' else ', preferably .mkv'}"
        )
    return len(refused)


def _add_pictures(
    output: OutputContainer, template: VideoStream, video: EncodedVideo, container: Container
) -> VideoStream:
    stream = output.add_stream_from_template(template, opaque=True)
    context, picture = stream.codec_context, video.picture
    stream.time_base = video.unit
    context.framerate = video.clock.rate
    context.sample_aspect_ratio = picture.pixel_aspect
    tag = CODECS[video.codec].tag
    if tag is not None and container.quicktime:
        context.codec_tag = tag
    if container.turns and picture.display_matrix is not None:
        stream.set_display_matrix(picture.display_matrix)
    return stream


def _picture_packets(path: Path) -> Iterator[Packet[VideoStream]]:
    with open_input(path) as container:
        yield from (packet for packet in container.demux(container.streams.video[0]) if packet.size)


def _readable_frames(path: Path) -> int:
    """How many pictures can be read back from a file: muxers take some that no demuxer reads."""
    try:
        return sum(1 for _ in _picture_packets(path))
    except (av.FFmpegError, IndexError) as error:
        # A failing disk or a limit of the system says nothing about the file.
        if getattr(error, "errno", None) in (*OF_A_DISK, *OF_LIMITS):
            raise
        return 0


def _decoding_time(packet: Packet[Any]) -> Fraction:
    return (packet.dts or 0) * packet.time_base
