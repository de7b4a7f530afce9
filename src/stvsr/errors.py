"""Errors a user can cause and mend.

Every entry point prints such an error as one line and exits with status 1 (see `cli.py`); anything else that
is raised is a bug of ours and keeps its traceback. A message names the value, what was expected and the remedy.
"""

from collections.abc import Sequence


class UserError(Exception):
    """Something a user can cause and mend, told in one line."""


class DamagedClip(UserError):
    """One clip cannot be read as it should be.

    Training skips, names and counts it; scoring stops, because a score over other clips than asked for is wrong.
    """


class TrainingDiverged(UserError):
    """Too many steps in a row had a loss or a gradient that is not finite."""


class Interrupted(Exception):
    """A run was asked to stop, and says what is saved of it; entry points exit with status 130.

    Args:
        done: how far it came.
        remedy: how to continue it by itself; None where nothing is saved. Whoever made it a part of more work says how
            to continue all of that.
    """

    def __init__(self, done: str, remedy: str | None) -> None:
        super().__init__(f"{done}; {remedy or 'nothing is saved'}")
        self.done = done


class InvalidInput(UserError, ValueError):
    """A setting, a file or a tensor is not as it has to be."""


def one_line(error: BaseException) -> str:
    """An error's message in one line, without the traceback that a loader process sends along."""
    # The message proper comes last.
    message = str(error).rsplit(f"{type(error).__name__}: ", maxsplit=1)[-1]
    return " ".join(message.split())


def chain_of(error: BaseException) -> list[BaseException]:
    """An error and those that it was raised `from`, the nearest first.

    Not `__context__`: an error raised while another was handled may be a bug.
    """
    chain = [error]
    while cause := chain[-1].__cause__:
        chain.append(cause)
    return chain


def listed(names: Sequence[str], most: int = 8) -> str:
    """Names in words; those beyond the first few are counted."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")
