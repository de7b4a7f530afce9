"""The method that a config of `conf/evaluate.yaml` chooses: its network, its name, its fingerprint."""

import hashlib
from pathlib import Path

import torch
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig

from stvsr.checkpoint import load_network, variant_of
from stvsr.errors import InvalidInput
from stvsr.models.network import Network, Stage, check_network
from stvsr.models.two_stage import TwoStage
from stvsr.stage_weights import load_stages


def check_one_method(config: DictConfig) -> None:
    """Refuses a config that names no method, or several.

    Raises:
        InvalidInput: not exactly one of `checkpoint`, `predictions`, `model` and `method` is given.
    """
    choices = (config.checkpoint, config.predictions, config.get("model"), config.get("method"))
    if sum(choice is not None for choice in choices) != 1:
        raise InvalidInput(
            "give exactly one of checkpoint=FILE (a trained network), predictions=FOLDER (saved frames), "
            "model=two_stage (frame_interpolator=… frame_upscaler=…) and method=bicubic_blend (no training needed)"
        )


def chosen_network(config: DictConfig) -> Network | None:
    """The network of `checkpoint`, `model` or `method`, or None for `predictions`.

    Raises:
        InvalidInput: the network has no trained weights.
    """
    if config.checkpoint is not None:
        return load_network(config.checkpoint)
    if config.predictions is not None:
        return None
    if config.get("model") is None:
        return check_network(instantiate(config.method), "method").eval()
    system = instantiate(config.model)
    if not isinstance(system, TwoStage):
        raise InvalidInput(
            f"model={config.model._target_} is not trained; give checkpoint=FILE, a file that stvsr.train wrote, or, "
            "for a custom class, method=… instead, a function that returns the network with its weights"
        )
    load_stages(system, config.weights, required=True)
    return system.eval()


def method_name(config: DictConfig) -> str:
    """The method's name in tables and logs.

    The config's `name`, if any; else for a checkpoint its variant (an ablation's letter) or file name, for saved frames
    their folder's name, for a two-stage system its networks' names, for a method its module's name.
    """
    if config.name not in (None, ""):
        # Hydra reads a name such as 12 as a number.
        return str(config.name)
    if config.checkpoint is not None:
        return variant_of(config.checkpoint) or Path(config.checkpoint).stem
    if config.predictions is not None:
        return Path(config.predictions).resolve().name
    if config.get("model") is not None:
        parts = (get_class(part._target_) for part in config.model.values() if isinstance(part, DictConfig))
        return " + ".join(part.title for part in parts if issubclass(part, Stage))
    name: str = config.method._target_.split(".")[-2]
    return name


def fingerprint(network: Network) -> str:
    """Checksum of a network's weights: one that `method` names may have different ones each time."""
    digest = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().flatten().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
