"""Checks of a training run's settings, before anything is built from them."""

import os
from itertools import product
from pathlib import Path

from omegaconf import DictConfig

from stvsr.config import LONGEST_VARIANT, WANDB_OFFLINE, check_flag, check_int, resolved, targets_in
from stvsr.data.folders import is_searched
from stvsr.errors import InvalidInput

PRECISIONS = ("32-true", "64-true", "bf16-mixed")
"""Not float16, whose gradient scaler would skip steps unseen by `NonFiniteGuard`, nor rounded weights (`bf16-true`)."""

SEEDS = 2**32
"""The number of seeds that NumPy takes."""


def check_values(config: DictConfig) -> None:
    """Refuses values that nothing built from a config would refuse, or only with an obscure error.

    Raises:
        InvalidInput: names the value.
    """
    for flag in ("cuda_graphs", "blended_start", "model.checkpointing", WANDB_OFFLINE):
        check_flag(config, flag)
    if not isinstance(config.variant, str | int | float) or not 0 < len(str(config.variant)) <= LONGEST_VARIANT:
        raise InvalidInput(f"variant={config.variant}; expected a name of at most {LONGEST_VARIANT} characters")
    check_int("seed", config.seed, least=0)
    for name in ("max_steps", "val_check_interval"):
        check_int(f"trainer.{name}", config.trainer[name], least=1)
    check_int("trainer.log_every_n_steps", config.trainer.log_every_n_steps, least=0)
    if config.model._target_ == "stvsr.models.zooming_slow_mo.ZoomingSlowMo":
        check_int("model.channels", config.model.channels, least=1)
    if not isinstance(rate := config.optimizer.get("lr", 0.0), float | int):
        raise InvalidInput(f"optimizer.lr={rate}; expected a number, such as 4e-4")
    if config.callbacks.get("last") is None:
        raise InvalidInput("callbacks.last=null: nothing of the run would be saved; omit it")
    if config.trainer.get("limit_val_batches", 1) == 0:
        raise InvalidInput(
            "trainer.limit_val_batches=0: expected 1 or more, as validations choose best.ckpt; to validate once, at "
            "the end, add trainer.val_check_interval='${trainer.max_steps}'"
        )
    if config.seed >= SEEDS:
        raise InvalidInput(f"seed={config.seed}; expected 0 to {SEEDS - 1}")
    if config.trainer.precision not in PRECISIONS:
        raise InvalidInput(f"trainer.precision={config.trainer.precision}; expected {', '.join(PRECISIONS)}")
    check_folders(config.data)
    check_apart(config.data)


def check_folders(data: DictConfig) -> None:
    """Refuses null in place of a folder or a pack that our own sources read clips from.

    Raises:
        InvalidInput: names it.
    """
    # A custom class may give null a meaning of its own.
    if all(target.startswith("stvsr.") for target in targets_in(resolved(data))):
        for name in ("root", "val_root", "pack"):
            if data.get(name, name) is None:
                raise InvalidInput(f"data.{name}=null; expected the path of clips: give it, or omit val_root")


def check_apart(data: DictConfig) -> None:
    """Refuses a validation folder within the training folder or around it; the same one for both must be intended.

    Raises:
        InvalidInput: one of the folders lies in the other.
    """
    root, val_root = data.get("root"), data.get("val_root")
    if root is None or val_root is None:
        return
    # Compared by every path to them; links inside them are not followed.
    for training_path, validation_path in product(_paths_to(root), _paths_to(val_root)):
        if is_searched(training_path, validation_path) or is_searched(validation_path, training_path):
            raise InvalidInput(
                f"data.val_root={val_root}: overlaps with data.root={root}, so validation clips would be trained on; "
                "choose separate folders"
            )


def _paths_to(folder: str) -> list[Path]:
    """A folder's absolute paths: no link resolved, all but one in the last place, and all."""
    plain = os.path.abspath(folder)
    return [
        Path(plain),
        Path(os.path.realpath(os.path.dirname(plain)), os.path.basename(plain)),
        Path(os.path.realpath(plain)),
    ]
