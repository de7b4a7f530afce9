"""Standard error for progress and messages; writing to it never fails, even if nobody reads it any more."""

import sys
from contextlib import suppress
from typing import Any

GONE = (OSError, ValueError, AttributeError)
"""Errors of a broken pipe or full disk, of a closed stream, and of standard error that is None."""


class Terminal:
    """The current `sys.stderr`, looked up at each use; if it is closed or its disk full, output is dropped silently."""

    def write(self, text: str) -> None:
        """Writes, if possible."""
        with suppress(*GONE):
            sys.stderr.write(text)

    def flush(self) -> None:
        """Flushes, if possible."""
        with suppress(*GONE):
            sys.stderr.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(sys.stderr, name)


TERMINAL = Terminal()

BAR: dict[str, Any] = {"file": TERMINAL, "dynamic_ncols": True}
"""Arguments of a tqdm bar, which by default adapts its width only on `sys.stderr` itself."""
