"""One file, one network: weights and the model config that rebuilds them, together.

Our checkpoints are Lightning's, plus the resolved model config under `MODEL_KEY`; they hold only tensors and plain
values, so they are read with `weights_only=True`. A checkpoint names classes to build; only classes of this package
are built. A smaller `.safetensors` file, for sharing, holds the weights in half precision and the config. Published
files are read as well, recognised by their tensor names: the weights of the paper's authors, and those of the networks
of two-stage systems.
"""

import json
import os
from datetime import datetime
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from stvsr.config import flattened
from stvsr.errors import InvalidInput, one_line
from stvsr.files import beside_then_rename, flush_to_disk
from stvsr.models.grown_start import PART, TRAINING_ONLY, can_grow, handing_on
from stvsr.models.network import Network
from stvsr.models.released import RELEASED, from_released
from stvsr.models.stages import from_published
from stvsr.models.weight_files import find_tensors

MODEL_KEY = "stvsr_model"
"""The entry of a checkpoint with the resolved model config."""

VARIANT_KEY = "stvsr_variant"
"""The entry of a checkpoint with the name of the variant, such as an ablation's letter."""

OPTIMIZER_KEY = "stvsr_optimizer"
"""The entry of a checkpoint with the name of the optimizer's class."""

SETTINGS_KEY = "stvsr_settings"
"""The entry of a checkpoint with the settings that determine what is learned."""

NETWORK_PREFIX = "network."
"""The prefix of the network's tensor names in a checkpoint."""

NETWORK_PACKAGE = "stvsr.models."

COMPACT = ".safetensors"
"""The suffix of a file of half-precision weights."""

STARTER = "starter"
"""The name of the weights that come with the package, accepted in place of a file of a whole network."""


def load_network(path: str | Path) -> Network:
    """Loads a trained network, ready to use.

    Args:
        path: one of our checkpoints, a file that `export` wrote, the authors' released weights, the published weights
            of one stage of a two-stage system (the other stage is then the one without learning), or `"starter"`.

    Returns:
        The network on the CPU, in `eval()` mode.

    Raises:
        InvalidInput: the file is missing or none of these, names anything but a network of this package, or its
            weights do not fit that network.
    """
    return _rebuilt(*_config_and_weights(read_file(path), path), path).eval()


def export(path: str | Path, output: Path) -> None:
    """Writes the network of a checkpoint as a compact file: weights in half precision, and the model config.

    Args:
        path: as for `load_network`.
        output: the file to write; its name ends in `.safetensors`.

    Raises:
        InvalidInput: as for `load_network`, or `output` has another suffix.
    """
    if output.suffix != COMPACT:
        raise InvalidInput(f"{output}: expected a name that ends in {COMPACT}: choose another output")
    content = read_file(path)
    config, weights = _config_and_weights(content, path)
    _rebuilt(config, weights, path)  # refuses what would not load
    metadata = {MODEL_KEY: json.dumps(config), VARIANT_KEY: str(content.get(VARIANT_KEY) or "")}
    halves = {name: _halved(part).contiguous() for name, part in weights.items()}
    with beside_then_rename(output) as beside:
        # Not safetensors' save_file, whose files only their owner can read.
        beside.write_bytes(save(halves, metadata=metadata))
        flush_to_disk(beside)


def _halved(part: Tensor) -> Tensor:
    """A tensor in half precision; unchanged if not floating point or out of range, as a variance may be."""
    half = part.half()
    return half if part.is_floating_point() and half.isfinite().all() else part


def fill(network: nn.Module, weights: dict[str, Tensor], path: str | Path) -> None:
    """Loads weights into a network.

    Args:
        network: what to fill.
        weights: all of its tensors, by name.
        path: their file, for messages.

    Raises:
        InvalidInput: the weights do not fit the network.
    """
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise InvalidInput(
            f"{path}: the weights do not fit the network it names ({one_line(error)[:200]}); "
            "the file is damaged or was edited: use another"
        ) from None


