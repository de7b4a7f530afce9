"""What the packets of a video file tell without decoding: the times of its frames, and where decoding can start."""

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
"""A file that ends this many seconds before its declared duration is cut off. Less is the rounding of containers."""

IDR, SEI = 5, 6
"""Types of H.264 units: of a picture that decoding can start with, and of messages."""

RECOVERY_POINT = 6
"""Type of a message: from where on frames are right if decoding starts here (ITU-T H.264, D.2.8)."""

IRAP = range(16, 24)
"""Types of HEVC units of a picture that decoding can start with."""

VP8_SHOWN = 0x10
"""The bit of the first byte of a VP8 frame that says that it is shown (RFC 6386, 9.1)."""


class Coding(NamedTuple):
    """Where the packets of a codec say what they hold, in MP4 and Matroska (ISO/IEC 14496-15)."""

    length_at: int  # byte of the header whose last bits tell how many bytes the length of a unit takes
    type_at: int  # bit of a unit's first byte
    type_mask: int
    parameters: int  # type of the unit that tells the size of the frames, among other things


CODINGS = {"h264": Coding(4, 0, 0x1F, 7), "hevc": Coding(21, 1, 0x3F, 33)}


@dataclass(frozen=True)
class Packet:
    """One coded frame, as far as the index needs it.

    Attributes:
        pts: its presentation time, in units of the stream's time base.
        key: whether it is a key frame.
        idr: of a key frame, whether nothing that is decoded after it needs anything from before; True where the order
            of the frames tells that.
        exact: of a key frame, whether decoding that starts with it gives it, and all that is shown later, as they are.
        familiar: of a key frame, False where it brings parameters, of size above all, that the file's header does not
            have, or where that cannot be told.
        shown: False where the file's edit list hides it, or the codec: it is decoded, for others need it.
        duration: how long it is shown, in the same units; 0 where the file does not tell.
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
        container: of the file.
        path: the file, for messages.
        threads: that decode: one, because data workers use every core already, or 0 for one a core.

    Raises:
        DamagedClip: there is no video stream.
    """
    stream = container.streams.best("video")
    # A cover picture of sound is a video stream too, of one frame without a time.
    if not isinstance(stream, VideoStream) or Disposition.attached_pic in stream.disposition:
        raise DamagedClip(f"{path}: holds no video stream; expected a video: replace or remove the file")
    # The types of PyAV do not say so, but a stream that FFmpeg cannot decode has none.
    if stream.codec_context is None:
        raise DamagedClip(f"{path}: of a codec that FFmpeg does not know: encode the video again or remove the file")
    stream.codec_context.thread_count = threads
    # Where neither the file nor its bit stream tells where chroma lies players take it to be on every other column, but
    # JPEG's between two. Y4M tells it; what Matroska tells of VP9 and FFV1 is lost by this.
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
        # In Matroska after a key frame with a time: a frame before a cut, which refers to what was cut off.
        if packet.pts is None and "matroska" in container.format.name and sizes:
            continue
        if packet.is_corrupt or packet.pts is None:
            problem = "is cut short" if packet.is_corrupt else "carries no timestamp"
            raise DamagedClip(f"{path}: a frame {problem}, so frames cannot be told apart: encode the video again")
        sizes.append(packet.size)
        pictures_end = max(pictures_end, shown_until)
        key = _key_frame(packet, codec, header) if packet.is_keyframe else (True, True, True)
        # VP8 has frames that others refer to and nobody sees.
        hidden = packet.is_discard or (codec == "vp8" and not bytes(packet)[0] & VP8_SHOWN)
        yield Packet(packet.pts, packet.is_keyframe, *key, shown=not hidden, duration=packet.duration or 0)
    if container.format.name == "yuv4mpegpipe":
        with path.open("rb") as file:
            whole = is_whole_y4m(file.read(Y4M_START), path.stat().st_size, sizes)
        if not whole:
            raise DamagedClip(f"{path}: ends within a frame; the file is cut off: replace or remove it")
    declared = Fraction(container.duration or 0, av.time_base)
    if container.format.name == "avi" and stream.average_rate:
        # FFmpeg gives the duration of what is there; the header counts the frames that were written.
        declared, end = Fraction(stream.frames) / stream.average_rate, pictures_end
    # Times before the clock of an MPEG-TS starts anew are negative.
    end -= min(Fraction(container.start_time or 0, av.time_base), Fraction(0))
    if declared - end > MISSING_SECONDS:
        raise DamagedClip(
            f"{path}: {float(end):.2f} s of video for a declared {float(declared):.2f} s; "
            "the file is cut off: replace or remove it; or, if its last picture is held, make a file that ends there: "
            "ffmpeg -i IN -c copy OUT.mp4"
        )


