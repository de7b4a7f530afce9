"""A composed config as plain values."""

from typing import Any

from omegaconf import DictConfig, OmegaConf


def resolved(config: DictConfig) -> dict[str, Any]:
    """A config as plain values, without references to other parts of it."""
    container = OmegaConf.to_container(config, resolve=True)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}
