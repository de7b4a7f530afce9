"""Recognises errors due to the configuration, and explains each in one line."""

import traceback
from pathlib import Path

import hydra
from hydra.errors import HydraException, InstantiationException
from omegaconf.errors import OmegaConfBaseException

from stvsr.config import CONFIG_DIR
from stvsr.errors import chain_of, one_line
from stvsr.explanations import in_one_line

PACKAGE = Path(__file__).parent

CALLED = "Error in call to target '"
"""Beginning of Hydra's message when a class it instantiates raises an error."""

LIBRARIES = ("torch.", "pytorch_lightning.", "wandb.", "hydra_plugins.", "stvsr.tracking.")
"""Errors of their classes are blamed on the given values; those of ours, or a user's, may be bugs.

The logger of `stvsr.tracking` derives from Lightning's.
"""

NO_CHOICE = "Config group override must be a string or a list. Got NoneType"
"""Hydra's message for `logger=null`."""

NO_SUBMITIT = "Could not load 'hydra/launcher/submitit_slurm'"
"""Hydra's message if the plugin for `hydra/launcher=slurm` is not installed."""

OF_VALUES = (TypeError, ValueError, ZeroDivisionError, RuntimeError)
"""Errors that values of a wrong type or size cause; others from our classes are bugs, and keep their traceback."""


def explain(error: BaseException) -> tuple[str | None, int]:
    """One line and an exit status for an error that a user can cause; None and 1 for any other."""
    # First: Hydra wraps all errors of what it instantiates, such as that of a full disk.
    if (message := in_one_line(error)) is not None:
        return message, 1
    for link in chain_of(error):
        if _is_configuration(link):
            return f"configuration: {_hydra_message(link)}; see the files in {CONFIG_DIR}", 2
    return None, 1


def _hydra_message(error: BaseException) -> str:
    """Hydra's message for an error in a configuration, with the reason added where it lacks it."""
    if str(error).startswith(NO_CHOICE):
        return "null selects no file of a config group; name one, such as logger=csv"
    if NO_SUBMITIT in str(error):
        return (
            "hydra/launcher=slurm needs hydra-submitit-launcher, which is not installed; run make install, or "
            'pip install ".[slurm]" in the clone'
        )
    if "LexerNoViableAlt" in str(error):
        reason = one_line(error).partition("Exception: ")[2].partition(" ^ See")[0]
        return f"{reason}: non-ASCII letters and ~ need quotes within quotes, such as 'data.root=\"DIR\"'"
    message, *hint = one_line(error).split(", set env var HYDRA_FULL_ERROR=1")
    return f"{message}: {one_line(chain_of(error)[-1])}" if hint else message


def _is_configuration(error: BaseException) -> bool:
    """Whether an error is due to the config, not to a bug in a class that Hydra instantiated."""
    if isinstance(error, InstantiationException) and (cause := error.__cause__) is not None:
        _, called, target = str(error).partition(CALLED)
        is_of_library = not called or target.startswith(LIBRARIES)
        return is_of_library or isinstance(cause, OF_VALUES) or _is_configuration(cause)
    # From deferred instantiation, such as of a source of clips; in a user's own code it is a bug.
    wrong_key = isinstance(error, TypeError) and "unexpected keyword argument" in str(error) and _is_raised_here(error)
    return wrong_key or str(error).startswith(NO_CHOICE) or isinstance(error, HydraException | OmegaConfBaseException)


def _is_raised_here(error: BaseException) -> bool:
    """Whether it was raised in this package or in Hydra, which makes deferred calls for us, or has no traceback."""
    frames = traceback.extract_tb(error.__traceback__)
    packages = (PACKAGE, Path(hydra.__file__).parent)
    return not frames or any(Path(frames[-1].filename).is_relative_to(package) for package in packages)
