"""Composed configs as plain values, and checks for values that a user may have written by mistake."""

import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from stvsr.errors import InvalidInput

PACKAGE = Path(__file__).parent

# A wheel carries conf/ inside the package; a clone has it at the top, where a user edits it.
CONFIG_DIR = PACKAGE / "conf" if (PACKAGE / "conf").is_dir() else PACKAGE.parents[1] / "conf"

PATHS = ("checkpoint", "initial_weights", "motion_cache", "output", "data.pack", "predictions", "resume")
"""Settings that name a file or folder, besides data roots and weights of stages."""

PLAIN = re.compile(r"[\w./:+-]+", re.ASCII)
"""Values that need no quotes in a shell, nor for Hydra unless it reads them as another type, such as a number."""

WANDB_OFFLINE = "logger.wandb.offline"
"""The setting that keeps W&B runs off the network."""

LONGEST_VARIANT = 64
"""The greatest length of a run's name, which is that of a W&B tag."""


def resolved(config: DictConfig) -> dict[str, Any]:
    """A config as plain values, with references to other parts of it resolved."""
    container = OmegaConf.to_container(config, resolve=True)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


def made_of(group: DictConfig, **options: Any) -> list[Any]:
    """Instantiates the entries of a group such as `logger` or `callbacks`, except those set to null."""
    return [part for part in instantiate(group, **options).values() if part is not None]


def flattened(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Nested settings by their dotted names: `{"data": {"root": "a"}}` as `{"data.root": "a"}`."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            flat |= {f"{name}.{inner}": setting for inner, setting in flattened(value).items()}
        else:
            flat[name] = value
    return flat


def entries(settings: Any) -> Iterator[tuple[str, Any]]:
    """Yields every name in settings with its value, at any depth and within lists."""
    if isinstance(settings, list):
        for value in settings:
            yield from entries(value)
    elif isinstance(settings, dict):
        for name, value in settings.items():
            yield str(name), value
            yield from entries(value)


def targets_in(settings: Any) -> list[str]:
    """The classes and functions that settings name as `_target_`."""
    return [str(value) for name, value in entries(settings) if name == "_target_" and value is not None]


def with_absolute_roots(settings: Any) -> Any:
    """Data settings with absolute paths for folders, so that they hold in any working directory."""
    return _with_roots(settings, lambda root: str(Path(root).resolve()))


def without_roots(settings: Any) -> Any:
    """Data settings with null for folders: the same clips may be elsewhere on another machine."""
    return _with_roots(settings, lambda root: None)


def _with_roots(settings: Any, change: Callable[[str], str | None]) -> Any:
    if isinstance(settings, list):
        return [_with_roots(value, change) for value in settings]
    if not isinstance(settings, dict):
        return settings
    return {
        name: change(value) if name.endswith("root") and value is not None else _with_roots(value, change)
        for name, value in settings.items()
    }


def refuse_missing(config: DictConfig) -> None:
    """Refuses a config that lacks a mandatory value (`???`).

    Raises:
        InvalidInput: names the value.
    """
    for name in _missing(config):
        raise InvalidInput(f"{name} is not given; add {name}=… to the command")


def refuse_unread(sources: Iterable[Any], ours_in: Path) -> None:
    """Refuses a user's config file with the name of one of ours: Hydra would silently read ours.

    Args:
        sources: where Hydra looks for config files.
        ours_in: the folder of our config files.

    Raises:
        InvalidInput: names the file.
    """
    for folder in (Path(source.path) for source in sources if "command-line" in source.provider):
        for packaged in sorted(ours_in.rglob("*.yaml")):
            file = folder / packaged.relative_to(ours_in)
            if file.is_file() and file.read_bytes() != packaged.read_bytes():
                raise InvalidInput(f"{file}: {packaged} is read instead; rename yours, and select it by the new name")


def _missing(config: DictConfig, prefix: str = "") -> Iterator[str]:
    # Keys are not converted to str: in a user's config they may be numbers.
    for key in cast(list[str], list(config)):
        if OmegaConf.is_missing(config, key):
            yield f"{prefix}{key}"
        elif not OmegaConf.is_interpolation(config, key) and isinstance(config[key], DictConfig):
            yield from _missing(config[key], f"{prefix}{key}.")


def check_list(config: DictConfig, name: str) -> None:
    """Refuses anything but a list: iterating over a string would give its letters.

    Raises:
        InvalidInput: says how to write a list.
    """
    if not OmegaConf.is_list(config[name]):
        raise InvalidInput(f"{name}={config[name]}; expected a list: {name}=[{config[name]}]")


def check_int(name: str, value: object, *, least: int) -> None:
    """Refuses anything but a whole number of at least `least`.

    Args:
        name: the setting's name in messages, for example `loader.crop`.
        value: the value given.
        least: the smallest number accepted.

    Raises:
        InvalidInput: names the value and the smallest number.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise InvalidInput(f"{name}={value}; expected a whole number, {least} or more")


def check_paths(config: DictConfig) -> None:
    """Refuses a number or boolean as the name of a file or folder: how it was written, such as 1e3, is lost.

    Raises:
        InvalidInput: says how to write such a name.
    """
    for name, value in flattened(resolved(config)).items():
        parent, _, last = name.rpartition(".")
        # Elsewhere `root` may be a setting of a user's own class, with another meaning.
        is_root = last.endswith("root") and (parent == "" or name.startswith("data."))
        if (name in PATHS or is_root or parent == "weights") and not isinstance(value, str | None):
            raise InvalidInput(
                f"{name}={value}: read as {type(value).__name__}; if that is a name, write {name}=./NAME"
            )


def override(name: str, value: object) -> str:
    """A setting as a Hydra override, quoted so that its value may contain any characters."""
    return f"{name}={QuotedString(str(value), Quote.double).with_quotes()}"


def typed(name: str, value: object) -> str:
    """A setting as one types it in a shell, with quotes for Hydra and the shell only where needed."""
    unquoted = f"{name}={value}"
    if PLAIN.fullmatch(str(value)) and OverridesParser.create().parse_override(unquoted).value() == str(value):
        return unquoted
    return shlex.quote(override(name, value))


def check_flag(config: DictConfig, name: str) -> None:
    """Refuses anything but true and false: any other word would count as true.

    Args:
        config: the config.
        name: the setting's name; a config without it is accepted.

    Raises:
        InvalidInput: names the value, and the two accepted.
    """
    value = OmegaConf.select(config, name, default=False)
    if not isinstance(value, bool):
        raise InvalidInput(f"{name}={value}; expected true or false")
