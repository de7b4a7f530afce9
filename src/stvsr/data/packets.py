"""What the packets of a video file tell without decoding: the times of its frames, and where decoding can start."""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
from av.codec.context import ThreadType
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from stvsr.data.y4m import Y4M_START, is_whole_y4m
from stvsr.errors import DamagedClip

MISSING_SECONDS = 0.25
"""A file that ends this many seconds before its declared duration is cut off. Less is the rounding of containers."""


@dataclass(frozen=True)
class Packet:
    """One coded frame, as far as the index needs it.

    Attributes:
        pts: its presentation time, in units of the stream's time base.
        key: whether it is a key frame.
        idr: whether decoding can start with it.
        shown: False where the file's edit list hides it: it is decoded, for others need it, and not shown.
    """

    pts: int
    key: bool
    idr: bool
    shown: bool


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
    stream.codec_context.thread_count = threads
    if threads != 1:
        stream.codec_context.thread_type = ThreadType.AUTO
    return stream


def scan(container: InputContainer, stream: VideoStream, path: Path) -> Iterator[Packet]:
    """The packets of `stream` in decoding order.

    Raises:
        DamagedClip: the file is cut short, or a packet is damaged or has no timestamp.
    """
    # All streams are read: the declared duration is that of the longest, which may be the sound.
    end = Fraction(0)
    sizes: list[int] = []
    idr_needed = stream.codec_context.name == "h264"
    for packet in container.demux():
        if packet.size == 0 or packet.time_base is None:
            continue
        if packet.pts is not None:
            end = max(end, (packet.pts + (packet.duration or 0)) * packet.time_base)
        if packet.stream_index != stream.index:
            continue
        if packet.is_corrupt or packet.pts is None:
            problem = "is cut short" if packet.is_corrupt else "carries no timestamp"
            raise DamagedClip(f"{path}: a frame {problem}, so frames cannot be told apart: encode the video again")
        idr = packet.is_keyframe and idr_needed and _is_idr(bytes(packet), stream.codec_context.extradata)
        sizes.append(packet.size)
        yield Packet(packet.pts, packet.is_keyframe, idr or not idr_needed, not packet.is_discard)
    if container.format.name == "yuv4mpegpipe":
        with path.open("rb") as file:
            whole = is_whole_y4m(file.read(Y4M_START), path.stat().st_size, sizes)
        if not whole:
            raise DamagedClip(f"{path}: ends within a frame; the file is cut off: replace or remove it")
    declared = Fraction(container.duration or 0, av.time_base)
    # Times before the clock of an MPEG-TS starts anew are negative.
    end -= min(Fraction(container.start_time or 0, av.time_base), Fraction(0))
    if declared - end > MISSING_SECONDS:
        raise DamagedClip(
            f"{path}: {float(end):.2f} s of video for a declared {float(declared):.2f} s; "
            "the file is cut off: replace or remove it"
        )


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


def _is_idr(data: bytes, extradata: bytes | None) -> bool:
    """Whether an H.264 packet of an MP4 or Matroska file is a decoder refresh, IDR (NAL unit type 5)."""
    if not extradata or len(extradata) < 5 or extradata[0] != 1:
        return False
    length_bytes = (extradata[4] & 3) + 1
    position = 0
    while position + length_bytes < len(data):
        size = int.from_bytes(data[position : position + length_bytes], "big")
        position += length_bytes
        if data[position] & 0x1F == 5:
            return True
        position += size
    return False
