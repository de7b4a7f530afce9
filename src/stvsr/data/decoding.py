"""Exact random access to the frames of a video file: the right frames or a refusal, never wrong ones.

decord, if it is installed, reads a window where its random access is provably right, PyAV everywhere else. decord
is silently wrong where decoding cannot start afresh at a key frame: open GOPs (x265's default), H.264 whose key
frames are not IDR (intra refresh); where the size of frames changes; and in AVI and MPEG-TS. So a file is first
indexed from its packets, without decoding: presentation times in order, key frames, and whether decord may be
trusted with it.

PyAV seeks to the key frame before the window, decodes, and accepts only frames with the indexed times; if some are
missing, it retries from earlier key frames and finally from the beginning. Key frames after which the picture is
renewed gradually (intra refresh) are not used: FFmpeg returns frames before all of it is renewed.

Nothing stays open between reads: no fork inherits a reader, nothing needs pickling, memory is freed.
Limits: a damaged bit stream is refused where FFmpeg reports the damage; decord conceals more of it than PyAV. In AVI,
wrong frames may come after MPEG-4 frames that are announced but not coded (N-VOPs).
Frames come upright (rotation metadata applied) and 8-bit; the file's colour matrix and range are honoured.
"""

import errno
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, dropwhile, islice, zip_longest
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import torch
from av.container import InputContainer
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from torch import Tensor

from stvsr.data.containers import can_be_read, ffmpeg_name, open_input
from stvsr.data.orientation import UPRIGHT, Orientation, display_matrix
from stvsr.data.packets import Packet, begins_at, scan, shown_last, starts_afresh, video_stream
from stvsr.errors import DamagedClip, InvalidInput, UserError
from stvsr.explanations import beyond_limits

try:
    import decord
except ModuleNotFoundError:  # it has no wheels for ARM and macOS
    decord = None
else:
    # Errors are reported in our own words; FFmpeg would print its own once per packet.
    decord.logging.set_level(decord.logging.QUIET)

DECORD_CODECS = {"h264", "hevc"}
"""Codecs whose closed GOPs decord reads correctly (tests/data/test_decoding.py); PyAV reads all others.

decord reads VP9's too, but VP9 may change the frame size anywhere, and decord then keeps to the first frame's size.
"""

DECORD_MAX_BYTES = 256 * 2**20
"""Larger files are left to PyAV, because decord reads the whole file at every opening."""

NO_FAULT_OF_A_FILE = (errno.EAGAIN, errno.EMFILE, errno.ENFILE)
"""Errors of a system out of threads or open files. Not ENOMEM: a damaged file may ask for any amount of memory."""

ENCODE_AGAIN = "replace the file, encode it again with ffmpeg (which conceals damage), or cut that part out"
"""What to do about damage within a file."""

EARLIER_KEY_FRAMES = 3
"""Key frames to try before decoding from the beginning; one is enough except in MPEG-TS, where seeking overshoots."""


@dataclass(frozen=True)
class VideoIndex:
    """What random access needs to know about a file.

    Attributes:
        path: the file.
        pts: presentation times of the frames, ascending, in units of the stream's time base.
        keys: presentation times of the key frames that decoding may start with, ascending.
        seekable: False where the container stores no presentation times, which FFmpeg then guesses.
        decord: whether decord's random access into this file is right.
        orientation: what makes the decoded frames upright.
        last_duration: of the last frame, in units of the stream's time base; 0 if the file does not say.
    """

    path: Path
    pts: npt.NDArray[np.int64]
    keys: npt.NDArray[np.int64]
    seekable: bool
    decord: bool
    orientation: Orientation
    last_duration: int = 0

    def __len__(self) -> int:
        return len(self.pts)


def index_video(path: Path) -> VideoIndex:
    """Indexes the frames of a video file from its packets; reuses an earlier index until the file changes.

    Raises:
        DamagedClip: not a video, cut off, or without the timestamps that make random access exact.
    """
    status = path.stat() if path.is_file() else None
    index_or_problem = _index_or_problem(path, path.resolve(), status and (status.st_size, status.st_mtime_ns))
    if isinstance(index_or_problem, str):
        raise DamagedClip(index_or_problem)
    return index_or_problem


