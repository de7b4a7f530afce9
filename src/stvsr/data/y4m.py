"""Raw Y4M: whether it ends where a frame ends, which FFmpeg does not check."""

import os

from stvsr.errors import Interrupted

Y4M_START = 2**10
"""So many leading bytes hold at least the stream's header and that of its first frame."""

PIPE_BUFFER = 2**20
"""Bytes requested from standard input at a time."""


def is_whole_y4m(start: bytes, total: int, sizes: list[int]) -> bool:
    """Whether Y4M ends where a frame ends.

    Args:
        start: its first `Y4M_START` bytes.
        total: how many bytes there are.
        sizes: bytes of each frame that FFmpeg found.
    """
    header, frame_header = (len(line) + 1 for line in start.split(b"\n")[:2])
    return total == header + len(sizes) * frame_header + sum(sizes)


class CountedPipe:
    """Standard input as a file for FFmpeg, with a count of bytes.

    Attributes:
        start: its first bytes, `Y4M_START` at most.
        total: how many bytes have been read.
        stopped: whether Ctrl-C ended the reading.
    """

    def __init__(self) -> None:
        self.start = b""
        self.total = 0
        self.stopped = False

    def read(self, most: int) -> bytes:
        """The next bytes, as soon as there are any; none at the end.

        Raises:
            Interrupted: by Ctrl-C, which only the main thread receives; that reads no further than the first frame.
        """
        try:
            chunk = os.read(0, most)
            self.start += chunk[: max(0, Y4M_START - self.total)]
            self.total += len(chunk)
        except KeyboardInterrupt:
            # PyAV passes on most Exceptions; a KeyboardInterrupt it would only print, and keep waiting.
            self.stopped = True
            raise Interrupted("stopped before the work began", None) from None
        return chunk
