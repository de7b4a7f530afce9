"""A composed config as plain values, and what a user may write otherwise than meant."""

from typing import Any

from omegaconf import DictConfig, OmegaConf

from stvsr.errors import InvalidInput


def resolved(config: DictConfig) -> dict[str, Any]:
    """A config as plain values, without references to other parts of it."""
    container = OmegaConf.to_container(config, resolve=True)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


def check_list(config: DictConfig, name: str) -> None:
    """Refuses a word where a list is meant: it would be taken letter by letter.

    Raises:
        InvalidInput: says how a list is written.
    """
    if not OmegaConf.is_list(config[name]):
        raise InvalidInput(f"{name}={config[name]}; expected a list: {name}=[{config[name]}]")