# An index takes 8 bytes a frame; making it takes about as long as reading a clip.
@lru_cache(maxsize=4096)
def _index_or_problem(path: Path, resolved: Path, state: tuple[int, int] | None) -> VideoIndex | str:
    """The index of a file in a given state, or what is wrong with it; read errors are raised, so never cached."""
    try:
        with open_input(path) as container:
            stream = video_stream(container, path)
            packets = list(scan(container, stream, path))
            # Opened once more, since not every container can be rewound.
            with open_input(path) as reopened:
                first = next(reopened.decode(video_stream(reopened, path)))
            return _build_index(path, container, stream, packets, first)
    except DamagedClip as error:
        return str(error)
    except (av.FFmpegError, StopIteration) as error:
        reason = getattr(error, "strerror", None) or "no frame can be decoded"
        if getattr(error, "errno", None) in NO_FAULT_OF_A_FILE:
            raise UserError(f"{path}: {beyond_limits(reason)}") from None
        if getattr(error, "errno", None) in (errno.EACCES, errno.EIO) and not can_be_read(path):
            raise DamagedClip(f"{path}: cannot be read ({reason}); check its permissions and the disk") from None
        raise DamagedClip(
            f"{path}: not a readable video ({reason}); the file is damaged, not a video, or in a "
            "format that FFmpeg cannot read: replace or remove it"
        ) from None


def read_frames(index: VideoIndex, first: int, count: int) -> Tensor:
    """Frames `first … first + count - 1` in presentation order.

    Returns:
        `(count, 3, H, W)`, uint8 RGB, upright.

    Raises:
        InvalidInput: the index has no such frames.
        DamagedClip: decoding does not yield the indexed frames.
    """
    if not 0 <= first <= len(index) - count:
        raise InvalidInput(f"{index.path}: has {len(index)} frames; expected {first + count} or more, from {first} on")
    frames = _read_with_decord(index, first, count) if index.decord else None
    if frames is None:
        frames = _read_with_pyav(index, first, count)
    return index.orientation.upright(torch.from_numpy(frames).permute(0, 3, 1, 2)).contiguous()


def stream_frames(index: VideoIndex, first: int, stop: int) -> Iterator[av.VideoFrame]:
    """Decoded frames `first … stop - 1` in presentation order, one by one, as stored.

    Raises:
        DamagedClip: decoding does not yield the indexed frames.
    """
    expected: list[int] = index.pts[first:stop].tolist()
    if not index.seekable:
        # The times are guesses; the order is right.
        number = first
        for frame in islice(_iter_decoded(index, None, int(index.pts[0]), threads=0), first, stop):
            yield frame
            number += 1
        if number < first + len(expected):
            raise _time_mismatch(index, f"frame {number}")
        return
    for start in _start_times(index, expected[0]):
        frames = _iter_decoded(index, start, expected[0], threads=0)
        head = next(frames, None)
        if head is None or head.pts != expected[0]:
            continue
        for time, frame in zip_longest(expected, chain([head], islice(frames, len(expected) - 1))):
            if frame is None or frame.pts != time:
                raise _time_mismatch(index, f"frame {first + expected.index(time)}")
            yield frame
        return
    raise _time_mismatch(index, f"frame {first}")


def _build_index(
    path: Path, container: InputContainer, stream: VideoStream, packets: list[Packet], first: av.VideoFrame
) -> VideoIndex:
    keys = sorted(packet.pts for packet in packets if packet.key and packet.exact)
    beginning = begins_at(packets, first.pts)
    pts = sorted(packet.pts for packet in packets if packet.shown and packet.pts >= beginning)
    if len(set(pts)) < len(pts) or not pts:
        raise DamagedClip(f"{path}: frames share timestamps or no key frame exists: encode the video again")
    if first.rotation % 90:
        raise DamagedClip(f"{path}: rotated by {first.rotation} degrees; expected a multiple of 90: encode it upright")
    orientation = Orientation.of(display_matrix(first))
    trusted = (
        decord is not None
        # AVI and MPEG-TS store too little for decord's seeking: 44 and 60 of 60 reads were wrong.
        and any(name in container.format.name for name in ("mp4", "matroska"))
        and stream.codec_context.name in DECORD_CODECS
        and len(pts) == len(packets)
        and starts_afresh(packets)
        and all(packet.familiar for packet in packets)
        # Deeper samples are dithered to 8 bits by decord and rounded by PyAV.
        and all(component.bits == 8 for component in first.format.components)
        and orientation == UPRIGHT
        and path.stat().st_size <= DECORD_MAX_BYTES
    )
    return VideoIndex(
        path=path,
        pts=np.array(pts, dtype=np.int64),
        # QuickTime stores the palette with the very first packet alone: after a seek all would be black.
        keys=np.array([] if first.format.name == "pal8" else keys, dtype=np.int64),
        seekable=container.format.name != "avi",
        decord=trusted,
        orientation=orientation,
        last_duration=shown_last(packets, in_decoding_order="mp4" in container.format.name),
    )


