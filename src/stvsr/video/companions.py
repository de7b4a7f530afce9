"""What a file holds beside its pictures: sound, subtitles, attachments, titles, chapters, copied as they are.

Sound and subtitles are copied packet by packet, byte for byte, and stay in sync with the pictures. What the output's
container cannot hold is left out, and reported before the work begins.
"""

# PyAV's packets are generic only for type checkers.
from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, inf
from pathlib import Path
from typing import TYPE_CHECKING

import av
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.stream import Disposition, Stream
from av.video.stream import VideoStream

from stvsr.data.containers import open_input, open_output
from stvsr.video.clock import Clock
from stvsr.video.codecs import CONTAINERS, Container
from stvsr.video.sources import Part, VideoFile

if TYPE_CHECKING:
    from av.container.core import Chapter

# Metadata of the input file or its video bit stream, not of the content; prefixes.
NOT_PASSED_ON = (
    *("major_brand", "minor_version", "compatible_brands", "encoder", "duration", "vendor_id", "timecode"),
    *("bps", "number_of_frames", "number_of_bytes", "_statistics", "alpha_mode", "stereo_mode"),
)


NEEDED = Fraction(1, 10)
"""Seconds of sound before a stream's start that its decoder may need, though they are not played."""

LONGEST_LAST_FRAME = Fraction(1)
"""Seconds after the last frame by which streams must begin: later ones are of another programme."""


@dataclass(frozen=True)
class Companions:
    """What is copied from a file beside its pictures, and when it is played.

    Attributes:
        path: the input file.
        streams: indices of the copied streams.
        usual_channels: those of `streams` that need the default layout for their channel count: Matroska, AVI and
            others store only the count, which MP4 refuses and players take for that layout.
        left_out: descriptions of the streams that are not copied.
        zero: the input's time that becomes 0.
        begin: the time before which nothing is copied.
        end: the time from which on nothing is copied.
        stretch: how many times as long everything lasts.
        picture_stream: index of the pictures' stream.
        hides: whether the output can hold sound from before its start that is not played, as in a trimmed file.
    """

    path: Path
    streams: list[int]
    usual_channels: list[int]
    left_out: list[str]
    zero: Fraction
    begin: float | Fraction
    end: float | Fraction
    stretch: int
    picture_stream: int
    hides: bool

    @classmethod
    def of(cls, source: VideoFile, part: Part, clock: Clock, extension: str) -> Companions:
        """What else of a source the output can hold; PNG frames and Y4M hold nothing else."""
        streams, usual_channels, left_out, starts = [], [], [], [source.times.start]
        with open_input(source.path, thorough=True) as container:
            # QuickTime also keeps chapters in a data stream, which FFmpeg writes anew; not to be told among several.
            data = [stream.index for stream in container.streams if stream.name == "bin_data"]
            chapters = data[0] if len(data) == 1 and container.chapters() else None
            for stream in container.streams:
                if stream.index == source.stream_index or stream.index == chapters:
                    continue
                reason = _why_not_copied(stream, extension, clock) or _why_not_overlapping(stream, source)
                if reason is None:
                    streams.append(stream.index)
                    # Other codecs' packets carry the channel layout.
                    if str(stream.name).startswith("pcm_") and not _can_mux(stream, extension):
                        usual_channels.append(stream.index)
                    if stream.type == "audio" and stream.start_time is not None and stream.time_base is not None:
                        starts.append(stream.start_time * stream.time_base)
                else:
                    left_out.append(f"{stream.type} stream {stream.index} ({reason})")
        return cls(
            path=source.path,
            streams=streams,
            usual_channels=usual_channels,
            left_out=left_out,
            zero=min(starts) if part.whole else source.times.start,
            # Of a whole file everything, even sound before its start that a decoder may need.
            begin=-inf if part.whole else source.times.start,
            end=inf if part.duration is None else source.begin + part.duration,
            stretch=clock.stretch,
            picture_stream=source.stream_index,
            hides=extension in CONTAINERS and CONTAINERS[extension].quicktime,
        )

    def packets(self, container: InputContainer, copies: dict[int, Stream]) -> Iterator[Packet[Stream]]:
        """The packets of all copied streams, with the output's times and streams."""
        last: dict[int, Fraction] = {}
        played = set[int]()
        streams = [container.streams[index] for index in copies if container.streams[index].type != "attachment"]
        for packet in container.demux(streams) if streams else ():
            unit = packet.time_base
            if packet.size == 0 or packet.pts is None or unit is None:
                continue
            if packet.stream.type == "subtitle":
                self._trim(packet, packet.pts, unit)
            if not self.begin <= packet.pts * unit < self.end:
                continue
            if packet.is_discard:
                # Discarded in the middle or at the end: without an edit list the output would play it.
                if packet.stream_index in played:
                    continue
                if not self.hides and packet.pts < (packet.stream.start_time or 0) - NEEDED / unit:
                    continue
            else:
                played.add(packet.stream_index)
            packet.pts = round(self.start_of(packet.pts * unit) / unit)
            packet.dts = packet.pts if packet.dts is None else round(self.start_of(packet.dts * unit) / unit)
            if packet.duration:
                packet.duration *= self.stretch
            _keep_order(packet, last)
            packet.stream = copies[packet.stream_index]
            yield packet

    def start_of(self, time: Fraction) -> Fraction:
        """The output's time, in seconds, that a time of the input becomes."""
        return (time - self.zero) * self.stretch

    def _trim(self, subtitle: Packet[Stream], pts: int, unit: Fraction) -> None:
        """Trims a subtitle to what is shown between `begin` and `end`."""
        until_begin = self.begin - pts * unit
        if 0 < until_begin < (subtitle.duration or 0) * unit:
            subtitle.duration = (subtitle.duration or 0) - ceil(until_begin / unit)
            pts += ceil(until_begin / unit)
            subtitle.pts = subtitle.dts = pts
        until_end = self.end - pts * unit
        if 0 < until_end < (subtitle.duration or 0) * unit:
            subtitle.duration = ceil(until_end / unit)


