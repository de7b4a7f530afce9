"""Which earlier run a command continues, and whether it is the one that the command describes."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from pytorch_lightning.utilities import rank_zero_info, rank_zero_warn

from stvsr.checkpoint import SETTINGS_KEY, read_file, read_run
from stvsr.config import flattened, resolved, typed
from stvsr.data.videos import video_files
from stvsr.errors import InvalidInput, listed
from stvsr.files import write_text
from stvsr.training.checkpoints import LastCheckpoint, lacks_validation

OF_THE_START = ("blended_start", "initial_weights", "weights")
"""Settings that matter only at the start of a run."""

SETTINGS = (
    *OF_THE_START,
    "seed",
    "data.train_source",
    "loader.batch_size",
    "loader.crop",
    "objective",
    "optimizer",
    "scheduler",
    "trainer.precision",
    "trainer.gradient_clip_val",
    "trainer.gradient_clip_algorithm",
)
"""Settings, or groups of them, that decide what a network learns in a given number of steps."""

SOURCE, GENERATED = "data.train_source._target_", "stvsr.data.synthetic."
"""The setting that names the training clips, and how its value begins by default: generated clips."""

ONLOOKERS = ("DeviceStatsMonitor", "LearningRateMonitor", "ModelSummary", "RichProgressBar", "Timer", "TQDMProgressBar")

WITHOUT_EFFECT = ("stvsr.", *(f"pytorch_lightning.callbacks.{name}" for name in ONLOOKERS))
"""Prefixes of callbacks that do not affect what is learned; others, such as weight averaging, may."""

TOLD = 4
"""At most as many changed settings are named in a message."""


@dataclass(frozen=True)
class EarlierRun:
    """What a checkpoint says about its run.

    Attributes:
        path: the checkpoint.
        steps: how many had been done when it was written.
        validated: the step of the last validation; None where there was none.
        settings: as `settings_of` gives them; empty where the checkpoint has none.
    """

    path: Path
    steps: int
    validated: int | None
    settings: Mapping[str, Any]

    def changed(self, settings: Mapping[str, Any]) -> list[str]:
        """Names of the settings that differ from those of the run."""
        names = sorted(self.settings.keys() | settings.keys()) if self.settings else []
        # Earlier versions kept more of the data.
        names = [name for name in names if _is_of(name, (*SETTINGS, "callbacks"))]
        return [name for name in names if self.settings.get(name) != settings.get(name)]

    def moved(self) -> list[str]:
        """Names of the settings whose data folders are gone: their content may have been moved."""
        return [name for name, value in self.settings.items() if _is_root(name, value) and not Path(value).exists()]


def settings_of(config: DictConfig) -> dict[str, Any]:
    """The `SETTINGS` of a run, and those of callbacks that may affect it, each by its full name."""
    plain = resolved(config)
    callbacks = {
        name: str(callback.get("_target_")) for name, callback in plain.get("callbacks", {}).items() if callback
    }
    custom = [f"callbacks.{name}" for name, target in callbacks.items() if not target.startswith(WITHOUT_EFFECT)]
    chosen = {name: value for name, value in flattened(plain).items() if _is_of(name, (*SETTINGS, *custom))}
    return _with_absolute_roots(chosen)


def _with_absolute_roots(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by their full names, with data folders as absolute paths, so that all spellings of one are equal."""
    return {name: str(Path(value).resolve()) if _is_root(name, value) else value for name, value in settings.items()}


def _is_root(name: str, value: Any) -> bool:
    """Whether a setting, by its full name, names a folder of data."""
    return name.startswith("data.") and name.endswith("root") and value is not None


def _is_of(name: str, settings: tuple[str, ...]) -> bool:
    """Whether a setting is one of `settings`, or in one of these groups."""
    return any(name == part or name.startswith(f"{part}.") for part in settings)


def read_earlier(path: Path, config: DictConfig) -> EarlierRun:
    """Reads the run in a checkpoint, for a config that may continue it.

    Raises:
        InvalidInput: there is no state of a run, or it has another network or more steps than the config asks for.
    """
    content = read_run(path, resolved(config.model))
    last = content.get("callbacks", {}).get(LastCheckpoint.__qualname__, {})
    steps, wanted = int(content.get("global_step", 0)), config.trainer.max_steps
    if steps > wanted:
        raise InvalidInput(
            f"{path}: has {steps} steps, more than trainer.max_steps={wanted}; expected at least {steps}, or, to "
            "start anew, another output_dir"
        )
    # Earlier versions kept folders as the user wrote them.
    return EarlierRun(path, steps, last.get("validated"), _with_absolute_roots(content.get(SETTINGS_KEY, {})))


