"""Errors that a user can cause and fix.

Every entry point prints such an error as one line and exits with status 1 (see `cli.py`); any other exception
is a bug of ours and keeps its traceback. A message names the value, what was expected and the remedy.
"""

from collections.abc import Sequence


class UserError(Exception):
    """An error that a user can cause and fix, with a one-line message."""


class DamagedClip(UserError):
    """A clip cannot be read correctly.

    Training skips, names and counts it; scoring stops, because a score over other clips than requested is wrong.
    """


class TrainingDiverged(UserError):
    """Too many steps in a row had a non-finite loss or gradient."""


class Interrupted(Exception):
    """A run was asked to stop; entry points exit with status 130.

    Args:
        done: how far the run came.
        remedy: how to continue this run alone; None if nothing is saved. A caller that runs it as part of a larger job
            replaces this.
    """

    def __init__(self, done: str, remedy: str | None) -> None:
        super().__init__(f"{done}; {remedy or 'nothing is saved'}")
        self.done = done


class InvalidInput(UserError, ValueError):
    """A setting, a file or a tensor is not as required."""


def one_line(error: BaseException) -> str:
    """An error's message in one line, without the traceback that a loader process includes in it."""
    # The actual message comes last.
    message = str(error).rsplit(f"{type(error).__name__}: ", maxsplit=1)[-1]
    return " ".join(message.split())


def chain_of(error: BaseException) -> list[BaseException]:
    """An error and its chain of causes (`raise … from`), nearest first.

    Not `__context__`: an error raised while another was handled may be a bug.
    """
    chain = [error]
    while cause := chain[-1].__cause__:
        chain.append(cause)
    return chain


def listed(names: Sequence[str], most: int = 8) -> str:
    """Names joined by commas; only the number of those beyond the first `most` is given."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")
