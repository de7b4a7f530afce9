"""Exact random access to the frames of a video file: the right frames or a refusal, never other frames.

decord reads a window where its random access is provably right, PyAV everywhere else. decord is silently
wrong where decoding cannot start afresh at a key frame: open GOPs (x265's default), H.264 whose key frames
are not IDR (intra refresh); and in AVI and MPEG-TS. So a file is first indexed from its packets, without
decoding: presentation times in order, key frames, and whether decord may be trusted with it.

PyAV seeks to the key frame before the window, decodes, and accepts only frames with the indexed times; if
some do not come out, it starts from an earlier key frame and at last from the beginning.

Nothing stays open between reads: no fork inherits a reader, nothing needs pickling, memory is given back.

Limits: a damaged bit stream is refused where FFmpeg reports the damage; decord conceals more of it than PyAV.
Frames come upright (rotation metadata applied) and 8-bit; the file's colour matrix and range are honoured.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

import av
import decord
import numpy as np
import numpy.typing as npt
import torch
from av.container import InputContainer
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from torch import Tensor

from stvsr.errors import DamagedClip

# What goes wrong is told in our own words; FFmpeg's would come once per packet.
decord.logging.set_level(decord.logging.QUIET)

DECORD_CODECS = {"h264", "hevc", "vp9"}
"""Codecs whose closed GOPs decord reads right (tests/data/test_decoding.py); PyAV reads every other."""

DECORD_MAX_BYTES = 256 * 2**20
"""Larger files are left to PyAV, because decord reads the whole file at every opening."""

MISSING_SECONDS = 0.25
"""A file that ends so much before its declared duration is cut off. Less is the rounding of containers."""

EARLIER_KEY_FRAMES = 3
"""Key frames to try before decoding from the beginning; one is enough but for intra refresh."""


@dataclass(frozen=True)
class VideoIndex:
    """What random access needs to know of one file.

    Attributes:
        path: the file.
        pts: presentation times of the frames, ascending, in units of the stream's time base.
        keys: presentation times of the key frames, ascending.
        seekable: False where the container stores no presentation times, which FFmpeg then guesses.
        decord: whether decord's random access into this file is right.
        quarter_turns: counter-clockwise turns by 90 degrees that make the decoded frames upright.
    """

    path: Path
    pts: npt.NDArray[np.int64]
    keys: npt.NDArray[np.int64]
    seekable: bool
    decord: bool
    quarter_turns: int

    def __len__(self) -> int:
        return len(self.pts)


@dataclass(frozen=True)
class _Packet:
    """One coded frame, as far as the index needs it."""

    pts: int
    key: bool
    idr: bool


# An index takes 8 bytes a frame; making it takes about as long as reading a clip.
@lru_cache(maxsize=4096)
def index_video(path: Path) -> VideoIndex:
    """Indexes the frames of a video file from its packets.

    Raises:
        DamagedClip: not a video, cut off, or without the timestamps that make random access exact.
    """
    try:
        with av.open(path) as container:
            stream = video_stream(container, path)
            packets = list(_scan(container, stream, path))
            container.seek(0)
            first = next(container.decode(stream))
            return _index(path, container, stream, packets, first)
    except (av.FFmpegError, StopIteration) as error:
        reason = getattr(error, "strerror", None) or "no frame can be decoded"
        raise DamagedClip(
            f"{path}: not a readable video ({reason}); the file is damaged or no video: replace or remove it"
        ) from None


def read_frames(index: VideoIndex, first: int, count: int) -> Tensor:
    """Frames `first … first + count - 1` in presentation order.

    Returns:
        `(count, 3, H, W)`, uint8 RGB, upright.

    Raises:
        DamagedClip: the frames do not come out as the index says.
    """
    frames = _read_with_decord(index, first, count) if index.decord else None
    if frames is None:
        frames = _read_with_pyav(index, first, count)
    return torch.from_numpy(frames).permute(0, 3, 1, 2).contiguous()


def video_stream(container: InputContainer, path: Path) -> VideoStream:
    """The stream a player would show, with one decoding thread: data workers already use every core."""
    stream = container.streams.best("video")
    if not isinstance(stream, VideoStream):
        raise DamagedClip(f"{path}: holds no video stream; expected a video: replace or remove the file")
    stream.codec_context.thread_count = 1
    return stream


def _scan(container: InputContainer, stream: VideoStream, path: Path) -> Iterator[_Packet]:
    """The packets of `stream` that a player shows, in decoding order."""
    # All streams are read: the declared duration is that of the longest, which may be the sound.
    end = Fraction(0)
    idr_needed = stream.codec_context.name == "h264"
    for packet in container.demux():
        if packet.size == 0 or packet.time_base is None:
            continue
        if packet.pts is not None:
            end = max(end, (packet.pts + (packet.duration or 0)) * packet.time_base)
        # Frames outside the edit list are decoded as references and never shown.
        if packet.stream_index != stream.index or packet.is_discard:
            continue
        if packet.is_corrupt or packet.pts is None:
            problem = "is cut short" if packet.is_corrupt else "carries no timestamp"
            raise DamagedClip(f"{path}: a frame {problem}, so frames cannot be told apart: encode the video again")
        idr = packet.is_keyframe and idr_needed and _is_idr(bytes(packet), stream.codec_context.extradata)
        yield _Packet(packet.pts, packet.is_keyframe, idr or not idr_needed)
    declared = Fraction(container.duration or 0, av.time_base)
    if declared - end > MISSING_SECONDS:
        raise DamagedClip(
            f"{path}: {float(end):.2f} s of video for a declared {float(declared):.2f} s; "
            "the file is cut off: replace or remove it"
        )


def _index(
    path: Path,
    container: InputContainer,
    stream: VideoStream,
    packets: list[_Packet],
    first: av.VideoFrame,
) -> VideoIndex:
    keys = sorted(packet.pts for packet in packets if packet.key)
    # Frames shown before the first key frame (a file cut out of a longer one) have lost their references.
    pts = sorted(packet.pts for packet in packets if keys and packet.pts >= keys[0])
    if len(set(pts)) < len(pts) or not pts:
        raise DamagedClip(f"{path}: frames share timestamps or no key frame exists: encode the video again")
    if first.rotation % 90:
        raise DamagedClip(f"{path}: turned by {first.rotation} degrees; expected a multiple of 90: encode it upright")
    trusted = (
        # AVI and MPEG-TS store too little for decord's seeking: 44 and 60 of 60 reads were wrong.
        any(name in container.format.name for name in ("mp4", "matroska"))
        and stream.codec_context.name in DECORD_CODECS
        and len(pts) == len(packets)
        and _starts_afresh(packets)
        # Deeper samples are dithered to 8 bits by decord and rounded by PyAV.
        and all(component.bits == 8 for component in first.format.components)
        and first.rotation == 0
        and path.stat().st_size <= DECORD_MAX_BYTES
    )
    return VideoIndex(
        path=path,
        pts=np.array(pts, dtype=np.int64),
        keys=np.array(keys, dtype=np.int64),
        seekable=container.format.name != "avi",
        decord=trusted,
        quarter_turns=first.rotation // 90,
    )


def _starts_afresh(packets: list[_Packet]) -> bool:
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


def _read_with_decord(index: VideoIndex, first: int, count: int) -> npt.NDArray[np.uint8] | None:
    """`(count, H, W, 3)`, or None where decord cannot read the file as indexed."""
    try:
        reader = decord.VideoReader(str(index.path), num_threads=1)
        if len(reader) != len(index):
            return None
        frames: npt.NDArray[np.uint8] = reader.get_batch(range(first, first + count)).asnumpy()
    except (decord.DECORDError, RuntimeError):
        return None
    return frames


def _read_with_pyav(index: VideoIndex, first: int, count: int) -> npt.NDArray[np.uint8]:
    """`(count, H, W, 3)`, upright."""
    wanted: list[int] = index.pts[first : first + count].tolist()
    before: list[int] = index.keys[index.keys <= wanted[0]].tolist()
    starts = before[::-1][:EARLIER_KEY_FRAMES] if index.seekable else []
    for start in [*starts, None]:
        # From the beginning every frame must have its indexed time, so guessed times show.
        expected: list[int] = index.pts[: first + count].tolist() if start is None else wanted
        frames = _decode(index.path, start, expected, count)
        if frames is not None:
            return np.ascontiguousarray(np.rot90(frames, index.quarter_turns, axes=(1, 2)))
    raise DamagedClip(
        f"{index.path}: frames {first} to {first + count - 1} do not decode with the declared times; "
        "its timestamps are damaged: encode the video again as MP4 or remove it"
    )


def _decode(path: Path, start: int | None, expected: list[int], count: int) -> npt.NDArray[np.uint8] | None:
    """Decodes from the key frame at `start` (None: from the beginning) to the last of the `expected` times.

    Returns:
        The last `count` of the expected frames, `(count, H, W, 3)`, or None where anything else comes out
        between the first and the last expected time.
    """
    frames: list[npt.NDArray[np.uint8]] = []
    times: list[int | None] = []
    # One for all frames: it keeps its conversion tables, which a frame's own would build anew each time.
    converter = VideoReformatter()
    try:
        with av.open(path) as container:
            stream = video_stream(container, path)
            if start is not None:
                container.seek(start, stream=stream)
            for frame in container.decode(stream):
                # Frames that lack references after a seek are withheld by FFmpeg; these are damaged ones.
                if frame.is_corrupt:
                    raise DamagedClip(f"{path}: damaged near {frame.time} s: replace or remove the file")
                if frame.pts is not None and frame.pts < expected[0]:
                    continue
                times.append(frame.pts)
                if len(times) > len(expected) - count:
                    rgb = converter.reformat(frame, format="rgb24").to_ndarray()
                    frames.append(np.asarray(rgb, dtype=np.uint8))
                if len(times) == len(expected):
                    break
    except av.FFmpegError as error:
        raise DamagedClip(f"{path}: does not decode ({error.strerror}): replace or remove the file") from None
    if times != expected:
        return None
    if len({frame.shape for frame in frames}) > 1:
        raise DamagedClip(f"{path}: the frame size changes within a clip; expected one size: split the video")
    return np.stack(frames)
