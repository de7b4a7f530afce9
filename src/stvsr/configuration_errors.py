"""Which errors are about a configuration, and what is said of each."""

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
"""Hydra's words for an error that a class raised which it makes."""

LIBRARIES = ("torch.", "pytorch_lightning.", "wandb.", "hydra_plugins.", "stvsr.tracking.")
"""What one of their classes raises is about the values it was given; of ours, or a user's own, it may be a bug.

The logger of `stvsr.tracking` is Lightning's.
"""

NO_CHOICE = "Config group override must be a string or a list. Got NoneType"
"""Hydra's words for `logger=null`."""

NO_SUBMITIT = "Could not load 'hydra/launcher/submitit_slurm'"
"""Hydra's words where the plugin that `hydra/launcher=slurm` configures is not installed."""

OF_VALUES = (TypeError, ValueError, ZeroDivisionError, RuntimeError)
"""What comes of values of a wrong kind or size; other errors of ours are bugs, and keep their traceback."""


def explain(error: BaseException) -> tuple[str | None, int]:
    """One line and an exit status for an error that a user can cause; None for any other."""
    # First: Hydra wraps what happens in whatever it makes, and the disk is no matter of the configuration.
    if (message := in_one_line(error)) is not None:
        return message, 1
    for link in chain_of(error):
        if _is_configuration(link):
            return f"configuration: {_said(link)}; see the files in {CONFIG_DIR}", 2
    return None, 1


def _said(error: BaseException) -> str:
    """What Hydra says of an error in a configuration, and where it says no reason, that."""
    if str(error).startswith(NO_CHOICE):
        return "null chooses no file of a group of settings; name one, such as logger=csv"
    if NO_SUBMITIT in str(error):
        return (
            "hydra/launcher=slurm needs hydra-submitit-launcher, which is not installed; run make install, or "
            'pip install ".[slurm]" in the clone'
        )
    if "LexerNoViableAlt" in str(error):
        wrong = one_line(error).partition("Exception: ")[2].partition(" ^ See")[0]
        return f"{wrong}: letters that are not English, and ~, need quotes within quotes, such as 'data.root=\"DIR\"'"
    message, *hint = one_line(error).split(", set env var HYDRA_FULL_ERROR=1")
    return f"{message}: {one_line(chain_of(error)[-1])}" if hint else message


def _is_configuration(error: BaseException) -> bool:
    """Whether an error tells of the config, not of a bug in something of ours that Hydra made."""
    if isinstance(error, InstantiationException) and (cause := error.__cause__) is not None:
        _, called, target = str(error).partition(CALLED)
        is_of_library = not called or target.startswith(LIBRARIES)
        return is_of_library or isinstance(cause, OF_VALUES) or _is_configuration(cause)
    # What is made later, such as a source of clips. In a user's own code it is a bug.
    wrong_key = isinstance(error, TypeError) and "unexpected keyword argument" in str(error) and _is_raised_here(error)
    return wrong_key or str(error).startswith(NO_CHOICE) or isinstance(error, HydraException | OmegaConfBaseException)


def _is_raised_here(error: BaseException) -> bool:
    """Whether a line of this package raised it, of Hydra, which calls what is made later for us, or of nobody."""
    raised = traceback.extract_tb(error.__traceback__)
    ours = (PACKAGE, Path(hydra.__file__).parent)
    return not raised or any(Path(raised[-1].filename).is_relative_to(package) for package in ours)