def _keep_order(packet: Packet[Stream], last: dict[int, Fraction]) -> None:
    """Moves a packet that is not after the last of its stream: sound to a sample after it, subtitles to its time.

    Times step back where a recording was joined from parts, and muxers refuse that.

    Args:
        packet: with the output's times.
        last: time of the last packet of each stream, in seconds.
    """
    assert packet.pts is not None
    assert packet.dts is not None
    assert packet.time_base is not None
    unit, step = packet.time_base, 0
    earliest = last.get(packet.stream_index, packet.dts * unit - 1)
    if isinstance(packet.stream, AudioStream):
        unit, step = Fraction(1, packet.stream.codec_context.sample_rate), 1
    if packet.dts * packet.time_base < earliest + step * unit:
        old = packet.time_base
        packet.time_base = unit
        packet.dts = ceil(earliest / unit) + step
        packet.pts = max(round(packet.pts * old / unit), packet.dts)
        packet.duration = round((packet.duration or 0) * old / unit)
    last[packet.stream_index] = packet.dts * packet.time_base


def _why_not_copied(stream: Stream, extension: str, clock: Clock) -> str | None:
    """Why a stream cannot be copied, or None."""
    if extension not in CONTAINERS:
        return "this output holds pictures only"
    if stream.type == "attachment":
        return None if extension == ".mkv" else f"{extension} cannot hold attachments"
    if stream.type not in ("audio", "subtitle"):
        return "only sound, subtitles and attachments are copied"
    if stream.type == "audio" and clock.slow_motion:
        return "in slow motion it would be out of sync"
    # Contrary to PyAV's type hints, a stream that FFmpeg cannot decode has no codec context.
    if stream.codec_context is None:
        return "its codec is unknown to FFmpeg"
    name = stream.codec_context.name
    # Only sound has channels: other streams are tried once.
    layouts = (False, True) if stream.type == "audio" else (False,)
    if not any(_can_mux(stream, extension, usual_channels=usual) for usual in layouts):
        return f"{name} cannot be copied into {extension}"
    return None


