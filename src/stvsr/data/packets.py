"""What the packets of a video file reveal without decoding: when frames are shown, and where decoding can start."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import av
from av.codec.context import ThreadType
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from stvsr.data.y4m import Y4M_START, is_whole_y4m
from stvsr.errors import DamagedClip

MISSING_SECONDS = 0.25
"""A file that ends more than this many seconds before its declared duration is cut off; less is container rounding."""

IDR, SEI = 5, 6
"""H.264 NAL unit types: a picture that decoding can start from, and supplemental (SEI) messages."""

RECOVERY_POINT = 6
"""SEI message type: from where on frames are right if decoding starts here (ITU-T H.264, D.2.8)."""

IRAP = range(16, 24)
"""HEVC NAL unit types of pictures that decoding can start from."""

VP8_SHOWN = 0x10
"""The bit of a VP8 frame's first byte that is set if the frame is shown (RFC 6386, 9.1)."""


class Coding(NamedTuple):
    """Where a codec's header and packets say what they hold, in MP4 and Matroska (ISO/IEC 14496-15)."""

    length_at: int  # byte of the header whose last two bits are the size of a unit's length field, minus one
    type_at: int  # lowest bit of the type in a unit's first byte
    type_mask: int
    parameters: int  # type of the sequence parameter set, which states the frame size, among other things


CODINGS = {"h264": Coding(4, 0, 0x1F, 7), "hevc": Coding(21, 1, 0x3F, 33)}


@dataclass(frozen=True)
class Packet:
    """One coded frame, as far as the index needs it.

    Attributes:
        pts: its presentation time, in units of the stream's time base.
        key: whether it is a key frame.
        idr: for a key frame, whether nothing decoded after it refers to anything before it; True for other codecs
            than H.264, where the order of frames shows it (`starts_afresh`).
        exact: for a key frame, whether decoding that starts there gets it, and all that is shown later, right.
        familiar: for a key frame, False if it brings parameters, such as the frame size, that the file's header lacks,
            or if that cannot be told.
        shown: False if the file's edit list or the codec hides the frame, which is decoded because others need it.
        duration: how long it is shown, in the same units; 0 if the file does not say.
    """

    pts: int
    key: bool
    idr: bool
    exact: bool
    familiar: bool
    shown: bool
    duration: int


def video_stream(container: InputContainer, path: Path, *, threads: int = 1) -> VideoStream:
    """The stream a player would show.

    Args:
        container: the opened file.
        path: the file, for messages.
        threads: decoder threads: one, because data workers use every core already, or 0 for one per core.

    Raises:
        DamagedClip: there is no video stream.
    """
    stream = container.streams.best("video")
    # The cover picture of an audio file is a video stream too.
    if not isinstance(stream, VideoStream) or Disposition.attached_pic in stream.disposition:
        raise DamagedClip(f"{path}: has no video stream; expected a video: replace or remove the file")
    # Contrary to PyAV's type stubs, a stream that FFmpeg cannot decode has no codec context.
    if stream.codec_context is None:
        raise DamagedClip(f"{path}: of a codec that FFmpeg does not know: encode the video again or remove the file")
    stream.codec_context.thread_count = threads
    # Where neither the file nor its bit stream states the chroma location, players assume "left" (on every other
    # column), but between columns for JPEG. Y4M states it; what Matroska states for VP9 and FFV1 is lost here.
    if container.format.name != "yuv4mpegpipe" and not (stream.codec_context.pix_fmt or "").startswith("yuvj"):
        stream.codec_context.options = {"chroma_sample_location": "left"}
    if threads != 1:
        stream.codec_context.thread_type = ThreadType.AUTO
    return stream


def scan(container: InputContainer, stream: VideoStream, path: Path) -> Iterator[Packet]:
    """The packets of `stream` in decoding order.

    Raises:
        DamagedClip: the file is cut short, or a packet is damaged or has no timestamp.
    """
    # All streams are read: the declared duration is that of the longest, which may be the sound.
    end = pictures_end = Fraction(0)
    sizes: list[int] = []
    codec, header = stream.codec_context.name, stream.codec_context.extradata or b""
    for packet in container.demux():
        if packet.size == 0 or packet.time_base is None:
            continue
        shown_until = ((packet.pts or 0) + (packet.duration or 0)) * packet.time_base
        if packet.pts is not None:
            end = max(end, shown_until)
        if packet.stream_index != stream.index:
            continue
        # In Matroska, an untimed frame after a key frame dates from before a cut and refers to what was cut off.
        if packet.pts is None and "matroska" in container.format.name and sizes:
            continue
        if packet.is_corrupt or packet.pts is None:
            problem = "is cut short" if packet.is_corrupt else "has no timestamp"
            raise DamagedClip(f"{path}: a frame {problem}, so frames cannot be identified: encode the video again")
        sizes.append(packet.size)
        pictures_end = max(pictures_end, shown_until)
        key_flags = _key_frame_flags(packet, codec, header) if packet.is_keyframe else (True, True, True)
        # VP8 has reference frames that are never shown.
        hidden = packet.is_discard or (codec == "vp8" and not bytes(packet)[0] & VP8_SHOWN)
        yield Packet(packet.pts, packet.is_keyframe, *key_flags, shown=not hidden, duration=packet.duration or 0)
    if container.format.name == "yuv4mpegpipe":
        with path.open("rb") as file:
            whole = is_whole_y4m(file.read(Y4M_START), path.stat().st_size, sizes)
        if not whole:
            raise DamagedClip(f"{path}: ends within a frame; the file is cut off: replace or remove it")
    declared = Fraction(container.duration or 0, av.time_base)
    if container.format.name == "avi" and stream.average_rate:
        # FFmpeg reports the duration of what is there; the header counts the frames that were written.
        declared, end = Fraction(stream.frames) / stream.average_rate, pictures_end
    # In an MPEG-TS, times before its clock wraps around are negative.
    end -= min(Fraction(container.start_time or 0, av.time_base), Fraction(0))
    if declared - end > MISSING_SECONDS:
        raise DamagedClip(
            f"{path}: {float(end):.2f} s of video, but {float(declared):.2f} s declared; "
            "the file is cut off: replace or remove it, or, if its last frame is only shown longer, trim it: "
            "ffmpeg -i IN -c copy OUT.mp4"
        )