def _key_frame(packet: "av.Packet[Any]", codec: str, header: bytes) -> tuple[bool, bool, bool]:
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
    own = (unit for kind, unit in units if kind == coding.parameters)
    known = _length_bytes(coding, header) > 0 and all(unit in header for unit in own)
    return idr, exact, known and not packet.has_sidedata("new_extradata")


def begins_at(packets: list[Packet], first_decoded: int | None) -> int:
    """Presentation time of the first frame that does not lack references: a file may be cut out of a longer one.

    Args:
        packets: of a stream.
        first_decoded: presentation time of the first frame that FFmpeg gives; None where it has none.
    """
    first_key = min((packet for packet in packets if packet.key), key=lambda packet: packet.pts, default=None)
    if first_key is None:
        return 0
    if first_key.exact or first_decoded is None:
        return first_key.pts
    # It only begins a refresh: FFmpeg withholds frames until that is declared to be over.
    return max(first_key.pts, first_decoded)


def shown_last(packets: list[Packet], *, in_decoding_order: bool) -> int:
    """How long the frame that is shown last is shown, in units of the stream's time base; 0 where nobody tells.

    Args:
        packets: of a stream, in decoding order.
        in_decoding_order: whether durations are the times between frames in that order, as in MP4 and QuickTime: only
            the last one is its frame's own.
    """
    last = max(packets, key=lambda packet: (packet.shown, packet.pts))
    telling = packets[-1] if in_decoding_order else last
    return max(0, telling.pts + telling.duration - last.pts) if telling.shown else 0


def starts_afresh(packets: list[Packet]) -> bool:
    """Whether no frame needs anything from before the last key frame in decoding order."""
    key = None
    for packet in packets:
        if packet.key:
            if not packet.idr:
                return False
            key = packet.pts
        # A frame that is decoded after a key frame and shown before it may refer to the GOP before.
        elif key is None or packet.pts < key:
            return False
    return True


def _length_bytes(coding: Coding, header: bytes) -> int:
    """How many bytes tell the length of a unit; 0 where start codes divide units, as in MPEG-TS."""
    return (header[coding.length_at] & 3) + 1 if len(header) > coding.length_at and header[0] == 1 else 0


def _units(data: bytes, coding: Coding, header: bytes) -> Iterator[tuple[int, bytes]]:
    """The units of a packet with their types."""
    for unit in _divided(data, _length_bytes(coding, header)):
        if unit:
            yield unit[0] >> coding.type_at & coding.type_mask, unit


def _divided(data: bytes, length_bytes: int) -> Iterator[bytes]:
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
    """Whether an H.264 unit of messages says that decoding which starts here is exact from this very frame on.

    So it is where a GOP is open. With intra refresh it takes some frames, which FFmpeg may give out all the same; how
    many is written there, but x264 writes too few where it uses B-frames, so nobody can tell where all is right.
    """
    # A 3 was put in wherever content would look like a start code.
    content = iter(unit[1:].replace(b"\0\0\3", b"\0\0"))

    def number() -> int:
        """As many bytes of 255 as go into it, and what is left."""
        total = 0
        for byte in content:
            total += byte
            if byte < 255:
                break
        return total

    while True:
        kind, size = number(), number()
        message = bytes(islice(content, size))
        if not message:
            return False
        if kind == RECOVERY_POINT:
            # The number of frames that it takes, of which 0 is written as a single 1; and whether the match is exact.
            return message[0] >> 6 == 0b11