def _why_not_overlapping(stream: Stream, source: VideoFile) -> str | None:
    """Why a stream does not overlap the pictures in time, or None: each programme of a recording has its own clock."""
    if stream.start_time is None or stream.time_base is None or stream.type == "attachment":
        return None
    first = stream.start_time * stream.time_base
    last = first + (stream.duration or 0) * stream.time_base
    end = source.last_time + max(LONGEST_LAST_FRAME, source.last_duration)
    if first > end or (stream.duration and last < source.start):
        return f"it begins {float(first - source.start):+.1f} s from the pictures, as in another programme"
    return None


def _can_mux(stream: Stream, extension: str, *, usual_channels: bool = False) -> bool:
    """Whether a container takes a stream, found by trying: FFmpeg lists codecs that its muxers refuse."""
    try:
        # Opened anew: packets read from the given container would be missing for its next reader.
        with (
            open_input(Path(stream.container.name), thorough=True) as source,
            open_output(io.BytesIO(), CONTAINERS[extension].form) as trial,
        ):
            copy = add_copy(trial, source.streams[stream.index], usual_channels=usual_channels)
            trial.start_encoding()
            # Not for subtitles: the first may be an hour into the file.
            packets = source.demux(source.streams[stream.index]) if stream.type == "audio" else ()
            for packet in packets:
                if packet.size and packet.pts is not None:
                    packet.pts, packet.dts, packet.stream = 0, 0, copy
                    trial.mux(packet)
                    break
    # ValueError is PyAV's own, for a codec that is not in FFmpeg's list.
    except (av.FFmpegError, ValueError):
        return False
    return True


def add_copy(output: OutputContainer, template: Stream, *, usual_channels: bool = False) -> Stream:
    """Adds a stream to the output for the packets of one of the input.

    Args:
        output: where it is added.
        template: the input's stream.
        usual_channels: whether sound is given the default layout for its channel count.
    """
    stream = output.add_stream_from_template(template)
    stream.metadata.update(_stream_metadata(template.metadata))
    stream.disposition = template.disposition
    if usual_channels and isinstance(stream, AudioStream):
        # Nine or eleven channels have no default layout. The stream's own is not read: PyAV would free a channel list
        # that it does not own.
        with suppress(ValueError):
            stream.codec_context.layout = f"{stream.codec_context.channels}c"
    return stream


def options_for(kind: Container, metadata: dict[str, str]) -> dict[str, str]:
    """The muxer's options; they keep metadata that phones write, such as `com.apple.quicktime.location.ISO6709`.

    MP4 and MOV have two places for metadata. The usual one, which all players read, has a fixed list of names.
    """
    if not kind.quicktime:
        return {}
    flag = "+use_metadata_tags" if any(name.startswith("com.") for name in metadata) else ""
    # With its index first, a file can be played while it is downloaded. With this timescale, streams that do not start
    # at 0 start within 0.01 ms of their time, instead of within 1 ms.
    return {"movflags": f"+faststart{flag}", "movie_timescale": "90000"}


def describe(output: OutputContainer, stream: VideoStream, source: InputContainer, companions: Companions) -> None:
    """Copies titles, languages and chapters."""
    output.metadata.update(_passed_on(source.metadata))
    original = source.streams[companions.picture_stream]
    stream.metadata.update(_stream_metadata(original.metadata))
    stream.disposition = original.disposition & ~Disposition.attached_pic
    chapters: list[Chapter] = []
    for chapter in source.chapters():
        unit = chapter["time_base"]
        if unit is None or not companions.zero < chapter["end"] * unit or chapter["start"] * unit >= companions.end:
            continue
        start, end = (
            round(max(Fraction(0), companions.start_of(Fraction(min(time * unit, companions.end)))) / unit)
            for time in (chapter["start"], chapter["end"])
        )
        chapters.append({**chapter, "start": start, "end": end})
    if chapters:
        output.set_chapters(chapters)


def _stream_metadata(metadata: dict[str, str]) -> dict[str, str]:
    """A stream's metadata to pass on. FFmpeg reads titles in MP4 as `name`; muxers expect `title`."""
    passed_on = _passed_on(metadata)
    if "name" in passed_on:
        passed_on.setdefault("title", passed_on.pop("name"))
    return passed_on


def _passed_on(metadata: dict[str, str]) -> dict[str, str]:
    return {key: value for key, value in metadata.items() if not key.lower().startswith(NOT_PASSED_ON)}