def _key_frame_flags(packet: "av.Packet[Any]", codec: str, header: bytes) -> tuple[bool, bool, bool]:
    """`Packet.idr`, `Packet.exact` and `Packet.familiar` of a key frame."""
    coding = CODINGS.get(codec)
    if coding is None:
        return True, True, True
    units = list(_units(bytes(packet), coding, header))
    if codec == "h264":
        idr = any(kind == IDR for kind, _ in units)
        exact = idr or any(kind == SEI and _recovers_at_once(unit) for kind, unit in units)
    else:
        idr, exact = True, any(kind in IRAP for kind, _ in units)
    parameter_sets = (unit for kind, unit in units if kind == coding.parameters)
    known = _length_bytes(coding, header) > 0 and all(unit in header for unit in parameter_sets)
    return idr, exact, known and not packet.has_sidedata("new_extradata")


def begins_at(packets: list[Packet], first_decoded: int | None) -> int:
    """Presentation time of the first frame that lacks no references: a file may be cut out of a longer one.

    Args:
        packets: of a stream.
        first_decoded: presentation time of the first frame that FFmpeg returns; None if it has none.
    """
    first_key = min((packet for packet in packets if packet.key), key=lambda packet: packet.pts, default=None)
    if first_key is None:
        return 0
    if first_key.exact or first_decoded is None:
        return first_key.pts
    # The key frame only begins an intra refresh: FFmpeg withholds frames until the declared end of it.
    return max(first_key.pts, first_decoded)


def shown_last(packets: list[Packet], *, in_decoding_order: bool) -> int:
    """How long the last shown frame is shown, in units of the stream's time base; 0 if the file does not say.

    Args:
        packets: of a stream, in decoding order.
        in_decoding_order: whether durations are the times between frames in decoding order, as in MP4 and QuickTime,
            so that only the last one is its own frame's.
    """
    last = max(packets, key=lambda packet: (packet.shown, packet.pts))
    timed = packets[-1] if in_decoding_order else last
    return max(0, timed.pts + timed.duration - last.pts) if timed.shown else 0


def starts_afresh(packets: list[Packet]) -> bool:
    """Whether no frame refers to anything from before the key frame that precedes it in decoding order."""
    key_pts = None
    for packet in packets:
        if packet.key:
            if not packet.idr:
                return False
            key_pts = packet.pts
        # A frame that is decoded after a key frame but shown before it may refer to the previous GOP.
        elif key_pts is None or packet.pts < key_pts:
            return False
    return True


def _length_bytes(coding: Coding, header: bytes) -> int:
    """Bytes of a unit's length field; 0 where start codes separate units, as in MPEG-TS."""
    return (header[coding.length_at] & 3) + 1 if len(header) > coding.length_at and header[0] == 1 else 0


def _units(data: bytes, coding: Coding, header: bytes) -> Iterator[tuple[int, bytes]]:
    """Types and bytes of a packet's NAL units."""
    for unit in _split_units(data, _length_bytes(coding, header)):
        if unit:
            yield unit[0] >> coding.type_at & coding.type_mask, unit


def _split_units(data: bytes, length_bytes: int) -> Iterator[bytes]:
    if not length_bytes:
        yield from re.split(rb"\0\0+\x01", data)[1:]
        return
    position = 0
    while position + length_bytes < len(data):
        size = int.from_bytes(data[position : position + length_bytes], "big")
        position += length_bytes
        yield data[position : position + size]
        position += size


def _recovers_at_once(unit: bytes) -> bool:
    """Whether an H.264 SEI unit says that decoding which starts here is exact from this very frame on.

    So it is in an open GOP. With intra refresh it takes some frames, which FFmpeg may return all the same. The message
    says how many, but x264 with B-frames states too few, so nobody can tell from where on all is right.
    """
    # Without the 3s inserted where content would look like a start code (emulation prevention).
    content = iter(unit[1:].replace(b"\0\0\3", b"\0\0"))

    def read_number() -> int:
        """A number that is stored as a sum of bytes: some of 255, then a smaller one."""
        total = 0
        for byte in content:
            total += byte
            if byte < 255:
                break
        return total

    while True:
        kind, size = read_number(), read_number()
        message = bytes(islice(content, size))
        if not message:
            return False
        if kind == RECOVERY_POINT:
            # First the number of frames it takes (0 is coded as a single 1 bit), then whether the match is exact.
            return message[0] >> 6 == 0b11
