"""Where progress and messages go: standard error, also when nobody reads it any more."""

import sys
from contextlib import suppress
from typing import Any

GONE = (OSError, ValueError, AttributeError)
"""Nobody reads it, or a disk is full; Python has closed it; there was none from the beginning."""


class Terminal:
    """Standard error as it is when it is written to; that it is closed, or a disk full, does not end the work."""

    def write(self, text: str) -> None:
        """Writes, if anybody listens."""
        with suppress(*GONE):
            sys.stderr.write(text)

    def flush(self) -> None:
        """Makes what was written appear, if anybody listens."""
        with suppress(*GONE):
            sys.stderr.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(sys.stderr, name)


TERMINAL = Terminal()

BAR: dict[str, Any] = {"file": TERMINAL, "dynamic_ncols": True}
"""For a progress bar, which asks only Python's own standard error for its width unless told to."""
