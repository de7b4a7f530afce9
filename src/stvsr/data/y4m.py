"""Raw Y4M: whether it ends where a frame ends, of which FFmpeg says nothing."""

import os

from stvsr.errors import Interrupted

Y4M_START = 2**10
"""Bytes that hold at least the header of the whole and that of its first frame."""

PIPE_BUFFER = 2**20
"""Bytes that are asked of standard input at once."""


def is_whole_y4m(start: bytes, total: int, sizes: list[int]) -> bool:
    """Whether Y4M ends where a frame ends.

    Args:
        start: its first `Y4M_START` bytes.
        total: how many bytes there are.
        sizes: bytes of the frames that FFmpeg found.
    """
    header, frame_header = (len(line) + 1 for line in start.split(b"\n")[:2])
    return total == header + len(sizes) * frame_header + sum(sizes)


class CountedPipe:
    """Standard input as a file for FFmpeg.

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
            Interrupted: by Ctrl-C, which reaches the main thread alone; that reads no further than to the first frame.
        """
        try:
            read = os.read(0, most)
            self.start += read[: max(0, Y4M_START - self.total)]
            self.total += len(read)
        except KeyboardInterrupt:
            # PyAV passes on what is an Exception, if not always; this it would print, and go on waiting.
            self.stopped = True
            raise Interrupted("stopped before the work began", None) from None
        return read
