"""Where progress and messages go: standard error, also when nobody reads it any more."""

import sys
from contextlib import suppress
from typing import Any


class Terminal:
    """Standard error as it is when it is written to; that it is closed, or a disk full, does not end the work."""

    def write(self, text: str) -> None:
        """Writes, if anybody listens."""
        with suppress(OSError):
            sys.stderr.write(text)

    def flush(self) -> None:
        """Makes what was written appear, if anybody listens."""
        with suppress(OSError):
            sys.stderr.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(sys.stderr, name)


TERMINAL = Terminal()