def _read_with_decord(index: VideoIndex, first: int, count: int) -> npt.NDArray[np.uint8] | None:
    """`(count, H, W, 3)`, or None where decord cannot read the file as indexed."""
    try:
        reader = decord.VideoReader(ffmpeg_name(index.path), num_threads=1)
        if len(reader) != len(index):
            return None
        frames: npt.NDArray[np.uint8] = reader.get_batch(range(first, first + count)).asnumpy()
    except (decord.DECORDError, RuntimeError, UnicodeEncodeError):  # the last: a file name that is not UTF-8
        return None
    return frames


def _read_with_pyav(index: VideoIndex, first: int, count: int) -> npt.NDArray[np.uint8]:
    """`(count, H, W, 3)`."""
    wanted: list[int] = index.pts[first : first + count].tolist()
    for start in _start_times(index, wanted[0]):
        # From the beginning on, every frame must have its indexed time: that reveals guessed times.
        expected: list[int] = index.pts[: first + count].tolist() if start is None else wanted
        frames = _decode_from(index, start, expected, count)
        if frames is not None:
            return frames
    raise _time_mismatch(index, f"frames {first} to {first + count - 1}")


def _start_times(index: VideoIndex, time: int) -> list[int | None]:
    """Key frames to decode from in order to get the frame at `time`, the most promising first; None: the beginning."""
    before: list[int | None] = index.keys[index.keys <= time].tolist()
    return [*(before[::-1][:EARLIER_KEY_FRAMES] if index.seekable else []), None]


def _time_mismatch(index: VideoIndex, which: str) -> DamagedClip:
    return DamagedClip(
        f"{index.path}: {which} cannot be decoded at the declared time; the file is damaged or stores fields "
        "separately: encode it again (ffmpeg -i IN -vf bwdif OUT.mp4) or replace it"
    )


def _decode_from(index: VideoIndex, start: int | None, expected: list[int], count: int) -> npt.NDArray[np.uint8] | None:
    """Decodes from the key frame at `start` (None: from the beginning) to the last of the `expected` times.

    Returns:
        The last `count` of the expected frames, `(count, H, W, 3)`, or None if decoding yields other frames
        between the first and the last expected time.
    """
    frames: list[npt.NDArray[np.uint8]] = []
    times: list[int | None] = []
    # One for all frames, because it keeps its conversion tables; a frame's own would rebuild them each time.
    converter = VideoReformatter()
    for frame in _iter_decoded(index, start, expected[0], threads=1):
        times.append(frame.pts)
        if len(times) > len(expected) - count:
            rgb = converter.reformat(frame, format="rgb24").to_ndarray()
            frames.append(np.asarray(rgb, dtype=np.uint8))
        if len(times) == len(expected):
            break
    if times != expected:
        return None
    if len({frame.shape for frame in frames}) > 1:
        raise DamagedClip(f"{index.path}: the frame size changes within a clip; expected one size: split the video")
    return np.stack(frames)


def _iter_decoded(index: VideoIndex, start: int | None, since: int | None, *, threads: int) -> Iterator[av.VideoFrame]:
    """Frames from time `since` on, decoded from the key frame at time `start` (None: from the beginning)."""
    path = index.path
    try:
        with open_input(path) as container:
            stream = video_stream(container, path, threads=threads)
            # Drops empty packets, which repeat the frame before (Theora), but not the untimed one that ends decoding.
            packets = (packet for packet in container.demux(stream) if packet.size or packet.pts is None)
            if start is not None:
                container.seek(start, stream=stream)
            # Seeking may end at another key frame, even one that decoding must not start from.
            from_key_frame = dropwhile(lambda packet: start is not None and packet.pts not in index.keys, packets)
            for frame in chain.from_iterable(packet.decode() for packet in from_key_frame):
                if since is not None and frame.pts is not None and frame.pts < since:
                    continue
                # Damaged: frames that merely lack references after a seek are withheld by FFmpeg.
                if frame.is_corrupt:
                    raise DamagedClip(f"{path}: damaged near {frame.time} s: {ENCODE_AGAIN}")
                yield frame
    except av.FFmpegError as error:
        if error.errno in NO_FAULT_OF_A_FILE:
            raise UserError(f"{path}: {beyond_limits(str(error.strerror))}") from None
        raise DamagedClip(f"{path}: cannot be decoded ({error.strerror}): {ENCODE_AGAIN}") from None