def _config_and_weights(content: dict[str, Any], path: str | Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    tensors = find_tensors(content)
    if RELEASED.fits(tensors):
        return from_released(tensors, origin=str(path))
    found = from_published(tensors, origin=str(path)) or own_network(content)
    if found is None:
        raise InvalidInput(
            f"{path}: neither a checkpoint of stvsr (no entry {MODEL_KEY!r}) nor the authors' released weights; "
            f"give a file that stvsr.train wrote, or a {COMPACT} file of stvsr.export"
        )
    return found


def own_network(content: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
    """The model config and the network's weights from the content of our checkpoints; None for any other file."""
    config, state = content.get(MODEL_KEY), content.get("state_dict")
    if not isinstance(config, dict) or not isinstance(state, dict):
        return None
    weights = {
        name.removeprefix(NETWORK_PREFIX): tensor
        for name, tensor in state.items()
        if isinstance(name, str) and name.startswith(NETWORK_PREFIX)
    }
    return config, weights


def _rebuilt(config: dict[str, Any], weights: dict[str, Tensor], path: str | Path) -> Network:
    """Builds the network that a model config describes, and loads its weights."""
    network = _build(config, str(path))
    if not isinstance(network, Network):
        raise InvalidInput(f"{path}: names {config.get('_target_')!r}, a part of a network; expected a whole network")
    fill(network, weights, path)
    return network


def variant_of(path: str | Path) -> str | None:
    """The name of a checkpoint's variant, such as an ablation's letter; None for weights without one.

    Raises:
        InvalidInput: the file is missing or no checkpoint.
    """
    variant = read_file(path).get(VARIANT_KEY)
    return variant if isinstance(variant, str) else None


def read_run(path: str | Path, config: dict[str, Any]) -> dict[str, Any]:
    """The content of a checkpoint, to resume a run with a resolved model config.

    Raises:
        InvalidInput: as for `load_network`, the file lacks the state of a run, or it is of another network; the message
            then names the first setting that differs.
    """
    content = read_file(path)
    saved, _ = _config_and_weights(content, path)
    if "optimizer_states" not in content:
        raise InvalidInput(f"{path}: has weights but no training state; resume from a last.ckpt of stvsr.train")
    _check_same_network(path, saved, config)
    return content


def weights_for(path: str | Path, config: dict[str, Any]) -> dict[str, Tensor]:
    """The weights in a file, for a network; those of (b) are completed to those of (e) (`stvsr.models.grown_start`).

    Args:
        path: as for `load_network`.
        config: the resolved config of the network.

    Returns:
        The network's tensors, by name.

    Raises:
        InvalidInput: as for `load_network`, or the weights are of another network; the message then names the first
            setting that differs.
    """
    saved, weights = _config_and_weights(read_file(path), path)
    if can_grow(saved, config):
        return weights | handing_on(_build(config[PART], str(path)))
    _check_same_network(path, saved, config)
    return weights


def _check_same_network(path: str | Path, saved: dict[str, Any], config: dict[str, Any]) -> None:
    configured, stored = flattened(config), flattened(saved)
    for key in sorted((configured.keys() | stored.keys()) - TRAINING_ONLY):
        if configured.get(key) != stored.get(key):
            raise InvalidInput(
                f"{path}: a checkpoint of another network: its {key} is {stored.get(key)!r}, the configuration "
                f"has {configured.get(key)!r}; choose the ablation it was trained with, or another file"
            )


def weight_file(named: str | Path) -> Path:
    """The file that a path or the name `starter` stands for."""
    return Path(__file__).parent / "weights" / f"{STARTER}{COMPACT}" if str(named) == STARTER else Path(named)


def read_file(path: str | Path) -> dict[str, Any]:
    """Reads the content of a weight file, without executing anything in it.

    Raises:
        InvalidInput: the file is missing, unreadable, damaged or no weight file.
    """
    path = weight_file(path)
    if path.is_dir():
        raise InvalidInput(f"checkpoint {path}: is a folder; expected a file, such as a run's checkpoints/last.ckpt")
    if not path.is_file():
        raise InvalidInput(f"checkpoint {path}: no such file; check the name")
    if not os.access(path, os.R_OK):
        raise InvalidInput(f"checkpoint {path}: not readable by this user; change its permissions")
    if path.suffix == COMPACT:
        return _read_compact(path)
    try:
        # Super-SloMo's file contains the time at which it was written.
        with torch.serialization.safe_globals([datetime]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:
        # Arbitrary bytes may raise anything in the unpickler.
        raise InvalidInput(
            f"{path}: not a checkpoint, or a damaged one; give a file that stvsr.train wrote, a {COMPACT} file of "
            "stvsr.export, or the authors' released weights; to restart a run that left it, remove it"
        ) from None
    if not isinstance(content, dict):
        raise InvalidInput(f"{path}: holds a {type(content).__name__}; expected a checkpoint of stvsr")
    return content


def _read_compact(path: Path) -> dict[str, Any]:
    """Reads a file that `export` wrote, in the form of a checkpoint."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {f"{NETWORK_PREFIX}{name}": file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
        config = json.loads(metadata.get(MODEL_KEY, "null"))
    except (SafetensorError, OSError, ValueError):
        raise InvalidInput(f"{path}: not a {COMPACT} file, or a damaged one; give a file of stvsr.export") from None
    return {MODEL_KEY: config, VARIANT_KEY: metadata.get(VARIANT_KEY) or None, "state_dict": state}


def _build(config: object, origin: str) -> Any:
    """Builds the object that a model config describes, from plain values alone.

    Not by Hydra, which would resolve references such as `${...}` and could so be made to call anything.
    """
    if isinstance(config, list):
        return [_build(value, origin) for value in config]
    if not isinstance(config, dict):
        if not isinstance(config, int | float | str | bool | None):
            raise InvalidInput(f"{origin}: its model config holds a {type(config).__name__}; expected plain values")
        return config
    module_class = permitted_class(config.get("_target_"), origin)
    arguments = {key: value for key, value in config.items() if key != "_target_"}
    for key in arguments:
        if not isinstance(key, str) or key.startswith("_"):
            raise InvalidInput(f"{origin}: its model config has the entry {key!r}, which no network accepts")
    parts = {key: _build(value, origin) for key, value in arguments.items()}
    try:
        return module_class(**parts)
    except Exception as error:
        # Nonsensical values, such as a negative width, may raise anything.
        reason = one_line(error)[:200]
        raise InvalidInput(f"{origin}: the network it names cannot be built ({reason}); use another file") from None


def permitted_class(target: object, origin: str) -> type[nn.Module]:
    """The `nn.Module` of this package that a file names; anything else raises `InvalidInput`."""
    # The prefix alone is not enough: "stvsr.models.blocks.torch.load" has it too.
    if isinstance(target, str) and target.startswith(NETWORK_PACKAGE):
        module, _, name = target.rpartition(".")
        try:
            found = getattr(import_module(module), name)
        except Exception:
            raise InvalidInput(f"{origin}: names {target}, which this stvsr lacks; use a version that has it") from None
        if isinstance(found, type) and issubclass(found, nn.Module) and found.__module__.startswith(NETWORK_PACKAGE):
            return found
    raise InvalidInput(
        f"{origin}: names {target!r}; only classes of {NETWORK_PACKAGE.rstrip('.')} are built from files: train one of "
        "those, or score this one with method=…, a function that returns it (CONTRIBUTING.md)"
    )