def run_to_continue(config: DictConfig) -> EarlierRun | None:
    """The run that a config continues, if there is one.

    Raises:
        InvalidInput: it has more steps than asked for, or is another run than the config describes.
    """
    path = checkpoint_to_continue(config)
    if path is None:
        return None
    earlier = read_earlier(path, config)
    _check_same_run(earlier, config)
    if config.resume is None and not is_finished(earlier, config):
        rank_zero_info(f"continuing {path}; to start anew, choose another output_dir")
    return earlier


def is_finished(earlier: EarlierRun, config: DictConfig) -> bool:
    """Whether a run has all its steps and its last validation."""
    wanted, interval = config.trainer.max_steps, config.trainer.val_check_interval
    return earlier.steps == wanted and not lacks_validation(earlier.steps, earlier.validated, wanted, interval)


def _check_same_run(earlier: EarlierRun, config: DictConfig) -> None:
    """Warns of changed settings, or refuses them where the result would pass for one of the new settings."""
    settings, explicit = settings_of(config), config.resume is not None
    changed = earlier.changed(settings)
    changes = listed([f"{name}={settings.get(name)}, which was {earlier.settings.get(name)}" for name in changed], TOLD)
    if changed and earlier.steps == config.trainer.max_steps:
        remedy = "omit resume, or begin with its weights: initial_weights=" if explicit else "choose another output_dir"
        raise InvalidInput(f"{earlier.path}: a finished run, which cannot change to {changes}; {remedy}")
    source = str(settings.get(SOURCE))
    if SOURCE in changed and source.startswith(GENERATED) and not explicit:
        # Generated clips are the default: the rest of the command was left out.
        raise InvalidInput(
            f"{earlier.path}: was trained with {SOURCE}={earlier.settings.get(SOURCE)}, not on generated clips; give "
            f"the whole command again, with its data=…, or {typed('resume', earlier.path)} to continue with those"
        )
    if "seed" in changed and not explicit:
        raise InvalidInput(
            f"{earlier.path}: would be continued with {changes}; choose another output_dir, or, to do so "
            f"nevertheless, {typed('resume', earlier.path)}"
        )
    if not all(_is_of(name, OF_THE_START) for name in changed):
        rank_zero_warn(f"continuing with {changes}")


def checkpoint_to_continue(config: DictConfig) -> Path | None:
    """The checkpoint that `resume` names, or one that an earlier run left in the same output folder.

    The latter lets a job continue that a cluster restarts, and keeps one run from overwriting another. It also takes
    precedence where a run that began with `resume` from another folder has got further.
    """
    last = Path(config.callbacks.last.path)
    if config.resume is None:
        return last if last.is_file() else None
    resume = Path(config.resume)
    if not last.is_file() or resume.resolve().parent == last.resolve().parent:
        return resume
    last_step, resume_step = (read_file(path).get("global_step", 0) for path in (last, resume))
    if last_step <= resume_step:
        return resume
    rank_zero_warn(
        f"continuing {last}, which is further along than resume={resume}; to continue from resume, choose another "
        "output_dir"
    )
    return last


def check_videos(root: Path, runs: Path) -> None:
    """Refuses other videos than those that earlier runs were trained on: a seed would draw different clips from them.

    Args:
        root: of the videos.
        runs: the folder of all runs, where the videos are listed.

    Raises:
        InvalidInput: names or sizes have changed.
    """
    list_file = runs / "videos.txt"
    listing = "".join(f"{path.relative_to(root)} {path.stat().st_size}\n" for path in video_files(root))
    listing = listing.encode(errors="replace").decode()  # as `write_text` does
    begun = any(runs.glob("*/checkpoints/last.ckpt"))
    if begun and list_file.is_file() and list_file.read_text(encoding="utf-8") != listing:
        raise InvalidInput(
            f"root={root}: has different videos from those of earlier runs ({list_file}); give those, or "
            "choose another output_dir"
        )
    runs.mkdir(parents=True, exist_ok=True)
    write_text(list_file, listing)
